"""Streams that are the host's null device, whose mode and owner the container's root could change."""

from __future__ import annotations

import os
import stat

from berth.kernel import mounts
from berth.runtime.payload import NULL_DEVICE

# Where it leads is not known before it is open.
_FLAGS = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NOCTTY


def reopen_null() -> None:
    """Have them be the container's, as runc does: criu finds no others. Called inside the root."""
    wanted = [number for number in (0, 1, 2) if _is_null(number)]
    if not wanted:
        return
    try:
        fd = _open_null()
    except OSError:  # in a user namespace, where the host's belongs to nobody: then it stays
        return
    for number in wanted:
        os.dup2(fd, number)
    os.close(fd)


def _open_null() -> int:
    """Open the container's, or one that nobody else has: a container may have removed its own."""
    try:
        fd = os.open("/dev/null", _FLAGS)
    except OSError:
        return _make_null()
    if _is_null(fd):
        return fd
    os.close(fd)
    return _make_null()


def _make_null() -> int:
    folder, mask = mounts.make_mount("tmpfs", [("size", "4k")], read_only=False), os.umask(0)
    try:
        os.mknod("null", stat.S_IFCHR | 0o666, NULL_DEVICE, dir_fd=folder)
        return os.open("null", _FLAGS, dir_fd=folder)
    finally:
        os.umask(mask)
        os.close(folder)


def _is_null(fd: int) -> bool:
    try:
        status = os.fstat(fd)
    except OSError:  # closed by the caller
        return False
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == NULL_DEVICE
