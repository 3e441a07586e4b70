"""Builds from Dockerfiles: `docker build` (the classic one), `berth build`, docker-py, the API itself."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import tarfile
import threading
from typing import TYPE_CHECKING

import pytest

from support.engine import EngineProcess, UnixConnection
from support.projects import Project, clear_images, post_build, remains
from support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import docker

    from support.programs import Outcome


# Through the command lines


def test_a_project_is_built_and_runs(project: Project, cli: Callable[..., Outcome]) -> None:
    project.write(
        "FROM busybox\nWORKDIR /app\nCOPY . .\nRUN echo built > made\nCMD cat hello_txt sub/file made\n",
        hello__txt="hello\n",
    )
    project.file("hello_txt", "hello\n")
    project.file("sub/file", "below\n")
    done = project.cli(cli, "-t", "example:one", "-t", "example:two")
    assert done.code == 0, str(done)
    assert "Step 5/5 : CMD cat hello_txt sub/file made" in done.out
    assert "Successfully tagged example:one\nSuccessfully tagged example:two\n" in done.out
    assert project.engine.docker("run", "--rm", "example:two").out == "hello\nbelow\nbuilt\n"


def test_a_failing_command_ends_the_build_with_its_code(
    project: Project, cli: Callable[..., Outcome]
) -> None:
    project.write("FROM busybox\nRUN echo why; exit 3\nRUN never\n")
    done = project.cli(cli)
    assert done.code == 3
    assert "why\n" in done.out
    assert "The command '/bin/sh -c echo why; exit 3' returned a non-zero code: 3" in done.err
    assert "never" not in done.out


def test_links_are_links_within_one_source_only(project: Project) -> None:
    project.file("x/1", "first")
    project.file("y/1", "other")
    os.link(project.folder / "x/1", project.folder / "x/2")
    project.write("FROM busybox\nCOPY x/1 y/1 x/2 /each/\nCOPY x /all\n")
    project.build(t="linked")
    script = "cat /each/1 /each/2; stat -c %h /each/1 /each/2 /all/1"
    assert project.run("linked", script).split() == ["otherfirst1", "1", "2"]


def test_what_dockerignore_names_stays_behind(
    project: Project, cli: Callable[..., Outcome]
) -> None:
    project.write("FROM busybox\nCOPY . /got\n")
    for name in ("a.log", "keep.log", "deep/b.log", "deep/er/c.txt", "out/x", "out/stays", "d.txt"):
        project.file(name, name)
    project.file(
        ".dockerignore", "**/*.log\n!keep.log\nout\n!out/stays\n.dockerignore\nDockerfile\n"
    )
    assert project.cli(cli, "-t", "ignoring").code == 0
    found = project.run("ignoring", "cd /got; find . -type f | sort").split()
    assert found == ["./d.txt", "./deep/er/c.txt", "./keep.log", "./out/stays"]


def test_quiet_builds_print_the_image_alone(
    project: Project, cli: Callable[..., Outcome], tmp_path: Path
) -> None:
    project.write("FROM busybox\nENV A=b\n")
    path = tmp_path / "iid"
    done = project.cli(cli, "-q", "--iidfile", str(path))
    assert done.code == 0, str(done)
    assert done.out.startswith("sha256:")
    assert project.inspect(done.out.strip())["Id"] == done.out.strip() == path.read_text().strip()


def test_arguments_and_labels_come_from_the_command_line(
    project: Project, cli: Callable[..., Outcome]
) -> None:
    project.write(
        "ARG BASE=nothing\nFROM $BASE\nARG WHO=nobody\nRUN echo $WHO $http_proxy > /who\n"
    )
    flags = ("--build-arg", "WHO=me", "--build-arg", "BASE=busybox", "--label", "a=b c")
    proxy = ("--build-arg", "http_proxy=http://proxy.invalid")
    done = project.cli(cli, *flags, *proxy, "-t", "argued")
    assert done.code == 0, str(done)
    assert project.run("argued", "cat /who") == "me http://proxy.invalid\n"
    assert project.inspect("argued")["Config"]["Labels"] == {"a": "b c"}
    assert project.history("argued")[1] == "|1 WHO=me /bin/sh -c echo $WHO $http_proxy > /who"


def test_the_dockerfile_may_be_elsewhere(
    project: Project, cli: Callable[..., Outcome], tmp_path: Path
) -> None:
    project.file("f", "data")
    (tmp_path / "Other").write_text("FROM busybox\nCOPY f /f\n")
    done = project.cli(cli, "-f", str(tmp_path / "Other"), "-t", "elsewhere")
    assert done.code == 0, str(done)
    assert project.run("elsewhere", "cat /f") == "data"
    project.file("sub/My.dockerfile", "FROM busybox\nCOPY f /g\n")
    flags = ("-f", str(project.folder / "sub/My.dockerfile"))
    assert project.cli(cli, *flags, "-t", "elsewhere").code == 0
    assert project.run("elsewhere", "cat /g") == "data"
    done = cli(
        "build", "-t", "elsewhere", "-", stdin=b"FROM busybox\nRUN echo x > /h\n", env=classic()
    )
    assert done.code == 0, str(done)
    assert project.run("elsewhere", "cat /h") == "x\n"


def classic() -> dict[str, str]:
    return {**os.environ, "DOCKER_BUILDKIT": "0"}


def test_a_context_comes_through_a_pipe(project: Project, cli: Callable[..., Outcome]) -> None:
    project.write("FROM busybox\nCOPY f /f\n", f="data")
    done = cli("build", "-t", "piped", "-", stdin=gzip.compress(project.archive()), env=classic())
    assert done.code == 0, str(done)
    assert project.run("piped", "cat /f") == "data"


# What images become


def test_every_instruction_leaves_what_docker_leaves(project: Project) -> None:
    project.write(
        """# syntax=docker/dockerfile:1
