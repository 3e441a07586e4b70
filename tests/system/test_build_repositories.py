"""Repositories that builds name, fetched with what the client lends: shown to whom, and kept nowhere."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import socket
import time
from typing import TYPE_CHECKING

import pytest

from berth.builds.layers import MAX_FETCHES
from support.engine import UnixConnection
from support.projects import Project, everything, remains
from support.repositories import Repositories, Web, Work, basic
from support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.berth_only


@pytest.fixture
def lent(lent: tuple[Project, Path]) -> tuple[Project, Path]:
    """A project whose client lends secrets, and the directory of those."""
    project, offers = lent
    return project, offers / "secrets"


@pytest.fixture
def git(tmp_path: Path) -> Iterator[Repositories]:
    with contextlib.closing(Repositories(tmp_path)) as found:
        yield found


def test_secrets_are_shown_to_their_servers_and_kept_nowhere(
    lent: tuple[Project, Path], git: Repositories, tmp_path: Path
) -> None:
    project, offers = lent
    began = time.time()
    values = {name: secrets.token_hex(12) for name in ("own", "any", "key", "url")}
    (offers / "GIT_AUTH_TOKEN.127.0.0.1").write_text(values["own"])
    (offers / "GIT_AUTH_TOKEN").write_text(values["any"])
    (offers / "key").write_text(values["key"])
    git.commit(f="of a repository")
    with contextlib.closing(Web(tmp_path / "bare")) as web:
        web.wanted = basic(values["own"])
        project.write(
            f"FROM busybox\nADD --keep-git-dir=true {web.url}/r.git /r\n"
            "RUN --mount=type=secret,id=key --mount=type=secret,id=key,env=KEY"
            ' test "$KEY" = "$(cat /run/secrets/key)"\n'
        )
        done = project.build(t="private")
        assert not done.error, done.error
        assert set(web.seen) == {basic(values["own"])}
        assert project.run("private", "cat /r/f") == "of a repository"
        (offers / "GIT_AUTH_TOKEN.127.0.0.1").unlink()
        url = f"http://x:{values['url']}@127.0.0.1:{web.port}/r.git"
        refused = project.build(b"", remote=url)
        assert "wants credentials (status 401)" in refused.error
        project.write("FROM busybox\nRUN --mount=type=secret,id=key,env=KEY exit 3\n")
        failed = project.build()
        assert "returned a non-zero code: 3" in failed.error
    said = json.dumps([done.messages, refused.messages, failed.messages]).encode()
    found = said + everything(project.engine, "private", began)
    assert b"of a repository" in found
    for name, value in values.items():
        for form in (
            value,
            basic(value).split()[1],
            base64.b64encode(f"x:{value}".encode()).decode(),
        ):
            assert form.encode() not in found, name


def test_triggers_of_base_images_get_no_secret_that_is_for_any_server(
    lent: tuple[Project, Path], git: Repositories, tmp_path: Path
) -> None:
    project, offers = lent
    git.commit(f="f")
    with contextlib.closing(Web(tmp_path / "bare")) as web:
        for name in ("GIT_AUTH_TOKEN", "GIT_AUTH_HEADER"):
            (offers / name).write_text("token")
        base = project.write(f"FROM busybox\nONBUILD ADD {web.url}/r.git /r\n").build(t="base")
        assert not base.error, base.error
        assert not project.write("FROM base\n").build().error
        assert set(web.seen) == {""}


def test_a_build_that_nobody_wants_waits_for_no_server(
    lent: tuple[Project, Path], git: Repositories
) -> None:
    project, _ = lent
    side = Work(git.work.parent, "side")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"git://127.0.0.1:{silent.getsockname()[1]}/r.git"
        git.add_module("side", address, side.commit(f="f"))
        git.commit(f="f")
        for url in (address, git.url):
            project.write(f"FROM busybox\nADD {url} /r\n")
            client = UnixConnection(project.engine.socket)
            client.request("POST", "/build", body=project.archive())
            connection, _ = silent.accept()
            with connection:
                client.sock.close()
                client.close()
                while connection.recv(1 << 16):  # until the worker is gone
                    pass
            wait_for(lambda: not remains(project.engine), "nothing of the build is left")
    log = project.engine.log.read_text()
    assert "Traceback" not in log, log


def test_a_dockerfile_has_few_repositories_fetched_at_a_time(lent: tuple[Project, Path]) -> None:
    project, _ = lent
    with socket.create_server(("127.0.0.1", 0)) as silent, contextlib.ExitStack() as undo:
        url = f"git://127.0.0.1:{silent.getsockname()[1]}/r.git"
        stages = [f"FROM busybox AS s{n}\nADD {url} /r\n" for n in range(8)]
        last = "FROM busybox\n" + "".join(f"COPY --from=s{n} /r /r{n}\n" for n in range(8))
        project.write("".join(stages) + last)
        client = UnixConnection(project.engine.socket)
        client.request("POST", "/build", body=project.archive())
        for _ in range(MAX_FETCHES):
            undo.enter_context(silent.accept()[0])
        silent.settimeout(2)
        with pytest.raises(TimeoutError):
            silent.accept()
        client.sock.close()
        client.close()
    wait_for(lambda: not remains(project.engine), "nothing of the build is left")


def test_a_repository_is_a_context_with_its_submodules(
    lent: tuple[Project, Path], git: Repositories
) -> None:
    project, _ = lent
    side = Work(git.work.parent, "side")
    git.add_module("side", "../side.git", side.commit(f="of another"))
    os.symlink("side/f", git.work / "link")
    git.commit(Dockerfile="FROM busybox\nCOPY . /r\n")
    done = project.build(b"", remote=git.url, t="whole")
    assert not done.error, done.error
    assert project.run("whole", "cat /r/link; ls -A /r/side") == "of anotherf\n"
