"""Places for mounts in a root that is not trusted: opened first, then mounted on by descriptor.

Called inside the root, so a symbolic link leads to where it leads there, as Docker follows them; what is
missing is made. Nothing is put into /proc but the few files that Docker allows: what programs, and the
steps after this one, learn and change there must be the kernel's.
"""

from __future__ import annotations

import errno
import os
import stat

from berth.errors import InvalidArgument
from berth.kernel import mounts

# What every container gets, whatever the image has there: a link or a file in its way is removed.
OWN_DIRECTORIES = ("/proc", "/sys", "/dev")
OWN_FILES = ("/etc/hostname", "/etc/hosts", "/etc/resolv.conf")

# Emulations of these (lxcfs) may cover them.
IN_PROC = (
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/net/dev",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
)


def open_place(path: str, *, directory: bool, proc: bool = False) -> int:
    """Return a descriptor of the place ``path``; ``proc`` says that a proc is to be mounted there."""
    if path in OWN_DIRECTORIES or path in OWN_FILES:
        _clear(path, directory=directory)
    fd = open_plain(path)
    if fd is None:
        path = os.path.realpath(path)  # noqa: TID251 - this is inside the root
        _make(path, directory=directory)
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        _check(fd, path, proc=proc)
    except BaseException:
        os.close(fd)
        raise
    return fd


def open_below(base: str, subpath: str, *, recursive: bool = False) -> int:
    """Return a detached mount of ``base``, or of what is at ``subpath`` below it, where no link leads out."""
    folder = os.open(base, os.O_PATH | os.O_CLOEXEC)
    place = folder
    try:
        if subpath:
            place = mounts.open_beneath(folder, subpath, os.O_PATH)
        return mounts.open_tree("", dir_fd=place, recursive=recursive)
    except OSError as error:
        if not subpath:
            raise
        if error.errno == errno.EXDEV:
            raise InvalidArgument(
                f"path concatenation escapes the base directory, base: {base}, subpath: {subpath}"
            ) from error
        why = os.strerror(error.errno or 0).lower()
        raise InvalidArgument(f"cannot access path {base}/{subpath}: {why}") from error
    finally:
        for fd in {folder, place}:
            os.close(fd)


def open_plain(path: str) -> int | None:
    """Open ``path`` itself; None when it is missing or a symbolic link."""
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if stat.S_ISLNK(os.fstat(fd).st_mode):
        os.close(fd)
        return None
    return fd


def _clear(path: str, *, directory: bool) -> None:
    """Remove links and files that are in the way of a directory or a file of ours."""
    parent = os.path.dirname(path)
    wanted = {parent: stat.S_IFDIR, path: stat.S_IFDIR if directory else stat.S_IFREG}
    for place, kind in wanted.items():
        try:
            found = stat.S_IFMT(os.lstat(place).st_mode)
        except FileNotFoundError:
            return
        if found not in (kind, stat.S_IFDIR):
            os.unlink(place)


def _make(path: str, *, directory: bool) -> None:
    if directory:
        os.makedirs(path, mode=0o755, exist_ok=True)
    elif not os.path.lexists(path):
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644))


def _check(fd: int, path: str, *, proc: bool) -> None:
    if path == "/":
        raise InvalidArgument("invalid specification: destination can't be '/'")
    if proc:
        return
    if path == "/proc":
        raise InvalidArgument('"/proc" cannot be mounted because it is not of type proc')
    if mounts.filesystem_type(fd) == mounts.PROC_MAGIC and not _may_be_covered(fd):
        raise InvalidArgument(f'"{path}" cannot be mounted because it is inside /proc')


def _may_be_covered(fd: int) -> bool:
    place = os.fstat(fd)
    for path in IN_PROC:
        try:
            if os.path.samestat(place, os.stat(path)):
                return True
        except FileNotFoundError:
            continue
    return False
