"""Namespaces made ahead of need. Filled one at a time, and only while nobody waits for a namespace."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from berth.errors import BerthError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from berth.network.kernelthread import KernelThread
    from berth.network.wiring import Ready

log = logging.getLogger("berth")

_REST_S = 0.02  # a container that starts gets the processor first


class _Shelf:
    __slots__ = ("plan", "spares")

    def __init__(self, plan: Callable[[], Callable[[], Ready]]) -> None:
        self.plan = plan
        self.spares: deque[Ready] = deque()


class Stock:
    """Spare namespaces by kind."""

    def __init__(self, thread: KernelThread, *, size: int) -> None:
        self._thread = thread
        self._size = size
        self._shelves: dict[str, _Shelf] = {}
        self._waiting = 0
        self._making: asyncio.Future[Ready] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_open = True

    def add(self, kind: str, plan: Callable[[], Callable[[], Ready]]) -> None:
        """Keep spares of ``kind`` from now on; what ``plan`` returns runs in the thread and makes one."""
        self._shelves[kind] = _Shelf(plan)

    def take(self, kind: str) -> Ready | None:
        """Return the oldest spare, which is the caller's from now on."""
        shelf = self._shelves.get(kind)
        return shelf.spares.popleft() if shelf and shelf.spares else None

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Make no spares meanwhile; fill up afterwards."""
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1
            self._rest()

    def _rest(self) -> None:
        if self._waiting == 0 and self._is_open:
            if self._timer:
                self._timer.cancel()
            self._timer = asyncio.get_running_loop().call_later(_REST_S, self.fill)

    def fill(self) -> None:
        """Begin to make the next missing spare; its end begins the one after."""
        if self._making or self._waiting or not self._is_open:
            return
        for shelf in self._shelves.values():
            if len(shelf.spares) < self._size:
                self._begin(shelf)
                return

    def _begin(self, shelf: _Shelf) -> None:
        try:
            make = shelf.plan()
        except BerthError as error:
            log.warning("make a spare network namespace: %s", error)
            return
        self._making = self._thread.begin(make)
        self._making.add_done_callback(partial(self._stow, shelf))

    def _stow(self, shelf: _Shelf, done: asyncio.Future[Ready]) -> None:
        self._making = None
        if done.cancelled():
            return
        if error := done.exception():
            log.warning("make a spare network namespace: %s", error)
            return
        shelf.spares.append(done.result())
        self.fill()

    async def close(self) -> None:
        """Let go of every spare."""
        self._is_open = False
        if self._timer:
            self._timer.cancel()
        if self._making:
            await asyncio.wait([self._making])
        for shelf in self._shelves.values():
            while shelf.spares:
                shelf.spares.popleft().close()
