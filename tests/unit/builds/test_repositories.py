from __future__ import annotations

import asyncio
import base64

import pytest

from berth.builds import repositories
from berth.builds.offers import NoOffers
from berth.builds.repositories import Repository
from berth.errors import InvalidArgument, Unsupported


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
    assert not read("https://h/r.git?submodules=false").submodules
    with pytest.raises(Unsupported, match="https, http and git"):
        read("git@h:r")
    with pytest.raises(InvalidArgument, match='unexpected query "x"'):
        read("https://h/r.git?x=1")


class Lent(NoOffers):
    """A client's secrets."""

    def __init__(self, **secrets: str) -> None:
        self._secrets = secrets

    async def secret(self, id_: str) -> bytes | None:
        found = self._secrets.get(id_.replace(".", "_"))
        return None if found is None else found.encode()


def shown(url: str, *, trusted: bool = True, **secrets: str) -> str:
    asking = repositories.authorization(repositories.read(url), Lent(**secrets), trusted=trusted)
    return asyncio.run(asking)


def test_what_a_server_is_shown():
    token = "Basic " + base64.b64encode(b"x-access-token:t").decode()
    assert shown("https://h/r.git") == ""
    assert shown("https://h/r.git", GIT_AUTH_TOKEN="t\n") == token
    assert shown("https://h/r.git", GIT_AUTH_HEADER="bearer x", GIT_AUTH_TOKEN="t") == "bearer x"
    assert shown("https://h/r.git", GIT_AUTH_HEADER="bearer x", GIT_AUTH_TOKEN_h="t") == token
    assert shown("https://u:p%40@h/r.git") == "Basic " + base64.b64encode(b"u:p@").decode()
    assert shown("https://u:p@h/r.git", GIT_AUTH_TOKEN="t") == token
    assert shown("git://h/r.git", GIT_AUTH_TOKEN_h="t") == ""
    with pytest.raises(InvalidArgument, match="the secret GIT_AUTH_HEADER is no header"):
        shown("https://h/r.git", GIT_AUTH_HEADER="bearer x\r\nHost: y")


def test_a_secret_for_any_server_is_not_for_those_that_others_name_nor_in_the_clear():
    for url, trusted in (("https://h/r.git", False), ("http://h/r.git", True)):
        assert shown(url, trusted=trusted, GIT_AUTH_TOKEN="t", GIT_AUTH_HEADER="x y") == ""
        assert shown(url, trusted=trusted, GIT_AUTH_HEADER_h="x y") == "x y"


def test_passwords_of_urls_are_shown_to_nobody():
    wanted = repositories.read("https://u:p@h:8/r.git#main")
    assert (wanted.place, wanted.host) == ("https://h:8/r.git", "h")


@pytest.mark.parametrize("url", ["http://[h/r.git", "http://h:x/r.git", "git:///r", "git://h/a b"])
def test_what_is_no_url_is_refused(url):
    with pytest.raises(InvalidArgument, match="is no URL of a repository"):
        repositories.read(url)
