"""Files of the web, for imports: fetched by the engine, as Docker does. Blocking."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from urllib3.exceptions import HTTPError

from berth.errors import Failed, InvalidArgument, Unavailable

if TYPE_CHECKING:
    from urllib3.response import BaseHTTPResponse

    from berth.registry.transport import Transport

CHUNK_BYTES = 1 << 18
SCHEMES = ("http", "https")


def address(source: str) -> str:
    """Return the URL that a source of an import means; without a scheme it is http's."""
    url = source if "://" in source else f"http://{source}"
    try:
        parts = urlsplit(url)
        known = parts.scheme in SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError as error:
        raise InvalidArgument(f"import: {source!r} is no URL: {error}") from None
    if not known:
        raise InvalidArgument(f"import: {source!r} is no URL of the web")
    return url


def open_file(transport: Transport, url: str) -> BaseHTTPResponse:
    """Return an answer that is still to be read; Failed when it is a refusal."""
    response = transport.request("GET", url, headers={})
    if response.status >= HTTPStatus.BAD_REQUEST:
        response.close()
        said = f"{response.status} {response.reason or ''}".rstrip()
        raise Failed(f"Got HTTP status code >= 400: {said}")
    return response


def read(response: BaseHTTPResponse, url: str) -> bytes:
    """Return the next bytes; nothing at the end."""
    try:
        return response.read(CHUNK_BYTES)
    except HTTPError as error:
        raise Unavailable(f'Get "{url}": unexpected EOF') from error
