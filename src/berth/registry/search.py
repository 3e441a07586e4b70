"""Searching for repositories, by the first version of the registry API: for that there is no other."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import msgspec
from urllib3.exceptions import HTTPError

from berth.errors import InvalidArgument, NotFound, Unauthorized, Unavailable

if TYPE_CHECKING:
    from berth.registry.auth import Credentials
    from berth.registry.places import Endpoint
    from berth.registry.transport import Transport

HUB_DOMAIN, HUB_INDEX = "docker.io", "https://index.docker.io"
LOCAL = "localhost"
MAX_ANSWER_BYTES = 4 << 20


class Repository(msgspec.Struct, kw_only=True):
    """One that was found, under the names of the answer, which are Docker's, too."""

    name: str = ""
    description: str | None = ""
    star_count: int = 0
    is_official: bool = False
    is_automated: bool = False


class _Answer(msgspec.Struct):
    results: list[Repository] | None = None


def split(term: str) -> tuple[str, str]:
    """Split what is searched for into a registry's domain and the rest."""
    if "://" in term:
        raise InvalidArgument(
            f"invalid repository name ({term}): repository name should not have a scheme"
        )
    domain, slash, rest = term.partition("/")
    if slash and ("." in domain or ":" in domain or domain == LOCAL):
        return domain, rest
    return HUB_DOMAIN, term.removeprefix("library/")


def search(
    transport: Transport, endpoint: Endpoint, term: str, limit: int, auth: Credentials | None
) -> list[Repository]:
    """Ask one registry; Unavailable when none answers there."""
    base = HUB_INDEX if endpoint.url.endswith("//registry-1.docker.io") else endpoint.url
    url = f"{base}/v1/search?{urlencode({'q': term, 'n': limit})}"
    headers = {"Accept": "application/json"}
    if auth is not None and auth.username:
        headers["Authorization"] = auth.basic()
    response = transport.request("GET", url, headers=headers, tls=endpoint.tls)
    try:
        data = response.read(MAX_ANSWER_BYTES)
    except HTTPError as error:
        raise Unavailable(f'Get "{url}": unexpected EOF') from error
    finally:
        response.close()
    if response.status == HTTPStatus.UNAUTHORIZED:
        raise Unauthorized(f"unexpected status code {response.status}")
    if response.status == HTTPStatus.NOT_FOUND:
        raise NotFound(f"search: {base} has no search")
    if response.status != HTTPStatus.OK:
        raise Unavailable(f"unexpected status code {response.status}")
    try:
        return msgspec.json.decode(data, type=_Answer).results or []
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Unavailable(f"error decoding registry search results: {error}") from error
