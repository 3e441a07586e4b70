"""The bytes of a file into another: shared where the file system can (FICLONE), else copied by the kernel."""

from __future__ import annotations

import errno
import fcntl
import os

FICLONE = 0x40049409
COPY_BYTES = 16 << 20
READ_BYTES = 1 << 20
# No reflinks here: not this file system, not between the two, not by this ioctl.
UNSHARED = (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EPERM)


def copy_bytes(source: int, target: int) -> None:
    """Give the empty regular file ``target`` the bytes and holes of the regular file ``source``."""
    size = os.fstat(source).st_size
    if not size:
        return
    try:
        fcntl.ioctl(target, FICLONE, source)
    except OSError as error:
        if error.errno not in UNSHARED:
            raise
    else:
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
        _copy_range(source, target, start, end)
        start = end


def _copy_range(source: int, target: int, start: int, end: int) -> None:
    while start < end:
        try:
            done = os.copy_file_range(source, target, min(COPY_BYTES, end - start), start, start)
        except OSError as error:
            if error.errno not in UNSHARED:
                raise
            done = _write(target, os.pread(source, min(READ_BYTES, end - start), start), start)
        if not done:
            return  # it was cut meanwhile
        start += done


def _write(target: int, data: bytes, offset: int) -> int:
    return os.pwrite(target, data, offset) if data else 0
