"""Directory trees into tar streams, with owners, modes, times, attributes, devices and hard links.

Read through directory descriptors below one root, by the kernel's rules inside it. What disappears
meanwhile is left out; a file that shrinks is filled up with zeros.
"""

from __future__ import annotations

import errno
import os
import select
import stat
import time
from collections import OrderedDict
from typing import TYPE_CHECKING

from berth.images import tar
from berth.images.layer import write_all
from berth.images.tar_writer import new_member
from berth.kernel.mounts import filesystem_type, open_in_root
from berth.runtime import fileattributes
from berth.snapshots.whiteouts import OPAQUE, WHITEOUT, is_opaque, is_whiteout

if TYPE_CHECKING:
    from collections.abc import Callable

    from berth.images.tar_writer import TarWriter

COPY_BYTES = 1 << 20
PATIENCE_S, FIRST_PAUSE_S, LAST_PAUSE_S = 60.0, 0.01, 0.5
OPEN_DIRECTORIES = 16
KINDS = {
    stat.S_IFLNK: tar.SYMLINK,
    stat.S_IFCHR: tar.CHARACTER,
    stat.S_IFBLK: tar.BLOCK_DEVICE,
    stat.S_IFDIR: tar.DIRECTORY,
    stat.S_IFIFO: tar.FIFO,
}
# File systems whose files are views of the kernel (statfs(2), linux/magic.h): some have no end, some wait.
VIEWS = frozenset(
    (
        *(0x9FA0, 0x62656572, 0x27E0EB, 0x63677270, 0x64626720, 0x74726163, 0x73636673),
        *(0x1CD1, 0x19800202, 0xCAFE4A11, 0x62656570, 0x6165676C, 0xDE5E81E4, 0x42494E4D),
    )
)
GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)  # or replaced since its directory was read
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def joined(folder: str, name: str) -> str:
    """Return the path of ``name`` in ``folder``, which may be empty or end with a slash."""
    return f"{folder}{name}" if not folder or folder.endswith("/") else f"{folder}/{name}"


