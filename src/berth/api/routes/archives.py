"""Routes of containers' files: archives in and out, export, changes."""

from __future__ import annotations

from base64 import b64encode
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from berth.api.exchange import TAR
from berth.api.router import Route
from berth.api.routes.images import reference_of
from berth.engine.commits import CommitRequest
from berth.engine.models import ContainerConfig
from berth.errors import InvalidArgument
from berth.runtime.channel import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from berth.api.parameters import Call
    from berth.engine.engine import Engine

MAX_NAME_BYTES = 255  # of one name in a path
STAT_HEADER = "X-Docker-Container-Path-Stat"
KINDS = {"C": 0, "A": 1, "D": 2}
SECOND_NS = 1_000_000_000
FIRST_S, LAST_S = -62_135_596_800, 253_402_300_799  # of the years that a time is shown in
PIECE_BYTES = 1 << 16


class ArchiveRoutes:
    """``/containers/{}/archive``, ``export``, ``changes``, and ``/commit``."""

    def __init__(self, engine: Engine) -> None:
        self._files = engine.files
        self._containers = engine.containers
        self._commits = engine.commits

    def routes(self) -> list[Route]:
        """Return the table."""
        return [
            Route("HEAD", "/containers/{}/archive", self.inspect),
            Route("GET", "/containers/{}/archive", self.read, long=True),
            Route("PUT", "/containers/{}/archive", self.write, long=True),
            Route("GET", "/containers/{}/export", self.export, long=True),
            Route("GET", "/containers/{}/changes", self.changes, long=True),
            Route("POST", "/commit", self.commit),
        ]

    async def inspect(self, call: Call) -> None:
        """Answer what a path is, in a header."""
        found = await self._files.inspect(call.name, path_of(call))
        headers = [(STAT_HEADER, described(found))]
        await call.exchange.respond_bytes(200, b"", "", headers=headers)

    async def read(self, call: Call) -> None:
        """Answer an archive of a path."""
        async with self._files.read(call.name, path_of(call)) as (found, chunks):
            call.exchange.begin(TAR, more=[(STAT_HEADER, described(found))])
            async for chunk in chunks:
                await call.exchange.write(chunk)
            await call.exchange.end()

    async def write(self, call: Call) -> None:
        """Extract the archive in the body into a directory."""
        await self._files.write(
            call.name,
            path_of(call),
            call.exchange.body_stream(),
            keeps=call.flag("noOverwriteDirNonDir"),
            owned=call.flag("copyUIDGID"),
        )
        await call.exchange.respond_bytes(200, b"", "")

    async def export(self, call: Call) -> None:
        """Answer an archive of the whole root."""
        async with self._files.export(call.name) as chunks:
            call.exchange.begin("application/octet-stream")
            async for chunk in chunks:
                await call.exchange.write(chunk)
            await call.exchange.end()

    async def changes(self, call: Call) -> None:
        """Answer what is different from the image; null when nothing is."""
        self._containers.find(call.name)
        pending = b""
        async for kind, path in self._files.changes(call.name):
            entry = msgspec.json.encode({"Path": path, "Kind": KINDS[kind]})
            if not call.exchange.answered:
                call.exchange.begin()
                pending = b"["
            pending += entry if pending == b"[" else b"," + entry
            if len(pending) >= PIECE_BYTES:
                await call.exchange.write(pending)
                pending = b""
        if not call.exchange.answered:
            await call.exchange.respond_bytes(200, b"null\n", "application/json")
            return
        await call.exchange.write(pending + b"]\n")
        await call.exchange.end()

    async def commit(self, call: Call) -> None:
        """Make an image of a container."""
        request = CommitRequest(
            config=await call.decode(ContainerConfig),
            changes=call.texts("changes"),
            reference=reference_of(call.text("repo"), call.text("tag")) or None,
            author=call.text("author"),
            comment=call.text("comment"),
            pause=call.flag("pause", default=True),
        )
        image = await self._commits.commit(call.text("container"), request)
        await call.exchange.respond(201, {"Id": image.id})


def path_of(call: Call) -> str:
    """Return the path that is asked for; without one the request is refused in Docker's words."""
    if path := call.text("path"):
        if "\0" in path or any(len(name.encode()) > MAX_NAME_BYTES for name in path.split("/")):
            raise InvalidArgument(f"bad parameter: path: no file has the name {path[:80]!r}")
        return path
    raise InvalidArgument("bad parameter: pathcannot be empty")


def described(found: Mapping[str, object]) -> str:
    """Return the value of the header that says what a path is."""
    moment = found["mtime_ns"]
    assert isinstance(moment, int)
    seconds, rest = divmod(moment, SECOND_NS)
    seconds = min(max(seconds, FIRST_S), LAST_S)
    fraction = f".{rest:09}".rstrip("0") if rest else ""
    document = {
        "name": shown(str(found["name"])),
        "size": found["size"],
        "mode": found["mode"],
        "mtime": f"{datetime.fromtimestamp(seconds, UTC).isoformat()[:19]}{fraction}Z",
        "linkTarget": shown(str(found["linkTarget"])),
    }
    return b64encode(msgspec.json.encode(document)).decode()
