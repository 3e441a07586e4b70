"""One engine of a host at a time chooses subnets.

Each looks at the host's routes, and what it chooses is one of them only when its bridge is up: two that
look at the same moment would take the same subnet, and each would masquerade the other's neighbours.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

log = logging.getLogger("berth")

TRIES = 1000  # anybody in this network namespace may hold the lock, for as long as it likes
PAUSE_S = 0.005


@contextlib.asynccontextmanager
async def alone() -> AsyncIterator[None]:
    """Have other engines in this network namespace wait; go on without that when it takes too long."""
    fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        for _ in range(TRIES):
            if _take(fd):
                break
            await asyncio.sleep(PAUSE_S)
        else:
            log.info("chooses subnets although somebody else in this network namespace does, too")
        yield
    finally:
        fcntl.flock(fd, fcntl.LOCK_UN)  # a child may have the descriptor for a moment
        os.close(fd)


def _take(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
