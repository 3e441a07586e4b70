"""What a build's client is shown: vertices that begin and end, what they write, how far they are."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from typing import TYPE_CHECKING

from berth.buildkit import messages

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from google.protobuf.message import Message

PAST = 1000  # messages that a reader gets who comes late
AHEAD = 200  # messages that a reader may be behind
PAUSE_S = 0.1  # between two looks at how far something is
STDOUT, STDERR = 1, 2
NANOSECONDS = 1_000_000_000


def now() -> Mapping[str, int]:
    """Return the fields of a timestamp."""
    seconds, nanos = divmod(time.time_ns(), NANOSECONDS)
    return {"seconds": seconds, "nanos": nanos}


class Journal:
    """The messages of one build, for those who read along. A slow reader holds the build back."""

    def __init__(self) -> None:
        self._past: deque[Message] = deque(maxlen=PAST)
        self._readers: list[asyncio.Queue[Message | None]] = []
        self._is_over = False

    async def tell(self, **fields: object) -> None:
        """Show something."""
        message = self._note(fields)
        for reader in tuple(self._readers):
            await reader.put(message)

    def report(self, **fields: object) -> None:
        """Show something that may be left out where it comes too fast."""
        message = self._note(fields)
        for reader in self._readers:
            if not reader.full():
                reader.put_nowait(message)

    def _note(self, fields: Mapping[str, object]) -> Message:
        message = messages.of("Status")(**{key: [value] for key, value in fields.items()})
        self._past.append(message)
        return message

    async def end(self) -> None:
        """Say that nothing more comes."""
        self._is_over = True
        for reader in tuple(self._readers):
            await reader.put(None)

    async def read(self) -> AsyncIterator[Message]:
        """Yield everything, from the beginning to the end."""
        past = tuple(self._past)
        reader: asyncio.Queue[Message | None] = asyncio.Queue(AHEAD)
        if not self._is_over:
            self._readers.append(reader)
        try:
            for message in past:
                yield message
            while reader in self._readers and (message := await reader.get()) is not None:
                yield message
        finally:
            if reader in self._readers:
                self._readers.remove(reader)
            while not reader.empty():  # lets go who waits to put something in
                reader.get_nowait()


class Vertex:
    """One unit of work as the client sees it."""

    def __init__(self, journal: Journal, name: str) -> None:
        self._journal = journal
        self._fields: dict[str, object] = {
            "digest": f"sha256:{secrets.token_hex(32)}",
            "name": name,
        }
        self._open: dict[str, dict[str, object]] = {}  # statuses that are not over
        self._shown: dict[str, float] = {}  # when each was shown last

    @property
    def _digest(self) -> object:
        return self._fields["digest"]

    async def start(self) -> None:
        """Say that it begins."""
        self._fields["started"] = now()
        await self._journal.tell(vertexes=self._fields)

    async def finish(self, *, cached: bool = False, error: str = "") -> None:
        """Say that it is over, and so is all of it."""
        left, self._open = self._open, {}
        for status in left.values():
            await self._journal.tell(statuses={**status, "timestamp": now(), "completed": now()})
        done = {**self._fields, "completed": now(), "cached": cached, "error": error}
        await self._journal.tell(vertexes=done)

    async def log(self, data: bytes, *, stderr: bool) -> None:
        """Show what it wrote."""
        await self._journal.tell(
            logs={
                "vertex": self._digest,
                "timestamp": now(),
                "stream": STDERR if stderr else STDOUT,
                "msg": data,
            }
        )

    def progress(self, id_: str, current: int, total: int = 0, *, done: bool = False) -> None:
        """Show how far something of it is."""
        moment = now()
        status = self._open.setdefault(
            id_, {"ID": id_, "vertex": self._digest, "started": moment, "total": 0}
        )
        status |= {"current": current, "total": total or status["total"]}
        if done:
            del self._open[id_]
            status["current"] = current or status["total"]
            self._journal.report(statuses={**status, "timestamp": moment, "completed": moment})
        elif time.monotonic() - self._shown.get(id_, 0.0) > PAUSE_S:
            self._shown[id_] = time.monotonic()
            self._journal.report(statuses={**status, "timestamp": moment})

    async def warn(self, text: str, **more: object) -> None:
        """Show a warning. ``more``: the other fields of BuildKit's VertexWarning."""
        warning = {"vertex": self._digest, "level": 1, "short": text.encode(), **more}
        await self._journal.tell(warnings=warning)
