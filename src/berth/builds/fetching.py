"""Files that builds name by URL: fetched into a directory of the build's own."""

from __future__ import annotations

import asyncio
import hashlib
import os
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from urllib3.exceptions import HTTPError

from berth.errors import Failed, InvalidArgument
from berth.registry.transport import Transport, describe

if TYPE_CHECKING:
    from pathlib import Path

    from urllib3.response import BaseHTTPResponse

READ_BYTES = 1 << 18
OK = 200
FILE_MODE = 0o600


def is_url(text: str) -> bool:
    """Say whether a source is to be fetched."""
    return text.startswith(("http://", "https://"))


def name_of(url: str) -> str:
    """Return the name that a file gets from its URL; InvalidArgument when there is none."""
    name = unquote(urlsplit(url).path.rpartition("/")[2])
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise InvalidArgument(f"cannot determine filename from url: {url}")
    return name


async def fetch(url: str, folder: Path, name: str) -> str:
    """Fetch into the new file ``name``; return the sha256 of it, in digits. A cancellation ends it."""
    file = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
    transport = Transport(os.environ, certificate_folders=())  # those are for registries
    try:
        response = await asyncio.to_thread(_ask, transport, url)
        try:
            digest = hashlib.sha256()
            while data := await asyncio.to_thread(response.read, READ_BYTES):
                digest.update(data)
                await asyncio.to_thread(_write, file, data)
        finally:
            response.close()
        moment = _modified(response)
        os.utime(file, (moment, moment))
    except HTTPError as error:
        raise Failed(f"fetch {url}: {describe(error, url)}") from error
    except OSError as error:
        raise Failed(f"fetch {url}: {(error.strerror or str(error)).lower()}") from error
    finally:
        os.close(file)
        transport.close()
    return digest.hexdigest()


def _ask(transport: Transport, url: str) -> BaseHTTPResponse:
    response = transport.request("GET", url, headers={})
    if response.status != OK:
        response.close()
        raise Failed(f"failed to GET {url} with status {response.status} {response.reason}")
    return response


def _write(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]


def _modified(response: BaseHTTPResponse) -> float:
    try:
        return parsedate_to_datetime(response.headers.get("last-modified", "")).timestamp()
    except ValueError:
        return 0.0
