"""Which descriptors a container's process keeps: those that its caller wants preserved."""

from __future__ import annotations

import os

from berth import pack
from berth.kernel import processes


def close_all_but(keep: list[int]) -> None:
    """Close every descriptor from 3 on but ``keep`` and those that are preserved."""
    pack.stop()
    wanted = sorted({*keep, *_preserved})
    first = 3
    for fd in wanted:
        if fd > first:
            processes.close_between(first, fd - 1)
        first = fd + 1
    processes.close_from(first)


_preserved: set[int] = set()


def preserve(count: int) -> None:
    """Keep descriptors 3 to 2 + ``count`` for the program; all others end with any program that is run."""
    processes.cloexec_from(3)
    for fd in range(3, 3 + count):
        os.fstat(fd)
        _preserved.add(fd)