# escape=\\
FROM busybox AS base
MAINTAINER somebody
LABEL one=1 "two words"='2 3'
ENV A=1 B="2 $A" C=\\$A
ENV OLD form $A
EXPOSE 80 90-91/udp $A
USER alice:staff
WORKDIR /var/$A
WORKDIR below
VOLUME ["/data", "/more"]
VOLUME /single /words
STOPSIGNAL SIG${UNSET:-QUIT}
HEALTHCHECK --interval=5s --timeout=1m30s --retries=3 CMD test -e /x
SHELL ["/bin/sh", "-ec"]
ONBUILD RUN echo triggered
CMD echo from shell
ENTRYPOINT ["echo", "$A"]
CMD ["exec", "form"]
"""
    )
    built = project.build(t="all:1")
    assert built.text.endswith("Successfully tagged all:1\n"), built
    document = project.inspect("all:1")
    config = document["Config"]
    assert isinstance(config, dict)
    wanted = {
        "Env": ["PATH=/bin", "A=1", "B=2 ", "C=$A", "OLD=form 1"],
        "Labels": {"one": "1", "two words": "2 3"},
        "ExposedPorts": {port: {} for port in ("80/tcp", "90/udp", "91/udp", "1/tcp")},
        "User": "alice:staff",
        "WorkingDir": "/var/1/below",
        "Volumes": {path: {} for path in ("/data", "/more", "/single", "/words")},
        "StopSignal": "SIGQUIT",
        "Healthcheck": {
            "Test": ["CMD-SHELL", "test -e /x"],
            "Interval": 5 * 10**9,
            "Timeout": 90 * 10**9,
            "Retries": 3,
        },
        "Shell": ["/bin/sh", "-ec"],
        "OnBuild": ["RUN echo triggered"],
        "Entrypoint": ["echo", "$A"],
        "Cmd": ["exec", "form"],
    }
    assert {key: config.get(key) for key in wanted} == wanted
    assert document["Author"] == "somebody"
    assert [text.replace("  ", " ") for text in project.history("all:1")][:-1] == [
        '/bin/sh -ec #(nop) CMD ["exec" "form"]',
        '/bin/sh -ec #(nop) ENTRYPOINT ["echo" "$A"]',
        '/bin/sh -ec #(nop) CMD ["/bin/sh" "-ec" "echo from shell"]',
        "/bin/sh -ec #(nop) ONBUILD RUN echo triggered",
        "/bin/sh -ec #(nop) SHELL [/bin/sh -ec]",
        '/bin/sh -c #(nop) HEALTHCHECK &{["CMD-SHELL" "test -e /x"] "5s" "1m30s" "0s" \'\\x03\'}',
        "/bin/sh -c #(nop) STOPSIGNAL SIGQUIT",
        "/bin/sh -c #(nop) VOLUME [/single /words]",
        "/bin/sh -c #(nop) VOLUME [/data /more]",
        "/bin/sh -c #(nop) WORKDIR /var/1/below",
        "/bin/sh -c #(nop) WORKDIR /var/1",
        "/bin/sh -c #(nop) USER alice:staff",
        "/bin/sh -c #(nop) EXPOSE 1 80 90-91/udp",
        "/bin/sh -c #(nop) ENV OLD=form 1",
        "/bin/sh -c #(nop) ENV A=1 B=2 C=$A",
        "/bin/sh -c #(nop) LABEL one=1 two words=2 3",
        "/bin/sh -c #(nop) MAINTAINER somebody",
    ]


def test_an_entrypoint_resets_the_command_of_the_base_only(project: Project) -> None:
    project.write(
        'FROM busybox AS a\nENTRYPOINT ["x"]\nFROM busybox\nCMD ["y"]\nENTRYPOINT ["x"]\n'
    )
    built = project.build()
    config = project.inspect(built.image)["Config"]
    assert (config["Entrypoint"], config["Cmd"]) == (["x"], ["y"])
    first = project.build(target="a")
    assert project.inspect(first.image)["Config"].get("Cmd") is None


def test_a_trigger_fires_in_the_next_build(project: Project) -> None:
    project.write('FROM busybox\nONBUILD COPY f /f\nONBUILD ENV A=b\nONBUILD ENTRYPOINT ["c"]\n')
    assert not project.build(t="trigger").error
    project.write("FROM trigger\nLABEL x=y\n", f="data")
    built = project.build(t="triggered")
    assert "# Executing 3 build triggers\n" in built.text, built
    config = project.inspect("triggered")["Config"]
    assert "A=b" in config["Env"]
    assert not config.get("OnBuild")
    assert config["Entrypoint"] == ["c"]
    assert (
        project.engine.docker("run", "--rm", "--entrypoint", "cat", "triggered", "/f").out == "data"
    )


def test_stages_copy_from_each_other_and_from_images(project: Project) -> None:
    project.write(
        """FROM busybox AS first
RUN mkdir /made && echo one > /made/1 && ln -s 1 /made/link
FROM busybox
RUN echo two > /2
FROM scratch
COPY --from=busybox /bin /bin
COPY --from=first /made /copied/
COPY --from=1 /2 /copied/2
COPY --from=first /made/link /copied/followed
"""
    )
    built = project.build(t="staged")
    assert not built.error, built
    script = "cat /copied/1 /copied/2 /copied/followed; readlink /copied/link; ls /"
    assert project.run("staged", script).split()[:4] == ["one", "two", "one", "1"]
    assert project.inspect("staged")["Config"]["Env"] == [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    ]


@pytest.mark.berth_only
def test_stages_that_nothing_needs_are_not_built(project: Project) -> None:
    project.write(
        "FROM busybox AS a\nRUN echo a\nFROM busybox AS unneeded\nRUN exit 1\nFROM a\nRUN echo end\n"
    )
    built = project.build()
    assert not built.error, built
    assert "Step 4/4 : RUN echo end" in built.text


def test_a_target_ends_the_build(project: Project) -> None:
    project.write("FROM busybox AS Early\nLABEL a=b\nFROM busybox\nRUN exit 1\n")
    assert not project.build(target="early").error
    assert "failed to reach build target nope in Dockerfile" in project.build(target="nope").error


def test_arguments_have_a_scope(project: Project) -> None:
    project.write(
        """ARG GLOBAL=g
