"""A directory tree made again in another: files, links, owners, modes, times, attributes.

Both are descriptors. The kernel opens every directory below its own, and takes every last name as it is:
whatever is in the two, nothing outside of them is reached.
"""

from __future__ import annotations

import os
import stat

from berth.kernel.filecopies import FileCopies
from berth.kernel.mounts import open_in_root
from berth.runtime import fileattributes
from berth.runtime.fileattributes import Facts
from berth.runtime.removal import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    Place = tuple[int, str]  # an open directory, and a name in it

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_SOURCE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_TARGET = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class TreeCopy:
    """Copies from the directory ``source`` into the directory ``target``, which both stay the caller's.

    Names of one file are names of one file again; data is shared where the file system can, and holes stay
    holes. What is in the way goes, but directories come into those that are there. Sockets are left out. The
    working directory is this object's while it works.
    """

    def __init__(self, source: int, target: int) -> None:
        self._source = source
        self._target = target
        self._copies = FileCopies()
        self._first: dict[tuple[int, int], tuple[str, str]] = {}  # where a file was copied to
        self.at = ""  # the directory that is being copied

    # What users of this class say otherwise

    def names(self, source: int, target: int, path: str) -> Iterable[str]:
        """Return what is taken from the directory ``path``, which is open as ``source``."""
        del target, path
        return os.listdir(source)

    def facts(self, status: os.stat_result) -> Facts:
        """Return whose and how the copy of a file is to be."""
        return Facts(status)

    def finish(self, path: str, into: str) -> None:
        """Make the directory ``into`` like ``path``, when nothing comes into it any more."""
        source, target = self._open(path, into, os.O_NOFOLLOW)
        try:
            self.liken(source, target)
        finally:
            os.close(source)
            os.close(target)

    def liken(self, source: int, target: int) -> None:
        """Make one open directory like another; further extended attributes that it has stay."""
        facts = self.facts(os.fstat(source))
        fileattributes.give(target, facts, fileattributes.read(source))

    # Trees

    def whole(self) -> None:
        """Make the target what the source is."""
        self.tree()
        self.finish("", "")

    def tree(self, path: str = "", into: str = "") -> None:
        """Copy what is in the directory ``path`` into ``into``, which may be links to directories.

        The two themselves are not made alike.
        """
        folders = self._folder(path, into, 0)
        for inner in folders:
            folders += self._folder(*inner, os.O_NOFOLLOW)
        for inner in reversed(folders):
            self.finish(*inner)

    def _open(self, path: str, into: str, flags: int) -> tuple[int, int]:
        source = open_in_root(self._source, path, DIRECTORY | flags)
        try:
            return source, open_in_root(self._target, into, DIRECTORY | flags)
        except BaseException:
            os.close(source)
            raise

    def _folder(self, path: str, into: str, flags: int) -> list[tuple[str, str]]:
        """Copy what is in one directory; return the directories in it, which are empty yet."""
        self.at = path
        source, target = self._open(path, into, flags)
        found = []
        try:
            for name in self.names(source, target, path):
                status = os.stat(name, dir_fd=source, follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    make_directory(name, target)
                    found.append((joined(path, name), joined(into, name)))
                else:
                    self.entry((source, name), (target, name), status, into)
            return found
        finally:
            os.close(source)
            os.close(target)

    # What is no directory

    def entry(self, source: Place, target: Place, status: os.stat_result, into: str) -> None:
        """Copy what is no directory; ``into`` is the path of the target's."""
        if stat.S_ISSOCK(status.st_mode) or self._is_linked(target, status, into):
            return
        make = self._regular if stat.S_ISREG(status.st_mode) else self._special
        try:
            make(source, target, status)
        except FileExistsError:
            remove(*target)
            make(source, target, status)

    def forget_links(self) -> None:
        """Make no links to what was copied until now."""
        self._first.clear()

    def _is_linked(self, target: Place, status: os.stat_result, into: str) -> bool:
        """Make a further name of a file that was copied a link."""
        if status.st_nlink < 2:
            return False
        here = (into, target[1])
        folder, name = self._first.setdefault((status.st_dev, status.st_ino), here)
        if (folder, name) == here:
            return False
        above = open_in_root(self._target, folder, DIRECTORY)
        try:
            make_link((above, name), target)
        finally:
            os.close(above)
        return True

    def _regular(self, source: Place, target: Place, status: os.stat_result) -> None:
        folder, name = source
        facts = self.facts(status)
        inner = os.open(name, _SOURCE, dir_fd=folder)
        try:
            outer = os.open(target[1], _TARGET, facts.mode & 0o777, dir_fd=target[0])
            try:
                self._copies.copy(inner, outer, status.st_size)
                fileattributes.give(outer, facts, fileattributes.read(inner))
            finally:
                os.close(outer)
        finally:
            os.close(inner)

    def _special(self, source: Place, target: Place, status: os.stat_result) -> None:
        """Copy a symbolic link, device or fifo."""
        (folder, name), (parent, leaf) = source, target
        if stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink(name, dir_fd=folder), leaf, dir_fd=parent)
        else:
            make_node(leaf, status.st_mode, status.st_rdev, parent)
        os.fchdir(folder)  # there is no call that takes a directory and a name
        if found := fileattributes.read(name):
            os.fchdir(parent)
            fileattributes.write(leaf, found)
        fileattributes.give_name(leaf, self.facts(status), folder=parent)


def joined(folder: str, name: str) -> str:
    """Return the path of ``name`` in ``folder``, which may be empty."""
    return f"{folder}/{name}" if folder else name


def remove(folder: int, name: str) -> None:
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


def make_node(name: str, mode: int, number: int, folder: int) -> None:
    """Make a device or fifo, with its mode from the start, see `fileattributes.give_name`."""
    mask = os.umask(0)
    try:
        os.mknod(name, mode, number, dir_fd=folder)
    finally:
        os.umask(mask)


def make_link(source: Place, target: Place) -> None:
    """Make ``target`` a hard link to ``source``, instead of what is there."""
    (folder, name), (parent, leaf) = source, target
    how = {"src_dir_fd": folder, "dst_dir_fd": parent}
    try:
        os.link(name, leaf, **how, follow_symlinks=False)
    except FileExistsError:
        remove(parent, leaf)
        os.link(name, leaf, **how, follow_symlinks=False)
