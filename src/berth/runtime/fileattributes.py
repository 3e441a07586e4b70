"""What a file is besides its bytes: owner, mode, times, extended attributes."""

from __future__ import annotations

import errno
import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

# The extended attributes that images keep, without those by which one would speak to overlayfs.
ALLOWED_XATTRS = ("user.", "trusted.", "security.capability", "system.posix_acl_")
RESERVED_XATTRS = ("trusted.overlay.", "user.overlay.")
# What a file system says to one that it does not have or take: user.* is for files and directories only.
REFUSALS = (errno.EOPNOTSUPP, errno.EPERM)
UNREADABLE = (*REFUSALS, errno.EACCES, errno.E2BIG, errno.ENODATA)  # the last: gone meanwhile


class Facts:
    """Owner, mode and times of a file, which the file made of it may get others of."""

    __slots__ = ("atime_ns", "gid", "is_folder", "mode", "mtime_ns", "uid")

    def __init__(self, status: os.stat_result) -> None:
        self.is_folder = stat.S_ISDIR(status.st_mode)
        self.uid, self.gid = status.st_uid, status.st_gid
        self.mode = stat.S_IMODE(status.st_mode)
        self.atime_ns, self.mtime_ns = status.st_atime_ns, status.st_mtime_ns


def copy_all(source: int, target: int) -> None:
    """Make ``target`` what ``source`` is, also in what it has and ``source`` has not."""
    wanted = read(source)
    for name in read(target):
        if name not in wanted:
            os.removexattr(target, name)
    give(target, Facts(os.fstat(source)), wanted)


def give(target: int, facts: Facts, xattrs: Mapping[str, bytes]) -> None:
    """Give an open file all of this, in an order in which nothing undoes what came before."""
    now = os.fstat(target)
    if (now.st_uid, now.st_gid) != (facts.uid, facts.gid):
        os.fchown(target, facts.uid, facts.gid)
        now = os.fstat(target)
    if xattrs:
        write(target, xattrs)
    if xattrs or stat.S_IMODE(now.st_mode) != facts.mode:
        os.fchmod(target, facts.mode)
    os.utime(target, ns=(facts.atime_ns, facts.mtime_ns))


def give_name(name: str | os.PathLike[str], facts: Facts, *, folder: int | None = None) -> None:
    """Give a name owner and times, and a directory, which nobody else can replace, its mode as well.

    Others have theirs since they were made: there is no call that changes it and follows no link, and who may
    change names in ``folder`` could have put one there.
    """
    os.chown(name, facts.uid, facts.gid, dir_fd=folder, follow_symlinks=False)
    if facts.is_folder:
        os.chmod(name, facts.mode, dir_fd=folder)
    times = (facts.atime_ns, facts.mtime_ns)
    os.utime(name, ns=times, dir_fd=folder, follow_symlinks=False)


def is_kept(name: str) -> bool:
    """Say whether images keep an extended attribute."""
    return name.startswith(ALLOWED_XATTRS) and not name.startswith(RESERVED_XATTRS)


def read(target: int | str) -> dict[str, bytes]:
    """Return the extended attributes that images keep. A name is not followed."""
    follow = isinstance(target, int)
    try:
        names = os.listxattr(target, follow_symlinks=follow)
    except OSError as error:
        if error.errno not in UNREADABLE:
            raise
        return {}
    found = {}
    for name in filter(is_kept, names):
        try:
            found[name] = os.getxattr(target, name, follow_symlinks=follow)
        except OSError as error:
            if error.errno not in UNREADABLE:
                raise
    return found


def write(target: int | str, wanted: Mapping[str, bytes]) -> None:
    """Set those that images keep, as far as the file system takes them. A name is not followed."""
    for name in filter(is_kept, wanted):
        try:
            os.setxattr(target, name, wanted[name], follow_symlinks=isinstance(target, int))
        except OSError as error:
            if error.errno not in REFUSALS:
                raise