ARG SHOWN=shown
FROM busybox AS one
ARG OWN=default
ENV HIDES=env
ARG HIDES=arg
ARG GLOBAL
RUN echo "$OWN/$HIDES/$GLOBAL/$SHOWN" > /x
"""
    )
    assert not project.build(t="scoped", buildargs={"OWN": "given", "HIDES": "hidden"}).error
    assert project.run("scoped", "cat /x") == "given/env/g/\n"


def test_unused_arguments_are_told(project: Project) -> None:
    project.write("FROM busybox\nARG A\n")
    built = project.build(buildargs={"A": "1", "B": "2", "HTTP_PROXY": "x"})
    assert "[Warning] One or more build-args [B] were not consumed\n" in built.text


# COPY and ADD


def test_copies_have_the_owners_modes_and_times_that_docker_gives(project: Project) -> None:
    project.write(
        """FROM busybox
COPY --chown=alice:staff tree /owned/
COPY tree /plain
COPY --chown=1234 file /number
COPY file /new/
COPY file /tmp
WORKDIR /work
COPY file ./renamed
COPY ["file", "two words", "/quoted/"]
COPY *.txt t?ee/inn* /wild/
"""
    )
    project.file("tree/inner/leaf", "leaf", 0o604)
    project.file("tree/exec", "exec", 0o755)
    (project.folder / "tree/inner").chmod(0o701)
    for name in ("file", "a.txt", "b.txt", "two words"):
        project.file(name, name)
    os.symlink("inner/leaf", project.folder / "tree/link")
    for path in project.folder.rglob("*"):
        os.utime(path, (10**9, 10**9), follow_symlinks=False)
    built = project.build(t="copied")
    assert not built.error, built
    script = (
        "find /owned /plain /number /new /tmp /work /quoted /wild -exec stat -c '%n %A %u:%g' {} +"
    )
    lines = project.run("copied", script).splitlines()
    found = dict(line.split(" ", 1) for line in lines if "two words" not in line)
    assert found == {
        "/owned": "drwxr-xr-x 1000:50",
        "/owned/exec": "-rwxr-xr-x 1000:50",
        "/owned/inner": "drwx-----x 1000:50",
        "/owned/inner/leaf": "-rw----r-- 1000:50",
        "/owned/link": "lrwxrwxrwx 1000:50",
        "/plain": "drwxr-xr-x 0:0",
        "/plain/exec": "-rwxr-xr-x 0:0",
        "/plain/inner": "drwx-----x 0:0",
        "/plain/inner/leaf": "-rw----r-- 0:0",
        "/plain/link": "lrwxrwxrwx 0:0",
        "/number": "-rw-r--r-- 1234:1234",
        "/new": "drwxr-xr-x 0:0",
        "/new/file": "-rw-r--r-- 0:0",
        "/tmp": "drwxrwxrwt 0:0",
        "/tmp/file": "-rw-r--r-- 0:0",
        "/work": "drwxr-xr-x 0:0",
        "/work/renamed": "-rw-r--r-- 0:0",
        "/quoted": "drwxr-xr-x 0:0",
        "/quoted/file": "-rw-r--r-- 0:0",
        "/wild": "drwxr-xr-x 0:0",
        "/wild/a.txt": "-rw-r--r-- 0:0",
        "/wild/b.txt": "-rw-r--r-- 0:0",
        "/wild/leaf": "-rw----r-- 0:0",
    }
    assert (
        project.run("copied", "stat -c %Y /owned/inner/leaf /plain/inner /tmp/file").split()
        == ["1000000000"] * 3
    )


def test_a_copy_replaces_what_is_there(project: Project) -> None:
    project.write(
        """FROM busybox
RUN mkdir -p /d/sub /d/dir && echo old > /d/file && echo kept > /d/sub/kept && ln -s /tmp /d/tolink \\
    && ln -s real /link && chown -R alice /d
COPY new /d
COPY one /link
""",
        one="one",
    )
    project.file("new/file", "new")
    project.file("new/sub/added", "added")
    project.file("new/tolink/inside", "inside")
    built = project.build(t="replaced")
    assert not built.error, built
    script = (
        "cat /d/file /d/sub/kept /d/sub/added /d/tolink/inside /real; stat -c %F /d/tolink; ls /tmp"
    )
    assert project.run("replaced", script) == "newkept\naddedinsideonedirectory\n"
    assert project.run("replaced", "stat -c %u:%F /link") == "0:symbolic link\n"


def test_archives_are_extracted_by_add_alone(project: Project) -> None:
    project.write(
        "FROM busybox\nADD a.tgz b.tar.xz /added/\nADD fake.tgz /fake/\nCOPY a.tgz /copied/\n"
    )
    for name, mode in (("a.tgz", "w:gz"), ("b.tar.xz", "w:xz")):
        body = io.BytesIO()
        with tarfile.open(fileobj=body, mode=mode) as archive:
            entry = tarfile.TarInfo(f"in/{name}.file")
            entry.size, entry.uid, entry.gid = 4, 1000, 50
            archive.addfile(entry, io.BytesIO(b"data"))
        project.file(name, body.getvalue())
    project.file("fake.tgz", "not an archive")
    built = project.build(t="added")
    assert not built.error, built
    script = "cd /; find added fake copied -type f -exec stat -c '%n %u:%g' {} + | sort"
    assert project.run("added", script).splitlines() == [
        "added/in/a.tgz.file 1000:50",
        "added/in/b.tar.xz.file 1000:50",
        "copied/a.tgz 0:0",
        "fake/fake.tgz 0:0",
    ]


@pytest.mark.berth_only
def test_modes_documents_and_exclusions_are_as_in_buildkit(project: Project) -> None:
    project.write(
        """FROM busybox
