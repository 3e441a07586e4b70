from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.dockerfile import stages, syntax
from berth.errors import BerthError, InvalidArgument


def lines(text):
    return [(line.number, line.name, line.flags, line.rest) for line in syntax.parse(text).lines]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("from a", [(1, "FROM", (), "a")]),
        ("\ufeffFROM a\r\nRUN b\r\n", [(1, "FROM", (), "a"), (2, "RUN", (), "b")]),
        ("# comment\n\n  FROM a", [(3, "FROM", (), "a")]),
        ("RUN a \\\n  # comment\n\n  b", [(1, "RUN", (), "a   b")]),
        ("RUN a \\ \t\n b", [(1, "RUN", (), "a  b")]),
        ("RUN a \\\\\nRUN b", [(1, "RUN", (), "a \\\\"), (2, "RUN", (), "b")]),
        ("# escape=`\nRUN a `\nb\\", [(2, "RUN", (), "a b\\")]),
        ("#syntax=x\n# escape = `\n#check=skip=all\nRUN a`\nb", [(4, "RUN", (), "ab")]),
        ("# plain\n# escape=`\nRUN a \\\nb", [(3, "RUN", (), "a b")]),
        ("COPY --from=a --chown=b:c d e", [(1, "COPY", ("--from=a", "--chown=b:c"), "d e")]),
        ('COPY --chown="a b" c d', [(1, "COPY", ("--chown=a b",), "c d")]),
        ("COPY -- --a b", [(1, "COPY", (), "--a b")]),
        ("RUN echo # kept", [(1, "RUN", (), "echo # kept")]),
        ("RUN a \\", [(1, "RUN", (), "a ")]),
    ],
)
def test_lines_are_joined_as_docker_joins_them(text, wanted):
    found = [(n, name, flags, rest.strip(" ")) for n, name, flags, rest in lines(text)]
    assert found == [(n, name, flags, rest.strip(" ")) for n, name, flags, rest in wanted]


def test_here_documents_are_read_to_their_names():
    text = "RUN cat <<A <<-'B' | sh\none\n\tA\nA\n\ttwo\n\tB\nCOPY <<\"C\" /c\n$x\nC\nRUN after\n"
    first, second, third = syntax.parse(text).lines
    assert [(h.name, h.content, h.expands) for h in first.heredocs] == [
        ("A", "one\n\tA\n", True),
        ("B", "two\n", False),
    ]
    assert [(h.name, h.content, h.expands) for h in second.heredocs] == [("C", "$x\n", False)]
    assert third.rest == "after"


@pytest.mark.parametrize(
    "text",
    ["RUN echo '<<EOF'", 'RUN echo "a <<EOF"', "RUN cat <<../x", "LABEL a=<<EOF", 'RUN ["<<A"]'],
)
def test_what_is_no_here_document_is_left_alone(text):
    assert syntax.parse(text).lines[0].heredocs == ()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "file with no instructions"),
        ("# only\n", "file with no instructions"),
        ("# escape=x\nFROM a", "invalid ESCAPE 'x'"),
        ("# escape=`\n# escape=`\nFROM a", "only one escape parser directive can be used"),
        ("FROM a\nRUN <<EOF\nx", "line 2: unterminated heredoc EOF"),
    ],
)
def test_what_cannot_be_read_is_said(text, why):
    with pytest.raises(InvalidArgument, match=why):
        syntax.parse(text)


words = st.sampled_from(
    [
        "FROM",
        "RUN",
        "COPY",
        "ENV",
        "ARG",
        "ONBUILD",
        "HEALTHCHECK",
        "LABEL",
        "EXPOSE",
        "SHELL",
        "ADD",
    ]
)
pieces = st.sampled_from(
    [
        "a",
        "A=b",
        '"',
        "'",
        "\\",
        "`",
        "\n",
        " ",
        "#",
        "<<E",
        "E\n",
        "[",
        "]",
        "$x",
        "${",
        "--f=",
        "\t",
        "\0",
    ]
)


@given(st.lists(st.one_of(words, pieces, st.text(max_size=3)), max_size=30))
def test_any_text_is_a_dockerfile_or_refused(parts):
    try:
        stages.read("FROM x\n" + "".join(parts))
    except BerthError as error:
        assert error.message
