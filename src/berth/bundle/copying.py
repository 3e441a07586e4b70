"""Copies of a directory's content into a fresh tmpfs (the mount option ``tmpcopyup``)."""

from __future__ import annotations

import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

CHUNK_BYTES = 1 << 20
OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW


def copy(source: int, target: int) -> None:
    """Copy what is in the directory ``source`` into the directory ``target``, owners and modes too."""
    fd = os.open(".", OPEN | os.O_DIRECTORY, dir_fd=target)
    try:
        _copy_owner(os.fstat(source), fd)
        _copy_below(source, fd)
    finally:
        os.close(fd)


def _names(directory: int) -> Iterator[str]:
    with os.scandir(directory) as found:
        for entry in found:
            yield entry.name


def _copy_below(source: int, target: int) -> None:
    for name in _names(source):
        status = os.stat(name, dir_fd=source, follow_symlinks=False)
        if stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
            os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
        elif stat.S_ISDIR(status.st_mode):
            os.mkdir(name, 0o700, dir_fd=target)
            old = os.open(name, OPEN | os.O_DIRECTORY, dir_fd=source)
            new = os.open(name, OPEN | os.O_DIRECTORY, dir_fd=target)
            _copy_below(old, new)
            _copy_owner(status, new)
            os.close(old)
            os.close(new)
        elif stat.S_ISREG(status.st_mode):
            _copy_file(name, source, target)
        else:
            os.mknod(name, status.st_mode, status.st_rdev, dir_fd=target)
            os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)


def _copy_file(name: str, source: int, target: int) -> None:
    old = os.open(name, OPEN, dir_fd=source)
    new = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=target)
    while os.sendfile(new, old, None, CHUNK_BYTES):
        pass
    _copy_owner(os.fstat(old), new)
    os.close(old)
    os.close(new)


def _copy_owner(status: os.stat_result, fd: int) -> None:
    os.fchown(fd, status.st_uid, status.st_gid)
    os.fchmod(fd, stat.S_IMODE(status.st_mode))
    os.utime(fd, ns=(status.st_atime_ns, status.st_mtime_ns))