ARG WHO=you
COPY --chmod=0711 tree /tree
COPY --exclude=*/*.md --exclude=tree/skip tree /some
COPY <<hello.txt <<'plain.txt' /docs/
hello $WHO
hello.txt
as $WHO is
plain.txt
RUN <<EOF
echo one > /script
echo $WHO >> /script
EOF
RUN <<program
#!/bin/cat
text of the program
program
RUN cat <<A <<B > /several; echo end >> /several
first
A
second
B
"""
    )
    for name in ("file", "x.md", "skip/deep"):
        project.file(f"tree/{name}", name)
    built = project.build(t="kit")
    assert not built.error, built
    assert "text of the program" in built.text
    assert project.run("kit", "stat -c %a /tree /tree/skip /tree/file").split() == [
        "755",
        "711",
        "711",
    ]
    assert project.run("kit", "cd /some; find . -type f").split() == ["./file"]
    assert project.run("kit", "cat /docs/hello.txt /docs/plain.txt") == "hello you\nas $WHO is\n"
    assert project.run("kit", "cat /script /several; ls /dev/pipes 2>&1 | wc -l") == (
        "one\nyou\nsecond\nend\n1\n"
    )


@pytest.mark.parametrize(
    ("dockerfile", "text"),
    [
        (
            "COPY nope /x",
            "COPY failed: file not found in build context or excluded by .dockerignore",
        ),
        ("COPY nope* /x", "COPY failed: no source files were specified"),
        ("COPY ../x /x", "COPY failed: forbidden path outside the build context: ../x ()"),
        (
            "COPY f g /x",
            "When using COPY with more than one source file, the destination must be a",
        ),
        ("COPY --chown=nobody:here f /x", "no such user: nobody"),
        ("COPY --from=127.0.0.1:9/x f /x", "invalid from flag value 127.0.0.1:9/x: "),
        ("COPY --from=7 f /x", "invalid from flag value 7"),
        ("COPY f /bin/sh/below", "not a directory"),
        ("USER nobody\nRUN true", "unable to find user nobody: no matching entries in passwd file"),
        ("EXPOSE nothing", "invalid containerPort: nothing"),
        pytest.param(
            "EXPOSE " + " ".join(f"1-{65535 - n}" for n in range(1000)),
            "an instruction becomes more than 1 MiB",
            marks=pytest.mark.berth_only,
        ),
        pytest.param(
            "ENV A=0123456789\n" + "ENV A=$A$A\n" * 40,
            "an instruction becomes more than 1 MiB",
            marks=pytest.mark.berth_only,
        ),
        pytest.param(
            f"ENV L={'x' * 900_000}\n" + "".join(f"LABEL l{n}=$L\n" for n in range(9)),
            "the image's configuration would have more than 8 MiB",
            marks=pytest.mark.berth_only,
        ),
    ],
)
def test_what_cannot_be_is_said_in_the_stream(project: Project, dockerfile: str, text: str) -> None:
    project.write(f"FROM busybox\n{dockerfile}\n", f="f", g="g")
    built = project.build()
    assert built.status == 200
    assert text.lower() in built.error.lower(), built
    detail = built.messages[-1]["errorDetail"]
    assert isinstance(detail, dict)
    assert detail["message"] == built.error
    assert "code" not in detail


@pytest.mark.parametrize(
    ("dockerfile", "status", "text"),
    [
        ("FROM busybox\nNOPE x", 400, "dockerfile parse error line 2: unknown instruction: NOPE"),
        ("", 400, "the Dockerfile (Dockerfile) cannot be empty"),
        ("RUN x", 400, "no build stage in current context"),
        ("FROM a b", 400, "FROM requires either one or three arguments"),
        (
            "FROM busybox\nCOPY a",
            400,
            "COPY requires at least two arguments, but only one was provided",
        ),
        ("FROM busybox\nENV", 400, "ENV requires at least one argument"),
        ("FROM busybox\nENV a", 400, "ENV must have two arguments"),
        ("FROM busybox\nRUN --nope x", 400, "nope"),
        ("FROM busybox\nONBUILD FROM x", 400, "FROM isn't allowed as an ONBUILD trigger"),
        ("FROM busybox\nSHELL x", 400, "SHELL requires the arguments to be in JSON form"),
        ("FROM busybox AS 1x\n", 400, 'invalid name for build stage: "1x"'),
        ("FROM busybox\nHEALTHCHECK CMD", 400, "Missing command after HEALTHCHECK CMD"),
    ],
)
def test_what_is_no_dockerfile_is_refused(
    project: Project, dockerfile: str, status: int, text: str
) -> None:
    project.write(dockerfile)
    built = project.build()
    assert (built.status, text in built.error) == (status, True), built


def test_requests_that_make_no_sense_are_refused(project: Project) -> None:
    project.write("FROM busybox\n")
    for query, text in (
        ({"t": "UPPER"}, "must be lowercase"),
        ({"dockerfile": "nope"}, "nope"),
        ({"buildargs": "nojson{"}, "error reading build args"),
        ({"squash": "1"}, "squash is only supported with experimental mode"),
    ):
        built = project.build(**query)
        assert built.status in (400, 500), (query, built)
        assert text in built.error, (query, built)
    body = post_build(project.engine, b"no archive at all" * 100)
    assert body.status >= 400
    assert not remains(project.engine)


def test_an_image_that_is_not_there_is_an_error(project: Project) -> None:
    project.write("FROM 127.0.0.1:9/nope:1\n")
    assert "127.0.0.1:9" in project.build().error


# The cache


def test_what_has_not_changed_is_not_done_again(project: Project) -> None:
    project.write("FROM busybox\nARG A\nENV B=c\nCOPY d /d\nRUN echo $A > /a\nLABEL e=f\n")
    project.file("d/file", "one")
    first = project.build()
    again = project.build()
    assert (again.cached, again.image) == (5, first.image)
    os.utime(project.folder / "d/file", (1, 1))
    assert project.build().image == first.image
    project.file("d/file", "two")
    changed = project.build()
    assert (changed.cached, changed.image == first.image) == (2, False)
    assert project.build(buildargs={"A": "x"}).cached == 3
    assert project.build(nocache="1").cached == 0
    (project.folder / "d/file").chmod(0o600)
    assert project.build().cached == 2
    project.file("unrelated", "x")
    assert project.build().cached == 5


def test_what_stages_give_is_part_of_the_cache(project: Project) -> None:
    project.write(
        "FROM busybox AS a\nCOPY f /f\nFROM busybox\nCOPY --from=a /f /g\nRUN cat /g\n", f="1"
    )
    project.build()
    assert project.build().cached == 3
    project.file("f", "2")
    assert project.build().cached == 0


@pytest.mark.berth_only
def test_what_a_file_may_do_is_part_of_the_cache(project: Project) -> None:
    project.write("FROM busybox\nCOPY able /able\n")
    assert not project.build(able(project, b"\0\x20")).error
    assert project.build(able(project, b"\0\x20")).cached == 1
    assert project.build(able(project, b"\0\x10")).cached == 0


def able(project: Project, capabilities: bytes) -> bytes:
    """Return the context with a file that has capabilities."""
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.add(project.folder / "Dockerfile", "Dockerfile")
        member = tarfile.TarInfo("able")
        value = b"\1\0\0\2" + capabilities.ljust(16, b"\0")
        member.pax_headers = {"SCHILY.xattr.security.capability": value.decode()}
        archive.addfile(member)
    return body.getvalue()


@pytest.mark.berth_only
def test_copies_of_files_with_holes_have_them_too(project: Project) -> None:
    project.write(
        "FROM busybox\nRUN truncate -s 64M /sparse && echo end >> /sparse\n"
        "FROM busybox\nCOPY --from=0 /sparse /copied\nRUN du -k /copied; tail -c 4 /copied\n"
    )
    built = project.build()
    assert not built.error, built
    size = next(line for line in built.text.splitlines() if line.endswith("\t/copied"))
    assert int(size.split()[0]) < 1024
    assert "\nend\n" in built.text


def test_an_image_from_elsewhere_is_a_cache(project: Project) -> None:
    project.write("FROM busybox\nENV A=1\nCOPY f /f\nRUN echo x > /x\nRUN echo y > /y\n", f="data")
    project.build(t="source:1")
    engine = project.engine
    _, _, archive = engine.exchange("GET", "/images/source:1/get")
    clear_images(engine)
    assert engine.docker("load", stdin=archive).code == 0
    assert project.build(nocache="0").cached == 0
    clear_images(engine)
    assert engine.docker("load", stdin=archive).code == 0
    again = project.build(cachefrom=["absent:1", "source:1"], t="again")
    assert again.cached == 4, again
    assert project.run("again", "cat /f /x /y") == "datax\ny\n"
    project.write("FROM busybox\nENV A=1\nCOPY f /f\nRUN echo z > /z\n")
    clear_images(engine)
    assert engine.docker("load", stdin=archive).code == 0
    assert project.build(cachefrom=["source:1"]).cached == 2
    assert project.build(cachefrom=["absent:1"]).cached == 0


@pytest.mark.berth_only
def test_what_is_stored_is_what_its_layers_say(project: Project) -> None:
    project.write(
        """FROM busybox
RUN mkdir /d && echo a > /d/a && ln /d/a /d/linked && chmod 4711 /d/a && mkdir -p /etc/empty /dev/more
RUN rm -r /d && mkdir /d && touch /d/new && rm /etc/group && chmod 700 /etc
COPY tree /d
COPY tree/f /home
WORKDIR /new/work
VOLUME /d
RUN echo x > /d/lost; touch /kept
"""
    )
    project.file("tree/f", "f")
    assert not project.build(t="whole").error
    status, found = project.engine.request("POST", "/system/check")
    assert status == 200
    assert isinstance(found, dict)
    assert not found["Problems"], found
    script = (
        "ls /d | xargs; ls -d /etc/empty /dev/more /etc/group 2>/dev/null | xargs; stat -c %a /etc"
    )
    assert project.run("whole", script) == "f new\n/etc/empty\n700\n"


def test_a_root_file_system_keeps_its_mount_points(project: Project) -> None:
    project.write("FROM scratch\nCOPY root/ /\nCOPY --from=busybox /bin /bin\n")
    for name in ("proc", "sys", "dev", "etc"):
        (project.folder / "root" / name).mkdir(parents=True)
    project.file("root/etc/hosts", "")
    built = project.build(t="rooted")
    assert not built.error, built
    _, _, archive = project.engine.exchange("GET", "/images/rooted/get")
    names: set[str] = set()
    with tarfile.open(fileobj=io.BytesIO(archive)) as whole:
        for member in whole.getmembers():
            data = whole.extractfile(member) if member.isfile() else None
            if data is not None and member.size > 1024:
                with contextlib.suppress(tarfile.TarError), tarfile.open(fileobj=data) as layer:
                    names |= {name.strip("./") for name in layer.getnames()}
    assert {"proc", "sys", "dev", "etc/hosts"} <= names


@pytest.mark.berth_only
def test_builds_need_no_overlayfs(busybox_tar: bytes, tmp_path: Path) -> None:
    engine = EngineProcess(flags=("--storage-driver", "vfs"))
    try:
        engine.start()
        done = engine.docker("import", "-", "busybox:latest", stdin=busybox_tar)
        assert done.code == 0, str(done)
        project = Project(tmp_path, engine)
        project.write(
            "FROM busybox AS a\nRUN echo x > /x; rm /etc/group\nFROM a\nCOPY f /new/f\nCOPY --from=a /x /y\n"
            "WORKDIR /w\nRUN cat /x /y /new/f > all\n",
            f="data\n",
        )
        built = project.build(t="copied")
        assert not built.error, built
        assert project.build(t="copied").image == built.image
        assert project.run("copied", "cat /w/all; ls /etc/group 2>&1 | wc -l") == "x\nx\ndata\n1\n"
        _, found = engine.request("POST", "/system/check")
        assert isinstance(found, dict)
        assert not found["Problems"], found
        assert not remains(engine)
    finally:
        engine.close()


def test_steps_are_hidden_and_go_with_their_image(project: Project) -> None:
    project.write("FROM busybox\nENV A=1\nENV B=2\nRUN echo x > /x\n")
    built = project.build(t="mine")
    engine = project.engine

    def images(query: str) -> set[str]:
        _, found = engine.request("GET", f"/images/json{query}")
        assert isinstance(found, list)
        return {image["Id"] for image in found}

    shown, everything = images(""), images("?all=1")
    assert len(everything - shown) == 2
    assert not images('?filters={"dangling":["true"]}')
    step = next(iter(everything - shown))
    status, answer = engine.request("DELETE", f"/images/{step}")
    assert (status, "image has dependent child images" in str(answer)) == (409, True), answer
    status, deleted = engine.request("DELETE", "/images/mine")
    assert status == 200
    assert isinstance(deleted, list)
    gone = {item["Deleted"] for item in deleted if "Deleted" in item}
    assert built.image in gone
    assert everything - shown <= gone
    assert images("?all=1") == shown - {built.image}


def test_pruning_removes_dangling_images_with_their_steps(project: Project) -> None:
    project.write("FROM busybox\nENV A=1\nRUN echo x > /x\n")
    project.build(t="kept")
    project.write("FROM busybox\nENV A=2\nRUN echo y > /y\n")
    project.build()
    _, before = project.engine.request("GET", "/images/json?all=1")
    status, pruned = project.engine.request("POST", "/images/prune")
    assert status == 200
    assert isinstance(pruned, dict)
    assert isinstance(before, list)
    assert len([item for item in pruned["ImagesDeleted"] if "Deleted" in item]) >= 2
    _, after = project.engine.request("GET", "/images/json?all=1")
    assert isinstance(after, list)
    assert len(before) - len(after) == 2
    assert project.run("kept", "cat /x") == "x\n"


@pytest.mark.berth_only
def test_builder_prune_removes_what_no_name_needs(
    project: Project, cli: Callable[..., Outcome]
) -> None:
    project.write("FROM busybox\nENV A=1\nRUN head -c 100000 /dev/zero > /x\n")
    project.build()
    project.write("FROM busybox\nENV A=2\n")
    project.build(t="named")
    done = cli("builder", "prune", "-f")
    assert done.code == 0, str(done)
    assert "100kB" in done.out
    _, left = project.engine.request("GET", "/images/json?all=1")
    assert isinstance(left, list)
    assert {name for image in left for name in image["RepoTags"]} >= {"named:latest"}
    assert all(image["RepoTags"] for image in left)


# Containers of RUN


def test_containers_of_steps_are_limited_and_removed(project: Project) -> None:
    project.write("FROM busybox\nRUN cat /etc/hosts && df -k /dev/shm && nproc && sleep 1\n")
    built = project.build(
        memory=str(64 << 20), extrahosts="db:10.1.2.3", shmsize=str(8 << 20), networkmode="none"
    )
    assert not built.error, built
    assert "10.1.2.3\tdb" in built.text
    assert "8192" in built.text
    assert "Removing intermediate container" in built.text
    assert containers(project.engine) == []


def containers(engine: EngineProcess) -> list[dict[str, object]]:
    _, found = engine.request("GET", "/containers/json?all=1")
    assert isinstance(found, list)
    return found


def test_containers_stay_when_that_is_wanted_and_after_a_failure(project: Project) -> None:
    project.write("FROM busybox\nRUN echo x > /x\n")
    project.build(rm="0")
    assert [one["State"] for one in containers(project.engine)].count("exited") >= 1
    project.engine.remove_containers()
    project.write("FROM busybox\nRUN exit 1\n")
    project.build()
    assert len(containers(project.engine)) == 1
    project.engine.remove_containers()
    project.build(forcerm="1")
    assert containers(project.engine) == []


def test_output_is_told_as_it_comes_with_stderr_in_red(project: Project) -> None:
    project.write("FROM busybox\nRUN echo out; echo err >&2; printf 'no end'\n")
    built = project.build()
    streams = [str(message.get("stream")) for message in built.messages]
    assert "out\n" in built.text
    assert "\x1b[91merr\n\x1b[0m" in streams
    assert "no end" in built.text


def test_users_shells_and_directories_count_in_run(project: Project) -> None:
    project.write(
        'FROM busybox\nWORKDIR /home/alice\nUSER alice\nSHELL ["/bin/sh", "-exc"]\nENV V=1\n'
        'RUN id -un; pwd\nRUN : $V $HOME\nRUN ["/bin/echo", "$V"]\n'
    )
    built = project.build()
    assert not built.error, built
    assert "alice\n" in built.text
    assert "/home/alice\n" in built.text
    # A step of its own: what comes by two pipes may come in any order, pieces of a line, too.
    assert "+ : 1 /home/alice\n" in built.text.replace("\x1b[91m", "").replace("\x1b[0m", "")
    assert "$V\n" in built.text


def test_volumes_of_the_image_do_not_keep_what_steps_write(project: Project) -> None:
    project.write(
        "FROM busybox\nRUN mkdir /v && echo 1 > /v/kept\nVOLUME /v\nRUN echo 2 > /v/lost\n"
    )
    assert not project.build(t="volumed").error
    assert project.run("volumed", "ls /v") == "kept\n"
    _, found = project.engine.request("GET", "/volumes")
    assert isinstance(found, dict)
    assert not found["Volumes"]


@pytest.mark.berth_only
def test_a_build_of_this_machine_stays_one(project: Project) -> None:
    project.write("FROM host\nRUN echo built > /built-here\nCOPY f /copied-here\n", f="f")
    built = project.build(t="ours")
    assert not built.error, built
    done = project.engine.docker("run", "--rm", "ours", "cat", "/built-here", "/copied-here")
    assert done.out == "built\nf"
    assert not os.path.exists("/built-here")


@pytest.mark.berth_only
@pytest.mark.parametrize(
    "dockerfile",
    [
        "FROM busybox\nCOPY --from=host /etc/hostname /taken",
        "ARG WHERE=host\nFROM busybox\nCOPY --from=$WHERE:latest /etc/hostname /taken",
        "FROM host AS a\nFROM scratch\nCOPY --from=a /etc/hostname /taken",
        "FROM host AS a\nENV A=b\nFROM a AS b\nFROM scratch\nCOPY --from=1 /etc/hostname /taken",
    ],
)
def test_nothing_is_copied_out_of_this_machine(project: Project, dockerfile: str) -> None:
    built = project.write(dockerfile).build()
    assert "shows this machine's files" in built.error, built


@pytest.mark.berth_only
def test_a_base_gets_nothing_of_this_machine_by_its_triggers(project: Project) -> None:
    for trigger, said in (
        ("COPY --from=host /etc/hostname /taken", "shows this machine's files"),
        ("RUN --network=host true", "RUN failed: --network=host is for builds whose client asks"),
    ):
        assert not project.write(f"FROM busybox\nONBUILD {trigger}\n").build(t="hostile").error
        built = project.write("FROM hostile\n").build()
        assert said in built.error, built


@pytest.mark.berth_only
def test_what_is_made_of_this_machine_never_leaves_it(project: Project) -> None:
    project.write("FROM host AS a\nRUN touch /made\nFROM a\nENV A=b\n")
    assert not project.build(t="127.0.0.1:9/ours").error
    for method, path in (
        ("GET", "/images/127.0.0.1:9/ours/get"),
        ("POST", "/images/127.0.0.1:9/ours/push"),
    ):
        status, document = project.engine.request(method, path)
        assert "never leaves this machine" in str(document), (status, document)


@pytest.mark.berth_only
def test_a_command_has_the_network_of_this_machine_if_its_client_says_so(project: Project) -> None:
    project.write("FROM busybox\nRUN --network=host readlink /proc/self/ns/net\n")
    for mode in ("", "none", "bridge"):
        built = project.build(networkmode=mode)
        assert "--network=host is for builds whose client asks" in built.error, built
    built = project.build(networkmode="host")
    assert os.readlink("/proc/self/ns/net") in built.text, built
    project.write("FROM busybox\nRUN --network=none ls /sys/class/net | wc -l\n")
    assert "\n1\n" in project.build(networkmode="host").text


# Ends before the end


def test_a_client_that_hangs_up_ends_its_build(project: Project) -> None:
    project.write("FROM busybox\nENV A=b\nRUN sleep 1000\n")
    connection = UnixConnection(project.engine.socket)
    connection.request("POST", "/build", project.archive(), {"Content-Type": "application/x-tar"})
    wait_for(lambda: containers(project.engine), "the step runs")
    connection.sock.close()
    connection.close()
    wait_for(lambda: not containers(project.engine), "the step is gone")
    wait_for(lambda: not remains(project.engine), "its files are gone")
    assert project.write("FROM busybox\nENV A=b\n").build().cached == 1


@pytest.mark.berth_only
def test_a_context_that_is_cut_off_leaves_nothing(project: Project) -> None:
    project.write("FROM busybox\nCOPY . /x\n")
    project.file("large", bytes(1 << 20))
    body = project.archive()
    connection = UnixConnection(project.engine.socket)
    connection.putrequest("POST", "/build")
    connection.putheader("Content-Type", "application/x-tar")
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body[: len(body) // 2])
    wait_for(lambda: remains(project.engine), "the context is being received")
    connection.close()
    wait_for(lambda: not remains(project.engine), "what had come is gone")
    assert project.build(body[: len(body) // 2]).status >= 400
    assert not remains(project.engine)


@pytest.mark.berth_only
def test_a_build_can_be_cancelled_by_its_id(project: Project) -> None:
    project.write("FROM busybox\nRUN sleep 1000\n")
    results = []
    thread = threading.Thread(target=lambda: results.append(project.build(buildid="mine")))
    thread.start()
    wait_for(lambda: containers(project.engine), "the step runs")
    assert project.engine.request("POST", "/build/cancel")[0] == 400
    assert project.engine.request("POST", "/build/cancel?id=mine")[0] == 200
    thread.join()
    assert results[0].error == "context canceled"
    assert containers(project.engine) == []
    assert not remains(project.engine)


@pytest.mark.berth_only
def test_nothing_is_left_of_a_build_when_berthd_is_killed(
    fresh_engine: EngineProcess, tmp_path: Path
) -> None:
    project = Project(tmp_path, fresh_engine)
    project.write("FROM busybox\nCOPY . /all\nRUN sleep 1000\n", f="data")
    thread = threading.Thread(target=quietly, args=(project,))
    thread.start()
    wait_for(lambda: running(fresh_engine), "the step runs")
    assert remains(fresh_engine)
    fresh_engine.restart()
    thread.join()
    assert containers(fresh_engine) == []
    assert not remains(fresh_engine)
    snapshots = fresh_engine.data_root / "snapshots"
    wait_for(
        lambda: not [p for p in snapshots.iterdir() if p.name.startswith(("partial", "removed"))],
        "what was half made is deleted",
    )
    built = project.write("FROM busybox\nCOPY . /all\nRUN true\n").build()
    assert not built.error, built


def quietly(project: Project) -> None:
    with contextlib.suppress(Exception):
        project.build()


def running(engine: EngineProcess) -> bool:
    return any(one["State"] == "running" for one in containers(engine))


# Escapes


def test_links_in_the_context_lead_nowhere_outside(project: Project, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    os.symlink(tmp_path / "secret", project.folder / "absolute")
    os.symlink("../secret", project.folder / "relative")
    os.symlink("/etc", project.folder / "folder")
    for source in ("absolute", "relative", "folder/shadow", "folder"):
        project.write(f"FROM busybox\nCOPY {source} /got\n")
        built = project.build()
        assert "secret" not in built.text
        assert built.error, (source, built)


def test_links_in_the_image_lead_nowhere_outside(project: Project, tmp_path: Path) -> None:
    target = tmp_path / "outside"
    target.mkdir()
    project.write(
        f"FROM busybox\nRUN ln -s {target} /out && ln -s ../../../../../..{target} /up"
        f" && mkdir -p {target}\nCOPY f /out/file\nCOPY f /up/second\nADD a.tar /out/\n",
        f="data",
    )
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w") as archive:
        entry = tarfile.TarInfo("third")
        entry.size = 1
        archive.addfile(entry, io.BytesIO(b"3"))
    project.file("a.tar", body.getvalue())
    built = project.build(t="linked")
    assert not built.error, built
    assert list(target.iterdir()) == []
    assert project.run("linked", f"ls {target}").split() == ["file", "second", "third"]


@pytest.mark.parametrize("name", ["../escaped", "/../escaped", "a/../../escaped"])
def test_an_archive_cannot_leave_its_directory(project: Project, tmp_path: Path, name: str) -> None:
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w") as archive:
        for entry, data in (
            (tarfile.TarInfo("Dockerfile"), b"FROM busybox\nRUN true\n"),
            (tarfile.TarInfo(name), b"escaped"),
        ):
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    project.build(body.getvalue())
    project.write("FROM busybox\nADD a.tar /deep/er/\n")
    project.file("a.tar", body.getvalue())
    project.build()
    for folder in (project.engine.data_root, project.engine.data_root / "builds", tmp_path):
        assert not (folder / "escaped").exists()


def test_a_link_in_an_archive_leads_nowhere_outside(project: Project, tmp_path: Path) -> None:
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w") as archive:
        link = tarfile.TarInfo("way")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
        archive.addfile(link)
        entry = tarfile.TarInfo("way/escaped")
        entry.size = 1
        archive.addfile(entry, io.BytesIO(b"x"))
        entry = tarfile.TarInfo("Dockerfile")
        data = b"FROM busybox\nCOPY . /x\n"
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))
    project.build(body.getvalue())
    assert not (tmp_path / "escaped").exists()


# docker-py


def test_docker_py_builds(project: Project, docker_py: docker.DockerClient, tmp_path: Path) -> None:
    project.write("FROM busybox AS a\nARG X\nRUN echo $X > /x\nCMD cat /x\n")
    image, log = docker_py.images.build(
        path=str(project.folder),
        tag="py:1",
        buildargs={"X": "y"},
        labels={"l": "m"},
        rm=True,
        container_limits={"memory": 64 << 20},
    )
    assert image.tags == ["py:1"]
    assert image.labels == {"l": "m"}
    assert any("Successfully built" in line.get("stream", "") for line in log)
    assert docker_py.containers.run("py:1", remove=True) == b"y\n"
    import docker.errors

    project.write("FROM busybox\nRUN exit 7\n")
    with pytest.raises(docker.errors.BuildError, match="non-zero code: 7"):
        docker_py.images.build(path=str(project.folder))
    with pytest.raises(docker.errors.APIError, match="unknown instruction"):
        docker_py.images.build(fileobj=io.BytesIO(b"FROM busybox\nNOPE\n"))


@pytest.mark.berth_only
def test_clients_are_told_which_builder_there_is(engine: EngineProcess) -> None:
    _, headers, _ = engine.exchange("GET", "/_ping")
    assert headers["Builder-Version"] == "2"


def test_a_prune_keeps_as_much_as_it_is_told(project: Project) -> None:
    for name in ("older", "newer"):
        project.write(f"FROM busybox\nRUN head -c 100000 /dev/zero >/{name}\n")
        project.build()
    _, images = project.engine.request("GET", "/images/json?all=1")
    assert isinstance(images, list)
    ages = {image["Created"]: image["Id"] for image in images if not image["RepoTags"]}
    kept = project.engine.berth("builder", "prune", "-f", "--keep-storage", "150k")
    assert kept.code == 0, str(kept)
    assert "Total reclaimed space: 100kB" in kept.out
    _, images = project.engine.request("GET", "/images/json?all=1")
    assert isinstance(images, list)
    left = [image["Id"] for image in images if not image["RepoTags"]]
    assert len(left) == 1
    assert len(ages) < 2 or left == [ages[max(ages)]]  # both in one second
    assert project.engine.berth("builder", "prune", "-f").code == 0
    _, images = project.engine.request("GET", "/images/json?all=1")
    assert isinstance(images, list)
    assert all(image["RepoTags"] for image in images)


def test_a_prune_makes_room_and_takes_what_it_is_told(project: Project) -> None:
    def prune(*flags: str) -> str:
        done = project.engine.berth("builder", "prune", "-f", *flags)
        assert done.code == 0, str(done)
        return done.lines[-1]

    nothing, all_of_it = "Total reclaimed space: 0B", "Total reclaimed space: 100kB"
    project.write("FROM busybox\nRUN head -c 100000 /dev/zero >/x\nENV A=1\n")
    project.build(t="named")
    assert prune() == nothing
    assert prune("--all", "--max-used-space", "1g") == nothing
    assert prune("--all", "--min-free-space", "1") == nothing
    assert prune("--all", "--filter", "until=1h") == nothing
    assert prune("--all", "--filter", "id=nobody") == nothing
    assert prune("--all", "--min-free-space", "1000t", "--reserved-space", "1g") == nothing
    assert prune("--all", "--min-free-space", "1000t") == all_of_it
    assert project.run("named", "wc -c </x") == "100000\n"
    status, answer = project.engine.request("POST", '/build/prune?filters={"bogus":["x"]}')
    assert status == 400
    assert answer == {"message": "invalid filter 'bogus'", "code": "invalid-argument"}


def test_a_context_is_compressed_when_asked(project: Project) -> None:
    project.write("FROM busybox\nCOPY big /big\n", big="x" * 100_000)
    done = project.engine.berth("build", "--compress", "-t", "packed", str(project.folder))
    assert done.code == 0, str(done)
    assert project.run("packed", "wc -c </big").strip() == "100000"


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--squash", "squash is only supported with experimental mode"),
        ("--isolation=process", 'Unsupported isolation: "process"'),
    ],
)
def test_what_builds_cannot_do_is_refused(project: Project, flag: str, words: str) -> None:
    project.write("FROM busybox\n")
    done = project.engine.berth("build", flag, str(project.folder))
    assert done.code == 1
    assert words in done.err
