"""Which descriptors a container's process keeps: those that its caller wants preserved."""

from __future__ import annotations

import os

from berth import pack
from berth.errors import InvalidArgument
from berth.kernel import processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Set


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
    """Keep descriptors 3 to 2 + ``count`` for the program; all others end with any program that is run.

    Where the caller has left a gap there may be one of this process's, which no container may have.
    """
    wanted = range(3, 3 + count)
    for fd in wanted:
        if not is_inherited(fd):
            raise InvalidArgument(
                f"unable to preserve descriptor {fd} (of {count}): it is not open"
            )
    processes.cloexec_from(3)
    _preserved.update(wanted)


def preserved() -> Set[int]:
    """Return which are kept."""
    return _preserved


def is_inherited(fd: int) -> bool:
    """Say whether a descriptor is the caller's: where one was closed, a file of this process may be."""
    try:
        return os.get_inheritable(fd)
    except OSError:
        return False
