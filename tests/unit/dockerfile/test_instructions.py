from __future__ import annotations

import pytest

from berth.dockerfile import instructions, syntax
from berth.errors import InvalidArgument


def read(text):
    return instructions.read(syntax.parse(text).lines[0])


def test_the_two_forms_of_a_command():
    assert read("RUN a 'b c'").words == ("a 'b c'",)
    assert read('RUN ["a", "b c"]').words == ("a", "b c")
    assert read('CMD ["a", ]').is_shell
    assert read("CMD []").words == ()


def test_pairs_keep_their_quotes_and_have_an_older_form():
    assert read("ENV a=b c=\"d e\" f='g' h=i\\ j").pairs == (
        ("a", "b"),
        ("c", '"d e"'),
        ("f", "'g'"),
        ("h", "i\\ j"),
    )
    assert read("LABEL key some  words").pairs == (("key", "some  words"),)
    assert read("ARG a b=c d=").pairs == (("a", None), ("b", "c"), ("d", ""))


def test_copies():
    step = read("COPY --from=x --chown=1:2 --chmod=755 --exclude=a --exclude=b c d e/")
    assert (step.sources, step.target, step.origin, step.owner, step.mode) == (
        ("c", "d"),
        "e/",
        "x",
        "1:2",
        "755",
    )
    assert step.excludes == ("a", "b")
    assert read('ADD ["a b", "c"]').sources == ("a b",)
    document = read("COPY <<-'one' plain /x/\n\ttext\n\tone\n")
    assert (document.sources, document.heredocs[0].content) == (("plain",), "text\n")


def test_triggers_keep_their_documents():
    assert read("ONBUILD RUN <<E\nx\nE\n").value == "RUN <<E\nx\nE"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("NOPE", "unknown instruction: NOPE"),
        ("FROM", "FROM requires either one or three arguments"),
        ("FROM a AS 1", 'invalid name for build stage: "1"'),
        ("RUN", "RUN requires at least one argument"),
        ("CMD [1]", "arrays must be comprised of strings only"),
        ("RUN --mount=from=$x,target=/x y", "doesn't support variable expansion"),
        ("RUN --security=insecure y", "security.insecure is not allowed"),
        ("RUN --security=odd y", 'security "odd" is not valid'),
        ("RUN --device=x y", "--device=x is not allowed"),
        ("RUN --network=other y", "unsupported network mode"),
        ("COPY --from a b", "Missing a value on flag: from"),
        ("COPY --from=a --from=b c d", "Duplicate flag specified: from"),
        ("COPY --chmod=9 a b", "invalid chmod parameter"),
        ("COPY --parents=x a b", "expecting boolean value for flag parents"),
        ("ADD --parents a b", "Unknown flag: parents"),
        ("COPY a <<E\nx\nE", "COPY cannot accept a heredoc as a destination"),
        ("ADD --from=x a b", "Unknown flag: from"),
        ("ENV =x", "ENV names can not be blank"),
        ("ENV a=b c", "can't find = in"),
        ("EXPOSE", "EXPOSE requires at least one argument"),
        ("WORKDIR", "WORKDIR requires exactly one argument"),
        ("ONBUILD ONBUILD RUN x", "Chaining ONBUILD"),
        ("ONBUILD MAINTAINER x", "isn't allowed as an ONBUILD trigger"),
        ("HEALTHCHECK NONE x", "HEALTHCHECK NONE takes no arguments"),
        ("SHELL []", "SHELL requires at least one argument"),
    ],
)
def test_what_makes_no_sense_is_said(text, why):
    with pytest.raises(InvalidArgument, match=why.replace("[", r"\[")):
        read(text)


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("# escape=`\nFROM a\nENV C=a` b D=2", (("C", "a` b"), ("D", "2"))),
        ("# escape=`\nFROM a\nENV C=c:\\x D=2", (("C", "c:\\x"), ("D", "2"))),
        ("FROM a\nENV C=a\\ b D=2", (("C", "a\\ b"), ("D", "2"))),
    ],
)
def test_words_are_escaped_as_the_directive_says(
    text: str, pairs: tuple[tuple[str, str], ...]
) -> None:
    line = syntax.parse(text).lines[-1]
    assert instructions.read(line).pairs == pairs
