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


def open_place(path: str, *, directory: bool, proc: bool = False, clear: bool = True) -> int:
    """Return a descriptor of the place ``path``; ``proc`` says that a proc is to be mounted there.

    ``clear``: what is in the way of a place that is berth's own goes.
    """
    fd = _open_fitting(path, directory=directory) if clear and _is_own(path) else open_plain(path)
    if fd is None:
        fd = _make_beside(path, directory=directory)
    if fd is None:
        path = os.path.realpath(path)  # noqa: TID251 - this is inside the root
        _make(path, directory=directory)
        fd = mounts.open_without_links(path, os.O_PATH)
    try:
        _check(fd, path, proc=proc)
    except BaseException:
        os.close(fd)
        raise
    return fd


def open_below(base: str, subpath: str, *, recursive: bool = False, is_root: bool = False) -> int:
    """Return a detached mount of ``base``, or of what is at ``subpath`` below it, where no link leads out.

    ``is_root``: for links it is the root; else one that leads out is refused.
    """
    folder = os.open(base, os.O_PATH | os.O_CLOEXEC)
    place = folder
    try:
        if subpath:
            open_part = mounts.open_in_root if is_root else mounts.open_beneath
            place = open_part(folder, subpath, os.O_PATH)
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
    """Open ``path`` itself; None when it is missing or there is a symbolic link in it.

    A link to /proc/self/fd/N leads out of a root that was not pivoted to yet, and to descriptors of ours.
    """
    try:
        return mounts.open_without_links(path, os.O_PATH)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
        return None


def open_final(path: str) -> int | None:
    """Open ``path``, links on the way to it followed; None when it is missing or a link itself."""
    try:
        return mounts.open_without_links(path, os.O_PATH)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        if error.errno != errno.ELOOP:
            raise
    folder = os.path.realpath(os.path.dirname(path))  # noqa: TID251 - this is inside the root
    return open_plain(f"{folder.rstrip('/')}/{os.path.basename(path)}")


def open_mounted(path: str) -> int:
    """Open the root of what was just mounted at ``path``, by the way its place was found."""
    return mounts.open_without_links(
        os.path.realpath(path),  # noqa: TID251 - this is inside the root
        os.O_PATH,
    )


def open_parent(path: str) -> int:
    """Open the directory that ``path`` is in, made when it is missing."""
    fd = open_plain(os.path.dirname(path))
    if fd is not None:
        return fd
    parent = os.path.realpath(os.path.dirname(path))  # noqa: TID251 - this is inside the root
    return make_directory(parent)


def make_directory(path: str) -> int:
    """Make a directory and those above it, following no link; return its descriptor."""
    fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    for name in path.strip("/").split("/") if path != "/" else ():
        try:
            os.mkdir(name, 0o755, dir_fd=fd)
        except FileExistsError:
            pass
        except OSError:  # read-only, or a proc: then it must be there
            if not os.access(name, os.F_OK, dir_fd=fd, follow_symlinks=False):
                raise
        flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
        below = os.open(name, flags, dir_fd=fd)
        os.close(fd)
        fd = below
    return fd


def _is_own(path: str) -> bool:
    return path in OWN_DIRECTORIES or path in OWN_FILES


def _open_fitting(path: str, *, directory: bool) -> int | None:
    """Open a place of ours; None when it is missing, and links and files in its way are gone then."""
    fd = open_plain(path)
    if fd is not None:
        kind = stat.S_IFMT(os.fstat(fd).st_mode)
        if kind == stat.S_IFDIR or (kind == stat.S_IFREG and not directory):
            return fd
        os.close(fd)
    _clear(path, directory=directory)
    return None


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


def _make_beside(path: str, *, directory: bool) -> int | None:
    """Make what is missing in a directory that is there, no link on the way; None when it is not so."""
    parent, _, name = path.rpartition("/")
    folder = open_plain(parent or "/")
    if folder is None:
        return None
    try:
        if directory:
            os.mkdir(name, 0o755, dir_fd=folder)
        else:
            flags = os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
            os.close(os.open(name, flags, 0o644, dir_fd=folder))
        return os.open(name, os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=folder)
    except OSError:  # it is there: a link; or the other way says why not
        return None
    finally:
        os.close(folder)


def _make(path: str, *, directory: bool) -> None:
    if directory and not os.path.lexists(path):
        os.close(make_directory(path))
    elif not os.path.lexists(path):
        parent = make_directory(os.path.dirname(path))
        flags = os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        os.close(os.open(os.path.basename(path), flags, 0o644, dir_fd=parent))
        os.close(parent)


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
