"""The event bus: what happened, to whoever listens, and the last of it to whoever asks later."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

KEPT = 256
MAX_WAITING = 4096

Event = dict[str, object]


class Events:
    """All events of an engine."""

    def __init__(self) -> None:
        self._kept: deque[Event] = deque(maxlen=KEPT)
        self._listeners: set[asyncio.Queue[Event]] = set()
        self.clients = 0  # how many of those that listen are clients
        self.emitted = 0

    def emit(self, kind: str, action: str, actor: str, attributes: dict[str, str]) -> None:
        """Tell everyone that ``action`` happened to the ``kind`` of thing with id ``actor``."""
        now = time.time_ns()
        self.emitted += 1
        event: Event = {
            "Type": kind,
            "Action": action,
            "Actor": {"ID": actor, "Attributes": attributes},
            "scope": "local",
            "time": now // 1_000_000_000,
            "timeNano": now,
        }
        self._kept.append(event)
        for queue in self._listeners:
            # A listener that does not read loses events; it does not cost memory without bound.
            if queue.qsize() < MAX_WAITING:
                queue.put_nowait(event)

    def since(self, time_ns: int) -> list[Event]:
        """Return what is still known of the events since ``time_ns``."""
        return [e for e in self._kept if isinstance(at := e["timeNano"], int) and at >= time_ns]

    @contextmanager
    def listen(self) -> Iterator[asyncio.Queue[Event]]:
        """Receive every event from now on."""
        queue: asyncio.Queue[Event] = asyncio.Queue()
        self._listeners.add(queue)
        try:
            yield queue
        finally:
            self._listeners.discard(queue)

    @contextmanager
    def listen_for_client(self) -> Iterator[asyncio.Queue[Event]]:
        """As :meth:`listen`, counted among the clients."""
        with self.listen() as queue:
            self.clients += 1
            try:
                yield queue
            finally:
                self.clients -= 1
