"""What a file is besides its bytes: owner, mode, times, extended attributes."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from berth.snapshots.whiteouts import ALLOWED_XATTRS, RESERVED_XATTRS

if TYPE_CHECKING:
    from pathlib import Path

SPECIAL_BITS = 0o7000
# What a file system that has no extended attributes, or not all of them, says to one.
REFUSALS = (errno.EOPNOTSUPP, errno.EPERM)


def copy_attributes(source: Path, target: Path) -> None:
    """Give the directory ``target`` the owner, mode and times of ``source``."""
    status = source.stat()
    os.chown(target, status.st_uid, status.st_gid)
    target.chmod(stat.S_IMODE(status.st_mode))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def copy_all(source: int, target: int) -> None:
    """Give ``target`` what ``source`` is, in an order in which nothing undoes what came before."""
    status = os.fstat(source)
    os.fchown(target, status.st_uid, status.st_gid)
    wanted = read(source)
    for name in read(target):
        if name not in wanted:
            os.removexattr(target, name)
    write(target, wanted)
    os.fchmod(target, stat.S_IMODE(status.st_mode))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def complete(target: int, status: os.stat_result, xattrs: dict[str, bytes]) -> None:
    """Give a file that root has just made with the permissions of ``status`` the rest of what that says."""
    if status.st_uid or status.st_gid:
        os.fchown(target, status.st_uid, status.st_gid)
    if xattrs:
        write(target, xattrs)
    if xattrs or status.st_mode & SPECIAL_BITS:
        os.fchmod(target, stat.S_IMODE(status.st_mode))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def read(target: int | str) -> dict[str, bytes]:
    """Return the extended attributes that images keep. A name is not followed."""
    follow = isinstance(target, int)
    try:
        names = os.listxattr(target, follow_symlinks=follow)
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
        return {}
    return {
        name: os.getxattr(target, name, follow_symlinks=follow)
        for name in names
        if name.startswith(ALLOWED_XATTRS) and not name.startswith(RESERVED_XATTRS)
    }


def write(target: int | str, found: dict[str, bytes]) -> None:
    """Set extended attributes, as far as this file system takes them. A name is not followed."""
    for name, value in found.items():
        try:
            os.setxattr(target, name, value, follow_symlinks=isinstance(target, int))
        except OSError as error:
            # user.* exists on files and directories only; some file systems have none at all.
            if error.errno not in REFUSALS:
                raise
