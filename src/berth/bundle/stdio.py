"""A process's streams that are inherited from the caller."""

from __future__ import annotations

import os
import stat

from berth.runtime.payload import NULL_DEVICE


def reopen_null() -> None:
    """Have streams that are the host's /dev/null be the container's, as runc does: criu finds no others."""
    wanted = [number for number in (0, 1, 2) if _is_null(number)]
    if not wanted:
        return
    try:
        fd = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:  # there is none, or it may not be opened: then it stays the host's
        return
    for number in wanted if _is_null(fd) else ():
        os.dup2(fd, number)
    os.close(fd)


def _is_null(fd: int) -> bool:
    try:
        status = os.fstat(fd)
    except OSError:  # closed by the caller
        return False
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == NULL_DEVICE
