from __future__ import annotations

import resource

import pytest

from berth.builds.arguments import automatic_arguments
from berth.dockerfile import lint, stages, suggestions
from berth.dockerfile.lint import Linter
from berth.dockerfile.survey import Base, Facts, Survey
from berth.errors import InvalidArgument
from berth.oci.image import ImageConfig
from berth.oci.platform import Platform, this_machine

HEAD = "FROM busybox\n"


def linter_of(text, ignored=(), given=None, bases=None):
    dockerfile = stages.read(text)
    here = this_machine()
    known = Base(config=ImageConfig(env=["PATH=/bin", "HOME=/"]), platform=here)
    facts = Facts(
        given=given or {},
        automatic=automatic_arguments(here, here, ""),
        target=here,
        bases={s.index: known for s in dockerfile.stages} if bases is None else bases,
        ignored=ignored,
    )
    found = Linter(Survey(dockerfile, facts), lint.options_of(text, ""))
    found.run(text, dockerfile.stages)
    return found


def found(text, **more):
    return [(one.rule.name, *one.lines) for one in linter_of(text, **more).findings]


@pytest.mark.parametrize(
    ("text", "rule", "line"),
    [
        ("FROM busybox AS One\n", "StageNameCasing", 1),
        ("FROM busybox as one\n", "FromAsCasing", 1),
        (HEAD + "RUN a \\\n\n  b\n", "NoEmptyContinuation", 4),
        (HEAD + "run a\nRUN b\n", "ConsistentInstructionCasing", 2),
        (HEAD + "Run a\n", "ConsistentInstructionCasing", 2),
        ("FROM busybox AS a\nFROM busybox AS a\n", "DuplicateStageName", 2),
        ("FROM busybox AS scratch\n", "ReservedStageName", 1),
        (HEAD + "CMD echo\n", "JSONArgsRecommended", 2),
        (HEAD + "ENTRYPOINT echo\n", "JSONArgsRecommended", 2),
        (HEAD + "MAINTAINER me\n", "MaintainerDeprecated", 2),
        ("ARG A=busybox\nFROM $A$B\n", "UndefinedArgInFrom", 2),
        (HEAD + "WORKDIR here\n", "WorkdirRelativePath", 2),
        (HEAD + "USER $who\n", "UndefinedVar", 2),
        (HEAD + "COPY <<END /\n$what\nEND\n", "UndefinedVar", 2),
        (HEAD + "RUN --mount=target=/mnt$where true\n", "UndefinedVar", 2),
        (HEAD + 'CMD ["a"]\nCMD ["b"]\n', "MultipleInstructionsDisallowed", 2),
        (HEAD + "HEALTHCHECK NONE\nHEALTHCHECK NONE\n", "MultipleInstructionsDisallowed", 2),
        (HEAD + "ENV a b\n", "LegacyKeyValueFormat", 2),
        (HEAD + "LABEL a b\n", "LegacyKeyValueFormat", 2),
        ("FROM --platform=$TARGETPLATFORM busybox\n", "RedundantTargetPlatform", 1),
        (HEAD + "ARG API_TOKEN\n", "SecretsUsedInArgOrEnv", 2),
        (HEAD + "ENV password=1\n", "SecretsUsedInArgOrEnv", 2),
        (HEAD + "EXPOSE 80/TCP\n", "ExposeProtoCasing", 2),
        (HEAD + "EXPOSE 80:80\n", "ExposeInvalidFormat", 2),
        (HEAD + "COPY note /\n", "CopyIgnoredFile", 2),
        (HEAD + "ADD in/note /\n", "CopyIgnoredFile", 2),
        (
            "# check=experimental=all\n# other\nFROM busybox AS one\n",
            "InvalidDefinitionDescription",
            3,
        ),
    ],
)
def test_what_a_check_finds(text, rule, line):
    assert [(name, first) for name, first, _ in found(text, ignored=["note", "in"])] == [
        (rule, line)
    ]


@pytest.mark.parametrize(
    "text",
    [
        "from busybox as one\nrun a\n",
        "FROM busybox AS one\n# one of them\nFROM one AS two\n",
        HEAD + 'SHELL ["/bin/sh", "-c"]\nCMD echo\n',
        HEAD + "ARG A\nUSER $A$HOME\n",
        HEAD + "ARG A=1 B=$A\nENV C=$B\nUSER $C\n",
        "ARG A=busybox\nFROM $A\nFROM --platform=$BUILDPLATFORM $A\n",
        "FROM --platform=linux/arm64 busybox AS arm64\n"
        if this_machine().architecture == "arm64"
        else HEAD,
        HEAD + "WORKDIR /\nWORKDIR here\n",
        HEAD + "ENV PUBLIC_KEY=1 TOKEN_FILE=2\n",
        HEAD + 'RUN echo $what\nCMD ["$what"]\n',
        HEAD + "COPY . /\nCOPY --from=busybox note /\n",
        "# check=skip=UndefinedVar\n" + HEAD + "USER $who\n",
        HEAD + "# check=skip=all\nUSER $who\n",
        "# other\nFROM busybox AS one\n",
    ],
)
def test_what_no_check_minds(text):
    assert found(text, ignored=["note"]) == []


