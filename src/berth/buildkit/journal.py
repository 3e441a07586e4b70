"""What a build's client is shown: vertices that begin and end, what they write, how far they are."""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from berth.buildkit import messages
from berth.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from google.protobuf.message import Message

PAST_BYTES = 2 << 20  # of messages that a reader gets who comes late
AHEAD_BYTES = 1 << 20  # of messages that a reader may be behind
STALL_S = 10.0  # that a build waits for a reader; then it goes on, and the reader misses output
MAX_READERS = 16
PAUSE_S = 0.1  # between two looks at how far something is
STDOUT, STDERR = 1, 2
NANOSECONDS = 1_000_000_000


def now() -> Mapping[str, int]:
    """Return the fields of a timestamp."""
    seconds, nanos = divmod(time.time_ns(), NANOSECONDS)
    return {"seconds": seconds, "nanos": nanos}


class Reader:
    """What one who reads along has yet to take."""

    def __init__(self) -> None:
        self._messages: deque[Message] = deque()
        self._size_bytes = 0
        self._lost: Message | None = None  # the first that it missed since it is behind
        self._is_over = False
        self._came, self._went = asyncio.Event(), asyncio.Event()

    @property
    def _has_room(self) -> bool:
        return self._size_bytes < AHEAD_BYTES and self._lost is None

    async def put(self, message: Message) -> None:
        """Add a message; wait for room, but not for ever. What tells of vertices is never left out."""
        with suppress(TimeoutError):
            async with asyncio.timeout(STALL_S):
                while not (self._has_room or self._lost or self._is_over):
                    self._went.clear()
                    await self._went.wait()
        if self._has_room or message.vertexes or message.warnings:
            self._add(message)
        else:
            self._lost = self._lost or message

    def offer(self, message: Message) -> None:
        """Add a message if there is room."""
        if self._has_room:
            self._add(message)

    def _add(self, message: Message) -> None:
        self._messages.append(message)
        self._size_bytes += message.ByteSize()
        self._came.set()

    def end(self) -> None:
        """Say that nothing more comes, or is wanted."""
        self._is_over = True
        self._came.set()
        self._went.set()

    async def take(self) -> Message | None:
        """Return the next message; None at the end."""
        while not (self._messages or self._lost or self._is_over):
            self._came.clear()
            await self._came.wait()
        if self._messages:
            message = self._messages.popleft()
            self._size_bytes -= message.ByteSize()
        else:
            lost, self._lost = self._lost, None
            message = None if lost is None else gap(lost)
        self._went.set()
        return message


def gap(lost: Message) -> Message:
    """Return what is shown instead of what was left out."""
    said = [*lost.logs, *lost.statuses][0]
    text = b"[output is missing here: its reader was too slow]\n"
    log = {"vertex": said.vertex, "timestamp": now(), "stream": STDERR, "msg": text}
    return messages.of("Status")(logs=[log])


class Journal:
    """The messages of one build, for those who read along. A slow reader holds the build back for a while."""

    def __init__(self) -> None:
        self._past: deque[Message] = deque()
        self._past_bytes = 0
        self._readers: list[Reader] = []
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
            reader.offer(message)

    def _note(self, fields: Mapping[str, object]) -> Message:
        message = messages.of("Status")(**{key: [value] for key, value in fields.items()})
        self._past.append(message)
        self._past_bytes += message.ByteSize()
        while self._past_bytes > PAST_BYTES and len(self._past) > 1:
            self._past_bytes -= self._past.popleft().ByteSize()
        return message

    def end(self) -> None:
        """Say that nothing more comes."""
        self._is_over = True
        for reader in self._readers:
            reader.end()

    async def read(self) -> AsyncIterator[Message]:
        """Yield everything, from the beginning to the end."""
        if len(self._readers) == MAX_READERS:
            raise Unavailable(f"{MAX_READERS} clients read along already")
        past, reader = tuple(self._past), Reader()
        if self._is_over:
            reader.end()
        else:
            self._readers.append(reader)
        try:
            for message in past:
                yield message
            while (message := await reader.take()) is not None:
                yield message
        finally:
            if reader in self._readers:
                self._readers.remove(reader)
            reader.end()


class Vertex:
    """One unit of work as the client sees it."""

    def __init__(self, journal: Journal, name: str) -> None:
        self._journal = journal
        self._fields: dict[str, object] = {
            "digest": f"sha256:{os.urandom(32).hex()}",
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
