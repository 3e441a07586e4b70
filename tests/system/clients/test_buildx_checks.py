"""What buildx shows of Dockerfiles: where they are wrong, what checks find, what can be built and given."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from support.projects import Project
    from support.registries import Registry
    from system.clients.conftest import Client

RULE = "--------------------\n"


@pytest.mark.parametrize(
    ("dockerfile", "excerpt"),
    [
        (
            "FROM busybox\nENV a=b\nRUN exit 3\n",
            "Dockerfile:3\n"
            f"{RULE}   1 |     FROM busybox\n   2 |     ENV a=b\n   3 | >>> RUN exit 3\n   4 |     \n{RULE}",
        ),
        (
            "FROM busybox\nRUN true && \\\n  exit 3\nENV a=b",
            "Dockerfile:2\n"
            f"{RULE}   1 |     FROM busybox\n   2 | >>> RUN true && \\\n   3 | >>>   exit 3\n"
            f"   4 |     ENV a=b\n{RULE}",
        ),
        (
            "FROM busybox\nFORM x\n",
            f"Dockerfile:2\n{RULE}   1 |     FROM busybox\n   2 | >>> FORM x\n   3 |     \n{RULE}",
        ),
        (
            "FROM busybox\nCOPY none /\n",
            f"Dockerfile:2\n{RULE}   1 |     FROM busybox\n   2 | >>> COPY none /\n   3 |     \n{RULE}",
        ),
        (
            "FROM busybox AS one\nRUN sleep 1000\nFROM busybox\nRUN <<END\nexit 3\nEND\n"
            "COPY --from=one /x /\n",
            f"Dockerfile:4\n{RULE}   3 |     FROM busybox\n"
            "   4 | >>> RUN <<END\n   5 | >>> exit 3\n   6 | >>> END\n"
            f"   7 |     COPY --from=one /x /\n{RULE}",
        ),
    ],
)
def test_a_failing_build_shows_where(
    project: Project, docker: Client, dockerfile: str, excerpt: str
) -> None:
    project.write(dockerfile)
    done = docker.try_to_build(project)
    assert done.code == 1
    assert excerpt in done.err, done.err


def test_a_base_that_is_not_there_is_shown(
    project: Project, docker: Client, registry: Registry
) -> None:
    name = f"{registry.host}/none:1"
    project.write(f"FROM busybox AS one\nFROM {name}\n")
    done = docker.try_to_build(project)
    assert done.code == 1
    assert f"[internal] load metadata for {name}" in done.err
    assert f"   2 | >>> FROM {name}\n" in done.err
    assert f"{name}: failed to resolve source metadata for {name}: " in done.err


def test_a_long_dockerfile_is_shown_where_it_is_wrong(project: Project, docker: Client) -> None:
    project.write("FROM busybox\n" + "# not much at all\n" * 5000 + "RUN exit 3\n" * 2)
    done = docker.try_to_build(project)
    assert " 5001 |     # not much at all\n 5002 | >>> RUN exit 3\n" in done.err, done.err[-2000:]


def test_what_checks_find_is_shown_with_a_build(project: Project, docker: Client) -> None:
    project.write("from busybox AS One\nENV a b\nUSER $NAME\nCMD echo\n")
    done = docker.build(project)
    for text in (
        "StageNameCasing: Stage name 'One' should be lowercase (line 1)",
        "FromAsCasing: 'AS' and 'from' keywords' casing do not match (line 1)",
        'LegacyKeyValueFormat: "ENV key=value" should be used instead of legacy "ENV key value" format',
        "UndefinedVar: Usage of undefined variable '$NAME' (line 3)",
        "JSONArgsRecommended: JSON arguments recommended for CMD to prevent",
    ):
        assert f" - {text}" in done.err, done.err
    assert "6 warnings found" in done.err
    detailed = docker("--debug", "build", str(project.folder))
    assert (
        "More info: https://docs.docker.com/go/dockerfile/rule/undefined-var/\nDockerfile:3\n"
        + RULE
    ) in detailed.err
    assert "   3 | >>> USER $NAME\n" in detailed.err


def test_checks_are_skipped_or_end_the_build(project: Project, docker: Client) -> None:
    project.write("# check=skip=JSONArgsRecommended\nFROM busybox\nENV a b\nCMD echo\n")
    assert "1 warning found" in docker.build(project).err
    instead = ("--build-arg", "BUILDKIT_DOCKERFILE_CHECK=skip=all")
    assert "warning" not in docker.build(project, *instead).err
    project.write("# check=error=true\nFROM busybox\nENV a b\nRUN echo ran\n")
    done = docker.try_to_build(project)
    assert done.code == 1
    assert "lint violation found for rules: LegacyKeyValueFormat" in done.err
    assert "RUN echo ran" not in done.err


def test_checks_alone(project: Project, docker: Client) -> None:
    project.write("FROM busybox\nENV a b\nCOPY note .\n", note="")
    project.file(".dockerignore", "note\n")
    done = docker("build", "--check", str(project.folder))
    assert done.code == 1
    assert done.out.startswith("Check complete, 2 warnings have been found!\n\nWARNING: Legacy")
    assert (
        "WARNING: CopyIgnoredFile - https://docs.docker.com/go/dockerfile/rule/copy-ignored-file/\n"
        'Attempting to Copy file "note" that is excluded by .dockerignore\n'
    ) in done.out
    assert "   3 | >>> COPY note .\n" in done.out
    project.write("FROM busybox\nENV a=b\n")
    done = docker("build", "--check", str(project.folder))
    assert (done.code, done.out) == (0, "Check complete, no warnings found.\n")
    project.write("FROM busybox\nFOO\n")
    done = docker("build", "--check", str(project.folder))
    assert done.code == 1
    assert "dockerfile parse error on line 2: unknown instruction: FOO" in done.err
    assert "   2 | >>> FOO\n" in done.err


def test_checks_as_a_document(project: Project, docker: Client) -> None:
    project.write("FROM busybox AS one\nFROM busybox\nMAINTAINER <me>\n")
    done = docker("build", "--call=check,format=json", str(project.folder))
    found = json.loads(done.out)
    assert [(one["ruleName"], one["location"]) for one in found["warnings"]] == [
        ("MaintainerDeprecated", {"ranges": [{"start": {"line": 3}, "end": {"line": 3}}]})
    ]
    assert found["sources"][0]["filename"] == "Dockerfile"


def test_outlines(project: Project, docker: Client) -> None:
    project.write(
        "# BASE what it lies on\nARG BASE=busybox\nARG UNUSED\nFROM $BASE AS one\nARG WHO=me\n"
        "RUN --mount=type=secret,id=token,required=true --mount=type=ssh true\n"
        "FROM busybox AS other\nARG NOT\n# two to be built\nFROM one AS two\n"
    )
    done = docker("build", "--call=outline", str(project.folder))
    assert (done.code, done.out) == (
        0,
        "TARGET:      two\nDESCRIPTION: to be built\n\n"
        "BUILD ARG   VALUE     DESCRIPTION\nBASE        busybox   what it lies on\nWHO         me        \n\n"
        "SECRET   REQUIRED\ntoken    true\n\nSSH       REQUIRED\ndefault   \n\n",
    )
    flags = ("--call=outline,format=json", "--target=other", "--build-arg=NOT=1")
    document = json.loads(docker("build", *flags, str(project.folder)).out)
    assert [(arg["name"], arg["value"]) for arg in document["args"]] == [("NOT", "1")]


def test_targets_and_what_there_is_to_be_asked(project: Project, docker: Client) -> None:
    project.write("# one the first\nFROM busybox AS one\nFROM one\n")
    done = docker("build", "--call=targets", str(project.folder))
    assert done.out == "TARGET    DESCRIPTION\none       the first\n(default) \n"
    done = docker("build", "--call=targets,format=json", str(project.folder))
    found = json.loads(done.out)["targets"]
    assert [(t.get("name"), t["base"], t.get("default")) for t in found] == [
        ("one", "busybox", None),
        (None, "one", True),
    ]
    done = docker("build", "--call=subrequests.describe", str(project.folder))
    assert "outline              1.0.0   List all parameters" in done.out
    done = docker("build", "--call=other", str(project.folder))
    assert done.code == 1
    assert "unsupported request frontend.other" in done.err


def test_a_context_takes_the_place_of_a_stage(
    project: Project, docker: Client, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "file").write_text("other\n")
    project.write(
        "FROM busybox AS files\nUSER $nobody\nRUN exit 1\nFROM busybox\nCOPY --from=files file /\n"
    )
    done = docker.build(project, "--build-context", f"files={other}", "-t", "replaced")
    assert "UndefinedVar" not in done.err
    assert project.run("replaced", "cat /file") == "other\n"


def test_a_bake_is_checked(project: Project, docker: Client) -> None:
    project.write("FROM busybox\nENV a b\n")
    project.file("docker-bake.hcl", 'target "default" {}\n')
    done = docker("buildx", "bake", "--check", cwd=project.folder)
    assert done.code == 1
    assert "WARNING: LegacyKeyValueFormat" in done.out


def test_checks_pull_nothing(project: Project, docker: Client, registry: Registry) -> None:
    name = f"{registry.host}/base:1"
    project.write("FROM busybox\nENV KNOWN=1\n")
    docker.build(project, "-t", name, "--push")
    assert docker("rmi", "-f", name).code == 0
    project.write(f"FROM {name}\nUSER $KNOWN$OTHER\n")
    done = docker("build", "--check", str(project.folder))
    assert "undefined variable '$OTHER'" in done.out, str(done)
    assert "KNOWN'" not in done.out
    _, images = project.engine.request("GET", "/images/json")
    assert name not in str(images)
