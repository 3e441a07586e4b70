from __future__ import annotations

import asyncio
import socket

import pytest

from berth.builds import repositories
from berth.builds.offers import NO_OFFERS
from berth.builds.repositories import Repository
from berth.errors import Failed, InvalidArgument, Unsupported


def test_what_is_a_repository():
    for text in (
        "git://h/r",
        "git@h:r",
        "ssh://h/r",
        "https://h/r.git",
        "https://h/r.git#main:sub",
        "https://h/r.git?ref=x",
        "github.com/o/r",
    ):
        assert repositories.is_repository(text)
    for text in ("https://h/archive.tar.gz", "r.git", "https://h/x#r.git", "git"):
        assert not repositories.is_repository(text)


def test_urls_are_taken_apart():
    read = repositories.read
    assert read("https://h/r.git") == Repository(url="https://h/r.git")
    assert read("git://h/r#v1:a/b/") == Repository(url="git://h/r", ref="v1", folder="a/b")
    assert read("github.com/o/r#:d") == Repository(url="https://github.com/o/r", folder="d")
    asked = read("https://h/r.git?tag=v1&subdir=/d&keep-git-dir=1&checksum=ab")
    assert (asked.url, asked.ref, asked.folder) == ("https://h/r.git", "refs/tags/v1", "d")
    assert (asked.keeps_git, asked.checksum, asked.host) == (True, "ab", "h")
    with pytest.raises(Unsupported, match="https, http and git"):
        read("git@h:r")
    with pytest.raises(InvalidArgument, match='unexpected query "x"'):
        read("https://h/r.git?x=1")


def test_a_server_that_says_nothing_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(repositories, "SILENCE_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        wanted = repositories.read(f"http://127.0.0.1:{silent.getsockname()[1]}/r.git")
        with pytest.raises(Failed, match=r"fetch http.*timed out"):
            repositories.fetch(wanted, tmp_path / "repository")


def test_nobody_waits_for_a_server_that_says_nothing_and_is_not_wanted_any_more(tmp_path):
    async def ask(wanted: Repository) -> None:
        async with repositories.fetched(wanted, tmp_path, NO_OFFERS):
            pass

    async def test(silent: socket.socket) -> None:
        wanted = repositories.read(f"git://127.0.0.1:{silent.getsockname()[1]}/r")
        asking = asyncio.create_task(ask(wanted))
        connection, _ = await asyncio.to_thread(silent.accept)
        asking.cancel()
        await asyncio.wait([asking])
        assert asking.cancelled()
        kept.append(connection)

    kept: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as silent:
        asyncio.run(test(silent))
    kept[0].close()
