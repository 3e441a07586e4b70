"""The bytes of files into others: shared where the file system can (FICLONE), else copied by the kernel."""

from __future__ import annotations

import errno
import fcntl
import os

from berth.kernel.libc import check, libc

FICLONE = 0x40049409
COPY_BYTES = 16 << 20
READ_BYTES = 1 << 20
SMALL_BYTES = 64 << 10  # one read and one write cost less than to look for holes
# No reflinks between the two at all; EINVAL may be about one file.
NEVER_SHARED = (errno.EOPNOTSUPP, errno.EXDEV, errno.ENOTTY, errno.ENOSYS, errno.EPERM)
# Nor copies in the kernel.
REFUSALS = (*NEVER_SHARED, errno.EINVAL)


class FileCopies:
    """Copies from one file system to one: what the first file shows of the two holds for the others."""

    def __init__(self) -> None:
        self._can_share = True

    def copy(self, source: int, target: int, size: int) -> None:
        """Give the empty file ``target`` the ``size`` bytes of the file ``source``, holes as holes."""
        if not size or (self._can_share and self._share(source, target)):
            return
        if size <= SMALL_BYTES:
            data = os.read(source, size)
            if os.write(target, data) == size:
                return
        os.ftruncate(target, size)
        start = 0
        while start < size:
            try:
                start = os.lseek(source, start, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                return  # a hole to the end
            end = os.lseek(source, start, os.SEEK_HOLE)
            copy_range(source, target, start, end)
            start = end

    def _share(self, source: int, target: int) -> bool:
        try:
            fcntl.ioctl(target, FICLONE, source)
        except OSError as error:
            if error.errno not in REFUSALS:
                raise
            self._can_share = error.errno not in NEVER_SHARED
            return False
        return True


def copy_range(source: int, target: int, start: int, end: int) -> None:
    """Copy the bytes from ``start`` to ``end`` to the same place of another file."""
    while start < end:
        try:
            done = os.copy_file_range(source, target, min(COPY_BYTES, end - start), start, start)
        except OSError as error:
            if error.errno not in REFUSALS:
                raise
            done = _write(target, os.pread(source, min(READ_BYTES, end - start), start), start)
        if not done:
            return  # it was cut meanwhile
        start += done


def _write(target: int, data: bytes, offset: int) -> int:
    return os.pwrite(target, data, offset) if data else 0


def sync_file_system(fd: int) -> None:
    """syncfs(2): wait until all that was written to the file system of ``fd`` is on the disk."""
    check(libc.syncfs(fd), "syncfs")


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Make renames and removals in a directory durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