def test_checks_with_exceptions_and_roots():
    assert found(HEAD + "COPY note /\n", ignored=["note", "!other"]) == []
    assert found(HEAD + "COPY . /\n", ignored=["**"]) == [("CopyIgnoredFile", 2, 2)]


def test_variables_of_an_unknown_base_are_not_missed():
    assert found(HEAD + "USER $who\n", bases={}) == []


def test_a_stage_has_what_the_one_below_it_has():
    assert found("FROM busybox AS a\nARG X\nENV Y=1\nFROM a\nUSER $X$Y\n") == []


def test_a_base_for_another_machine_is_found():
    other = Base(config=ImageConfig(), platform=Platform(architecture="s390x"))
    linter = linter_of(HEAD, bases={0: other})
    assert [one.detail for one in linter.findings] == [
        f'Base image busybox was pulled with platform "linux/s390x", expected "{this_machine()}"'
        " for current build"
    ]


def test_a_name_that_is_nearly_right_is_named():
    linter = linter_of(HEAD + "USER $HOMR\n")
    assert linter.findings[0].short == (
        "UndefinedVar: Usage of undefined variable '$HOMR' (did you mean $HOME?) (line 2)"
    )


def test_what_is_found_ends_a_build_that_says_so():
    linter_of(HEAD + "ENV a b\n").check_fails()
    with pytest.raises(
        InvalidArgument, match="lint violation found for rules: LegacyKeyValueFormat"
    ):
        linter_of("# check=error=true\n" + HEAD + "ENV a b\n").check_fails()


@pytest.mark.parametrize("text", ["skip", "skip=a;error=maybe", "other=1"])
def test_options_without_sense_are_refused(text):
    with pytest.raises(InvalidArgument, match="check option"):
        lint.options_of(f"# check={text}\n", "")


def test_a_dockerfile_that_grows_without_end_is_given_up():
    text = HEAD + "ENV A=" + "x" * 500_000 + "\n" + "USER $A\n" * 1000
    with pytest.raises(InvalidArgument, match="too much"):
        linter_of(text)


def test_distances():
    assert suggestions.distance("kitten", "sitten") == 1
    assert suggestions.nearest("RUM", ["COPY", "RUN"]) == "RUN"
    assert suggestions.nearest("RUN", ["COPY", "RUN"]) == ""
    assert suggestions.nearest("x" * 100, ["x" * 99]) == ""


@pytest.mark.parametrize(
    "text",
    [
        "ARG A=" + "x" * 500_000 + "\n" + "FROM x$A\n" * 1000,
        "ARG A=" + "x" * 500_000 + "\n" + "ARG B=x$A\n" * 1000 + HEAD,
        HEAD + f'ENV A="{"80 " * 100_000}"\n' + "EXPOSE $A\n" * 1000,
        "".join(f"ARG B{n}=1\nARG A=${{A:+}}${{B{n}:+}}\n" for n in range(20_000)) + HEAD,
    ],
)
def test_what_grows_beside_the_steps_is_given_up(text):
    with pytest.raises(InvalidArgument, match="too much"):
        linter_of(text)


@pytest.fixture
def _little_memory():
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, limits)


@pytest.mark.usefixtures("_little_memory")
def test_a_path_that_no_file_has_is_not_looked_for():
    assert found(HEAD + "COPY " + "a/" * 100_000 + "b /\n", ignored=["note"]) == []


@pytest.mark.parametrize("head", ["", HEAD])
def test_comments_are_read_once_for_all_that_follows_them(head):
    names = [f"key_{n}" for n in range(50_000)]
    text = head + "# other\n" * 50_000 + f"# {names[-1]} the last\nARG {' '.join(names)}\n" + HEAD
    linter = linter_of(text)
    known = linter._survey.stages[0].arguments if head else linter._survey.arguments
    assert [one.description for one in known.values()] == [""] * 49_999 + ["the last"]
    assert len(linter.findings) == (lint.MAX_FINDINGS if head else 0)


def test_no_more_is_found_than_somebody_reads():
    assert len(found(HEAD + "RUN a \\\n\n b\n" * 2000)) == lint.MAX_FINDINGS
    rows = " \\\n".join(f"key_{n}" for n in range(6000))
    places = [(first, last) for _, first, last in found(HEAD + f"ARG {rows}\n")]
    assert places == [(2, 6001), *[(2, 2)] * (lint.MAX_FINDINGS - 1)]


def test_guesses_are_few():
    text = HEAD + "USER $HOMR\n" * 100
    guesses = [one for one in linter_of(text).findings if "did you mean" in one.detail]
    assert len(guesses) == lint.MAX_GUESSES


def test_patterns_without_end_are_not_looked_at():
    ignored = [f"note{n}" for n in range(50_000)]
    assert found(HEAD + "COPY note1 /\n", ignored=ignored) == []
