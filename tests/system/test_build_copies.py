"""What COPY and ADD of today's Dockerfiles can do: parents, modes, links, archives and repositories."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import tarfile
from typing import TYPE_CHECKING

import pytest

from support.projects import Project, post_build
from support.repositories import Repositories
from system.test_build_sources import Files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


pytestmark = pytest.mark.berth_only


def built(project: Project, **query: object) -> str:
    done = project.build(**query)
    assert not done.error, done.error
    return done.text


def test_parents_are_kept_from_a_pivot_on(project: Project) -> None:
    for name in ("a/b/one.txt", "a/b/two.md", "a/c/d/three.txt", "top.txt"):
        project.file(name, name)
    (project.folder / "a/b").chmod(0o750)
    os.symlink("one.txt", project.folder / "a/b/link.txt")
    project.write(
        "FROM busybox\n"
        "COPY --parents a/b/one.txt top.txt /each/\n"
        "COPY --parents a/./b/*.txt /pivot\n"
        "COPY --parents --exclude=**/three.txt **/*.txt /stars/\n"
        "COPY --parents a/./c /folder/\n"
    )
    built(project, t="parents")
    found = project.run("parents", "find /each /pivot /stars /folder ! -type d | sort").split()
    assert found == [
        *("/each/a/b/one.txt", "/each/top.txt", "/folder/c/d/three.txt"),
        *("/pivot/b/link.txt", "/pivot/b/one.txt"),
        *("/stars/a/b/link.txt", "/stars/a/b/one.txt", "/stars/top.txt"),
    ]
    script = "stat -c %a /each/a/b; readlink /pivot/b/link.txt; cat /each/top.txt"
    assert project.run("parents", script).split() == ["750", "one.txt", "top.txt"]
    assert built(project).count("Using cache") == 4
    project.write("FROM busybox\nCOPY --parents a/./b/one.txt /x/\n")
    built(project)
    project.write("FROM busybox\nCOPY --parents ./a/b/one.txt /x/\n")
    assert "Using cache" not in built(project)
    project.write("FROM busybox\nCOPY --parents absent/x /x/\n")
    assert "file not found in build context" in project.build().error


def test_parents_come_from_stages_too_and_lead_nowhere_else(project: Project) -> None:
    project.write(
        "FROM busybox AS other\nRUN mkdir -p /s/t; echo x > /s/t/f; ln -s / /s/root\n"
        "FROM busybox\nRUN mkdir /d; ln -s /tmp /d/s\n"
        "COPY --parents --from=other /s/./t/f /s/root /d/\n"
    )
    built(project, t="staged")
    script = "cat /d/t/f; readlink /d/s/root || ls -l /d; ls /tmp"
    assert project.run("staged", script).split() == ["x", "/", "root"]


def test_modes_have_symbols_and_variables(project: Project) -> None:
    project.file("s/run.sh", "x", 0o700)
    project.file("s/data", "x", 0o600)
    project.write(
        "FROM busybox\nARG MODE=go=rX\nCOPY --chmod=$MODE --chown=alice:staff s /s\n"
        "ADD --chmod=a-w s/data /plain\n"
    )
    built(project, t="modes")
    script = "stat -c '%a %U:%G' /s/run.sh /s/data /plain"
    assert project.run("modes", script).splitlines() == [
        *("755 alice:staff", "644 alice:staff", "400 root:root"),
    ]
    assert "invalid chmod parameter: 'rwx'" in project.build(buildargs={"MODE": "rwx"}).error


def test_archives_are_unpacked_when_it_is_said(project: Project) -> None:
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w") as archive:
        entry = tarfile.TarInfo("inner")
        entry.size = 2
        archive.addfile(entry, io.BytesIO(b"in"))
    packed = gzip.compress(body.getvalue(), mtime=0)
    project.file("a.tgz", packed)
    with contextlib.closing(Files()) as web:
        web.files["/a.tgz"] = packed
        project.write(
            "FROM busybox\nADD a.tgz /one/\nADD --unpack=false a.tgz /two/\n"
            f"ADD {web.url}/a.tgz /three/\nADD --unpack {web.url}/a.tgz /four/\n"
        )
        built(project, t="unpacked")
        assert built(project).count("Using cache") == 4
    found = project.run("unpacked", "cd /; ls one two three four").split()
    assert found == ["four:", "inner", "one:", "inner", "three:", "a.tgz", "two:", "a.tgz"]


@pytest.fixture
def git(tmp_path: Path) -> Iterator[Repositories]:
    with contextlib.closing(Repositories(tmp_path / "git")) as found:
        yield found


def test_repositories_are_added(project: Project, git: Repositories) -> None:
    first = git.commit(f="one", sub__g="deep", tag="v1")
    os.symlink("f", git.work / "link")
    (git.work / "f").chmod(0o755)
    git.commit(f="two")
    git.commit(f="three", branch="side")
    project.write(
        f"FROM busybox\nADD {git.url} /main\nADD {git.url}#v1:sub /sub\nADD {git.url}#side /side\n"
        f"ADD {git.url}#{first} /first\nADD --keep-git-dir=true {git.url}#v1 /kept\n"
    )
    built(project, t="cloned")
    script = "cat /main/f /main/link /sub/g /side/f /first/f; stat -c %a /main/f; ls -A /main /kept"
    assert project.run("cloned", script).split() == [
        *("twotwodeepthreeone755", "/kept:", ".git", "f", "sub", "/main:", "f", "link", "sub"),
    ]
    assert project.run("cloned", "cat /kept/.git/HEAD").strip() == first
    assert built(project).count("Using cache") == 5
    git.commit(f="four")
    assert built(project).count("Using cache") == 2
    for text, why in (
        (f"{git.url}#nope", "does not contain ref nope"),
        (f"{git.url}#v1:nope", "has no directory nope"),
        (f"--checksum=abc {git.url}#v1", "expected checksum to match abc"),
        ("git@example.invalid:r", "repositories are fetched by https, http and git"),
        (f"git://127.0.0.1:{git.port}/absent.git", "fetch git://127.0.0.1"),
    ):
        project.write(f"FROM busybox\nADD {text} /x\n")
        assert why in project.build().error
    project.write(f"FROM busybox\nADD --checksum={first} {git.url}#v1 /x\n")
    built(project)


def test_a_repository_is_a_context(project: Project, git: Repositories) -> None:
    git.commit(Dockerfile="FROM busybox\nCOPY f /f\n", f="top", sub__f="sub", tag="v1")
    git.commit(sub__Dockerfile="FROM busybox\nCOPY f /f\n")
    done = post_build(project.engine, b"", remote=git.url, t="remote")
    assert not done.error, done.error
    assert project.run("remote", "cat /f") == "top"
    done = post_build(project.engine, b"", remote=f"{git.url}#main:sub", t="remote")
    assert project.run("remote", "cat /f") == "sub"
    done = post_build(project.engine, b"", remote=f"{git.url}#absent")
    assert "unable to prepare context: repository" in done.error


def test_a_linked_layer_is_independent_of_what_is_below(project: Project) -> None:
    project.file("f", "linked")
    for name in ("one", "two"):
        base = f"FROM busybox\nRUN echo {name} > /name; mkdir /real; ln -s /real /d\n"
        project.write(f"{base}COPY --link --chown=7:8 f /d/e/\nCOPY f /d/plain\n")
        text = built(project, t=name)
        assert text.count("Using cache") == (name == "two")
    script = "cat /name /d/e/f; stat -c '%u %g' /d/e/f; ls -A /d /real; test ! -h /d"
    found = project.run("two", script).split()
    assert found == ["two", "linked7", "8", "/d:", "e", "plain", "/real:"]
    layers = [project.inspect(name)["RootFS"]["Layers"][2] for name in ("one", "two")]
    assert layers[0] == layers[1]
    assert built(project, t="two").count("Using cache") == 3
    project.write("FROM busybox\nCOPY --link absent /d/\n")
    assert "file not found in build context" in project.build().error
