"""The directories of layers made one tree: a job confined to the directory that has them.

Nothing in a layer is followed: every directory is opened below its own root, every last name as it is.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from berth.errors import Failed
from berth.kernel.filecopies import FileCopies
from berth.kernel.mounts import open_in_root
from berth.runtime.worker import FILE_CAPABILITIES, confine
from berth.snapshots import attributes
from berth.snapshots.removal import remove_tree
from berth.snapshots.whiteouts import META, OPAQUE, WHITEOUT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Report = Callable[[Mapping[str, object]], None]

# To read what its owner may not, and for trusted.* attributes.
CAPABILITIES = (*FILE_CAPABILITIES, "CAP_DAC_READ_SEARCH", "CAP_SYS_ADMIN")
# What file systems say that have no hard links, or not so many of one file.
UNLINKABLE = (errno.EMLINK, errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV)
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_SOURCE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_TARGET = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def merge(argument: dict[str, object], fds: list[int], report: Report) -> Mapping[str, object]:
    """Make the new directory ``target`` what ``layers`` are together, the lowest first.

    All are paths below ``fds[0]``. With ``link`` files are hard links of the layers', which nobody may change
    then; else they are copies.
    """
    del report
    target, layers = str(argument["target"]), argument["layers"]
    assert isinstance(layers, list)
    os.umask(0)
    confine(fds[0], keep_capabilities=CAPABILITIES)
    os.mkdir(f"/{target}", 0o700)
    root = os.open(f"/{target}", _DIRECTORY)
    for layer in layers:
        Merge(os.open(f"/{layer}", _DIRECTORY), root, link=bool(argument["link"])).run()
    return {}


class Merge:
    """One layer, and the tree that it comes into. The working directory is this object's while it works."""

    def __init__(self, layer: int, root: int, *, link: bool) -> None:
        self._layer = layer
        self._root = root
        self._link = link
        self._copies = FileCopies()
        self._first: dict[
            int, tuple[str, str]
        ] = {}  # where a file with several names was copied to

    def run(self) -> None:
        """Do all of it. Failed names what could not be made."""
        folders = [""]
        for folder in folders:
            try:
                folders += self._folder(folder)
            except OSError as error:
                what = os.strerror(error.errno or 0).lower()
                raise Failed(f"copy layer: in {folder[:200]!r}: {what}") from error
        for folder in reversed(folders):  # what comes into a directory changes its time
            source, target = self._open(folder)
            attributes.copy_all(source, target)
            os.close(source)
            os.close(target)

    def _open(self, folder: str) -> tuple[int, int]:
        source = open_in_root(self._layer, folder, _DIRECTORY)
        return source, open_in_root(self._root, folder, _DIRECTORY)

    def _folder(self, folder: str) -> list[str]:
        """Take what is in one directory; return the directories in it."""
        source, target = self._open(folder)
        try:
            names = os.listdir(source)
            self._hide(names, target)
            found = []
            for name in names:
                if name.startswith(WHITEOUT):
                    continue
                if self._entry(name, source, target, folder):
                    found.append(f"{folder}/{name}" if folder else name)
            return found
        finally:
            os.close(source)
            os.close(target)

    def _hide(self, names: list[str], target: int) -> None:
        if OPAQUE in names:
            for name in os.listdir(target):
                remove(name, target)
        for name in names:
            if name.startswith(WHITEOUT) and not name.startswith(META):
                remove(name.removeprefix(WHITEOUT), target)

    def _entry(self, name: str, source: int, target: int, folder: str) -> bool:
        """Take one name; say whether it is a directory, whose files and attributes come later."""
        status = os.stat(name, dir_fd=source, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            make_directory(name, target)
            return True
        if self._link:
            try:
                link(name, source, name, target)
            except OSError as error:
                if error.errno not in UNLINKABLE:
                    raise
            else:
                return False
        self._copy(name, status, (source, target), folder)
        return False

    def _copy(
        self, name: str, status: os.stat_result, folders: tuple[int, int], folder: str
    ) -> None:
        source, target = folders
        if status.st_nlink > 1:
            above, first = self._first.setdefault(status.st_ino, (folder, name))
            if (above, first) != (folder, name):
                other = open_in_root(self._root, above, _DIRECTORY)
                try:
                    link(first, other, name, target)
                finally:
                    os.close(other)
                return
        try:
            self._copy_entry(name, status, source, target)
        except FileExistsError:
            remove(name, target)
            self._copy_entry(name, status, source, target)

    def _copy_entry(self, name: str, status: os.stat_result, source: int, target: int) -> None:
        if not stat.S_ISREG(status.st_mode):
            copy_special(name, status, source, target)
            return
        inner = os.open(name, _SOURCE, dir_fd=source)
        try:
            outer = os.open(name, _TARGET, status.st_mode & 0o777, dir_fd=target)
            try:
                self._copies.copy(inner, outer, status.st_size)
                attributes.complete(outer, status, attributes.read(inner))
            finally:
                os.close(outer)
        finally:
            os.close(inner)


def remove(name: str, folder: int) -> None:
    """Remove what is at ``name`` in a directory, whatever it is; nothing when nothing is."""
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        return
    except IsADirectoryError:
        remove_tree(name, dir_fd=folder)


def make_directory(name: str, folder: int) -> None:
    """Make a directory, or leave the one that is there."""
    try:
        os.mkdir(name, 0o700, dir_fd=folder)
    except FileExistsError:
        if not stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=folder)
            os.mkdir(name, 0o700, dir_fd=folder)


def link(name: str, source: int, leaf: str, target: int) -> None:
    """Make ``leaf`` in ``target`` a hard link to ``name`` in ``source``, instead of what is there."""
    how = {"src_dir_fd": source, "dst_dir_fd": target}
    try:
        os.link(name, leaf, **how, follow_symlinks=False)
    except FileExistsError:
        remove(leaf, target)
        os.link(name, leaf, **how, follow_symlinks=False)


def copy_special(name: str, status: os.stat_result, source: int, target: int) -> None:
    """Copy a symbolic link, device or fifo. FileExistsError when something is there."""
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
    else:
        os.mknod(name, status.st_mode, status.st_rdev, dir_fd=target)
    os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
    _copy_xattrs_of(name, source, target)
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=target)  # just made: no symbolic link
    times = (status.st_atime_ns, status.st_mtime_ns)
    os.utime(name, ns=times, dir_fd=target, follow_symlinks=False)


def _copy_xattrs_of(name: str, source: int, target: int) -> None:
    """Copy attributes of what cannot be opened; there is no call that takes a directory and a name."""
    os.fchdir(source)
    found = attributes.read(name)
    if found:
        os.fchdir(target)
        attributes.write(name, found)