class FileSink:
    """A tar stream that goes to a descriptor: a pipe, a socket or a file."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def write(self, data: bytes) -> None:
        """Write every byte."""
        write_all(self._fd, data)

    def copy(self, fd: int, size: int) -> None:
        """Let the kernel copy, which is quicker than reading and writing."""
        while size and (done := os.sendfile(self._fd, fd, None, min(size, COPY_BYTES))):
            size -= done
        fill_up(self, size)


def fill_up(sink: FileSink, size: int) -> None:
    """Write zeros for what a file had no more."""
    while size:
        piece = min(size, COPY_BYTES)
        sink.write(bytes(piece))
        size -= piece


def _open_file(leaf: str, folder: int) -> int:
    """Open a file, which may be a FIFO by now, to be read.

    One with a lease (fcntl(2)) is waited for, as without O_NONBLOCK: the kernel gives its holder 45 seconds.
    """
    pause_s, end = FIRST_PAUSE_S, time.monotonic() + PATIENCE_S
    while True:
        try:
            return os.open(leaf, _FILE, dir_fd=folder)
        except BlockingIOError:
            if time.monotonic() > end:
                raise
        select.select((), (), (), pause_s)
        pause_s = min(2 * pause_s, LAST_PAUSE_S)


class Packer:
    """Packs trees below the directory ``root`` (a descriptor, the caller's) into one archive.

    The working directory is this object's while it works. ``layer``: whiteouts of an image layer are
    made, of those that ``root`` has as an overlay's upper directory, or of the names that ``hidden`` says
    are no more in a directory. ``skips``: paths not to be packed, with all below them. ``passes``:
    directories not to be packed themselves.
    """

    def __init__(
        self,
        root: int,
        writer: TarWriter,
        *,
        layer: bool = False,
        skips: Callable[[str, os.stat_result], bool] = lambda _path, _status: False,
        hidden: Callable[[str], list[str]] | None = None,
        passes: Callable[[str], bool] = lambda _path: False,
    ) -> None:
        self._root = root
        self._writer = writer
        self._finds_whiteouts = layer and hidden is None
        self._skips = skips
        self._hidden = hidden
        self._passes = passes
        self._folders: OrderedDict[str, int] = OrderedDict()  # open ones
        self._links: dict[tuple[int, int], str] = {}

    def tree(self, path: str, name: str) -> None:
        """Pack ``path`` and all below it as ``name``; an empty name packs only what is below."""
        pending = [(path, name)]
        try:
            while pending:
                path, name = pending.pop()
                children = self._entry(path, name)
                pending += [
                    (joined(path, child), joined(name, child))
                    for child in sorted(children, reverse=True)
                ]
        finally:
            self._close()

    def _close(self) -> None:
        while self._folders:
            os.close(self._folders.popitem()[1])

    def _folder(self, path: str) -> int:
        """Return the open directory ``path``; a few are kept open."""
        fd = self._folders.get(path)
        if fd is None:
            while len(self._folders) >= OPEN_DIRECTORIES:
                os.close(self._folders.popitem(last=False)[1])
            fd = self._folders[path] = open_in_root(self._root, path, _DIRECTORY)
        self._folders.move_to_end(path)
        return fd

    def _entry(self, path: str, name: str) -> list[str]:
        """Pack one file; return the names in it when it is a directory."""
        try:
            folder, leaf = self._folder(path.rpartition("/")[0]), path.rpartition("/")[2] or "."
            status = os.stat(leaf, dir_fd=folder, follow_symlinks=False)
            if self._skips(path, status) or stat.S_ISSOCK(status.st_mode):
                return []
            if self._finds_whiteouts and is_whiteout(status):
                self._white_out(name, status)
                return []
            if stat.S_ISDIR(status.st_mode):
                return self._directory(path, name, status)
            self._file(folder, leaf, name, status)
        except OSError as error:
            if error.errno not in GONE:
                raise
        return []

    def _directory(self, path: str, name: str, status: os.stat_result) -> list[str]:
        fd = self._folder(path)
        opaque = False
        if name and not self._passes(path):
            member = new_member(joined(name, ""), tar.DIRECTORY, status)
            member.xattrs = fileattributes.read(fd)
            self._writer.add(member)
            opaque = self._finds_whiteouts and is_opaque(fd)
        if opaque:
            self._white_out(joined(name, ""), status, marker=OPAQUE)
        for gone in sorted(self._hidden(path)) if self._hidden else ():
            self._white_out(joined(name, gone), status)
        return [] if filesystem_type(fd) in VIEWS else os.listdir(fd)

    def _white_out(self, name: str, status: os.stat_result, *, marker: str = "") -> None:
        folder, slash, leaf = name.rpartition("/")
        member = new_member(f"{folder}{slash}{marker or WHITEOUT + leaf}", tar.REGULAR, status)
        member.mode = 0o600
        self._writer.add(member)

    def _file(self, folder: int, leaf: str, name: str, status: os.stat_result) -> None:
        if self._is_linked(name, status):
            return
        if stat.S_ISREG(status.st_mode):
            self._regular(folder, leaf, name)
            return
        member = new_member(name, KINDS[stat.S_IFMT(status.st_mode)], status)
        if member.kind == tar.SYMLINK:
            member.linkname = os.readlink(leaf, dir_fd=folder)
        os.fchdir(folder)  # there is no call that takes a directory and a name
        member.xattrs = fileattributes.read(leaf)
        self._writer.add(member)

    def _is_linked(self, name: str, status: os.stat_result) -> bool:
        """Pack a further name of a file that was packed."""
        if status.st_nlink < 2:
            return False
        first = self._links.setdefault((status.st_dev, status.st_ino), name)
        if first == name:
            return False
        member = new_member(name, tar.LINK, status)
        member.linkname = first
        self._writer.add(member)
        return True

    def _regular(self, folder: int, leaf: str, name: str) -> None:
        fd = _open_file(leaf, folder)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                return  # replaced a moment ago
            member = new_member(name, tar.REGULAR, status)
            member.size = status.st_size
            member.xattrs = fileattributes.read(fd)
            self._writer.add_file(member, fd)
        finally:
            os.close(fd)
