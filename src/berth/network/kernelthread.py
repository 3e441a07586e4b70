"""The one thread in which the kernel's network is changed."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Result = TypeVar("Result")


class KernelThread:
    """Runs one piece of blocking work after the other, each to its end."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="network")

    def begin(self, work: Callable[[], Result]) -> asyncio.Future[Result]:
        """Queue ``work``."""
        return asyncio.get_running_loop().run_in_executor(self._pool, work)

    async def run(
        self, work: Callable[[], Result], *, undo: Callable[[Result], None] | None = None
    ) -> Result:
        """Wait for ``work``; one who is cancelled waits too, and what was made is undone with ``undo``."""
        future = self.begin(work)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])
            if undo is not None and future.exception() is None:
                undo(future.result())
            raise

    def close(self) -> None:
        """End when what is queued is done."""
        self._pool.shutdown()
