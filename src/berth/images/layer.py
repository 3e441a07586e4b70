"""Extracting a layer into a directory, with overlayfs's whiteouts or plain files for them.

Every parent is opened by openat2(2) inside the
root, and the last component is never followed, so nothing outside is reached whatever the archive says;
the worker is chrooted besides.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from berth.errors import Failed, InvalidArgument
from berth.images import tar
from berth.kernel.mounts import open_in_root
from berth.runtime import fileattributes
from berth.runtime.removal import remove_tree
from berth.snapshots.whiteouts import (
    META,
    OPAQUE,
    OPAQUE_XATTR,
    WHITEOUT,
    is_whiteout,
    make_marker,
    make_opaque,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from berth.images.streams import Bytes
    from berth.images.tar import Member, TarReader

OPEN_DIRECTORIES = 64
REPORT_BYTES = 4 << 20
SPECIAL_BITS = 0o7000
# Refusals that an archive brings on itself.
ITS_FAULT = (
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENOENT,
    errno.EEXIST,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.EINVAL,
    errno.EXDEV,
    errno.EMLINK,
    errno.EFBIG,
    errno.EPERM,
)

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def clean(name: str) -> str:
    """Return a member's path below the root: no ``.``, ``..`` or empty components; "" is the root."""
    path = name.strip("/")
    if path.startswith("./"):
        path = path[2:]
    if "/." not in path and "//" not in path and not path.startswith("."):
        return path
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            if not parts:
                if name.startswith("/"):
                    continue  # "/.." is "/"
                raise InvalidArgument(f"{name[:200]!r} is outside of the root")
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


class Extractor:
    """Extracts members below the directory ``root``, a descriptor that stays the caller's.

    The umask must be 0, and the working directory is this object's while it works. With ``layer`` there
    are whiteouts, ``plain`` ones or overlayfs's, and the archive may say what the root itself is like.
    """

    def __init__(
        self, root: int, report: Callable[[], None], *, layer: bool = True, plain: bool = False
    ) -> None:
        self._root = root
        self._report = report
        self._layer = layer
        self._plain = plain
        self._parents: dict[str, int] = {}  # open directories
        self._directories: dict[str, Member] = {}  # what they get at the end
        self.size_bytes = 0  # of the files, as Docker counts layers
        self._reported = 0

    @property
    def has_root(self) -> bool:
        """Whether the archive said what the root itself is like."""
        return "" in self._directories

    def extract(self, reader: TarReader) -> None:
        """Extract everything. InvalidArgument or Failed names the member; what is there stays."""
        name = ""
        try:
            for member in reader:
                name = member.name
                self._extract(reader, member)
                if self.size_bytes - self._reported >= REPORT_BYTES:
                    self._reported = self.size_bytes
                    self._report()
            self._finish_directories()
        except OSError as error:
            kind = InvalidArgument if error.errno in ITS_FAULT else Failed
            raise kind(
                f"extract {name[:200]!r}: {os.strerror(error.errno or 0).lower()}"
            ) from error
        finally:
            self._forget_parents()

    def path_of(self, name: str) -> str:
        """Return the path below the root of a member, or of what a hard link leads to."""
        return clean(name)

    def prepare(self, member: Member, parent: int, leaf: str) -> None:
        """Change a member before it is extracted at ``leaf``, or refuse it. Here: nothing."""

    def _extract(self, reader: TarReader, member: Member) -> None:
        path = self.path_of(member.name)
        folder, _, leaf = path.rpartition("/")
        if not path:
            if member.kind == tar.DIRECTORY and self._layer:
                self._directories[""] = member
            return
        parent = self._parents.get(folder)
        if parent is None:
            parent = self._open_parent(folder)
        self.prepare(member, parent, leaf)
        if self._layer and leaf.startswith(WHITEOUT):
            self._white_out(parent, leaf, member)
        elif member.kind == tar.REGULAR:
            self._file(reader, member, parent, leaf)
        elif member.kind == tar.DIRECTORY:
            self._directory(member, parent, leaf, path)
        elif member.kind == tar.LINK:
            self._hard_link(member, parent, leaf)
        else:
            self._special(member, parent, leaf)

    # Parents

    def _open_parent(self, folder: str) -> int:
        """Open a directory inside the root, making what is missing; keeps it open for its neighbours."""
        if len(self._parents) >= OPEN_DIRECTORIES:
            self._forget_parents()
        try:
            fd = open_in_root(self._root, folder, _DIRECTORY)
        except FileNotFoundError:
            self._make_parents(folder)
            fd = open_in_root(self._root, folder, _DIRECTORY)
        self._parents[folder] = fd
        return fd

    def _make_parents(self, folder: str) -> None:
        """Make the directories on the way to ``folder`` and itself."""
        path = ""
        for part in folder.split("/") if folder else ():
            parent = open_in_root(self._root, path, _DIRECTORY)
            try:
                with suppress(
                    FileExistsError
                ):  # also a link that leads nowhere: opening it says so
                    os.mkdir(part, 0o755, dir_fd=parent)
            finally:
                os.close(parent)
            path = f"{path}/{part}" if path else part

    def _forget_parents(self) -> None:
        for fd in self._parents.values():
            os.close(fd)
        self._parents.clear()

    def _clear(self, parent: int, leaf: str) -> bool:
        """Remove what an earlier member put at ``leaf``; say whether it was a whiteout."""
        status = os.stat(leaf, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            remove_tree(leaf, dir_fd=parent)
        else:
            os.unlink(leaf, dir_fd=parent)
        if stat.S_ISDIR(status.st_mode) or stat.S_ISLNK(status.st_mode):
            # Paths that led through it lead elsewhere now; the caller's descriptor goes on.
            kept = {path: fd for path, fd in self._parents.items() if fd == parent}
            for path, fd in list(self._parents.items()):
                if path not in kept:
                    os.close(fd)
            self._parents = kept
        return is_whiteout(status)

    # Kinds of members

    def _file(self, reader: TarReader, member: Member, parent: int, leaf: str) -> None:
        mode = member.mode & 0o777
        try:
            fd = os.open(leaf, _NEW_FILE, mode, dir_fd=parent)
        except FileExistsError:
            self._clear(parent, leaf)
            fd = os.open(leaf, _NEW_FILE, mode, dir_fd=parent)
        try:
            if member.regions is not None:
                self._sparse_data(reader, member, fd)
            elif member.size <= tar.PIECE_BYTES:
                if member.size:
                    write_all(fd, reader.read_data(member.size))
            else:
                self._long_data(reader, member, fd)
            if member.uid or member.gid or not self._layer:  # its directory may pass on a group
                os.chown(fd, member.uid, member.gid)
            if member.mode & SPECIAL_BITS:
                os.chmod(fd, member.mode)
            if member.xattrs:
                fileattributes.write(fd, member.xattrs)
            os.utime(fd, ns=(member.mtime_ns, member.mtime_ns))
        finally:
            os.close(fd)
        self.size_bytes += member.size

    def _long_data(self, reader: TarReader, member: Member, fd: int) -> None:
        unreported = 0
        for piece in reader.pieces(member.size):
            write_all(fd, piece)
            unreported += len(piece)
            if unreported >= REPORT_BYTES:
                unreported = 0
                self._report()

    def _sparse_data(self, reader: TarReader, member: Member, fd: int) -> None:
        os.ftruncate(fd, member.real_size)
        for offset, size in member.regions or ():
            os.lseek(fd, offset, os.SEEK_SET)
            for piece in reader.pieces(size):
                write_all(fd, piece)

    def _directory(self, member: Member, parent: int, leaf: str, path: str) -> None:
        try:
            os.mkdir(leaf, 0o700, dir_fd=parent)
        except FileExistsError:
            status = os.stat(leaf, dir_fd=parent, follow_symlinks=False)
            if not stat.S_ISDIR(status.st_mode):
                hides = self._clear(parent, leaf)
                os.mkdir(leaf, 0o700, dir_fd=parent)
                if hides:
                    make_opaque(parent, leaf)
        self._directories[path] = member

    def _hard_link(self, member: Member, parent: int, leaf: str) -> None:
        folder, _, name = self.path_of(member.linkname).rpartition("/")
        if not name:
            raise InvalidArgument(f"hard link {member.name[:200]!r} to the root")
        source = open_in_root(self._root, folder, os.O_PATH | os.O_DIRECTORY)
        try:
            try:
                make_link(source, name, parent, leaf)
            except FileExistsError:
                if same_file((name, leaf), (source, parent)):
                    return
                self._clear(parent, leaf)
                make_link(source, name, parent, leaf)
        finally:
            os.close(source)

    def _special(self, member: Member, parent: int, leaf: str) -> None:
        try:
            make_special(member, parent, leaf)
        except FileExistsError:
            self._clear(parent, leaf)
            make_special(member, parent, leaf)
        if member.uid or member.gid or not self._layer:
            os.chown(leaf, member.uid, member.gid, dir_fd=parent, follow_symlinks=False)
        if member.kind != tar.SYMLINK and member.mode & SPECIAL_BITS:
            os.chmod(leaf, member.mode, dir_fd=parent)  # just made: no symbolic link
        if member.xattrs:
            os.fchdir(parent)  # there is no call that takes a directory and a name
            fileattributes.write(leaf, member.xattrs)
        times = (member.mtime_ns, member.mtime_ns)
        os.utime(leaf, ns=times, dir_fd=parent, follow_symlinks=False)

    def _white_out(self, parent: int, leaf: str, member: Member) -> None:
        if leaf.startswith(META) and leaf != OPAQUE:
            return
        hidden = leaf.removeprefix(WHITEOUT)
        if hidden in ("", ".", ".."):
            raise InvalidArgument(f"{member.name[:200]!r} is not a whiteout")
        if self._plain:
            make_marker(parent, leaf)
            return
        if leaf == OPAQUE:
            os.setxattr(parent, OPAQUE_XATTR, b"y")
            return
        try:
            os.mknod(hidden, stat.S_IFCHR, 0, dir_fd=parent)
        except FileExistsError:
            # It hides what is below this layer, not what the layer itself has.
            status = os.stat(hidden, dir_fd=parent, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                make_opaque(parent, hidden)

    # The end

    def _finish_directories(self) -> None:
        """Give directories what would have changed, or hindered, while they were filled."""
        for path, member in self._directories.items():
            try:
                fd = open_in_root(self._root, path, _DIRECTORY | os.O_NOFOLLOW)
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                    raise
                continue  # replaced by a later member
            try:
                if member.uid or member.gid or not path or not self._layer:
                    os.chown(fd, member.uid, member.gid)
                os.chmod(fd, member.mode)
                if member.xattrs:
                    fileattributes.write(fd, member.xattrs)
                os.utime(fd, ns=(member.mtime_ns, member.mtime_ns))
            finally:
                os.close(fd)


def make_special(member: Member, parent: int, leaf: str) -> None:
    """Make a symbolic link, device or fifo."""
    mode = member.mode & 0o777
    if member.kind == tar.SYMLINK:
        os.symlink(member.linkname, leaf, dir_fd=parent)
    elif member.kind == tar.FIFO:
        os.mkfifo(leaf, mode, dir_fd=parent)
    else:
        kind = stat.S_IFCHR if member.kind == tar.CHARACTER else stat.S_IFBLK
        os.mknod(leaf, kind | mode, os.makedev(member.major, member.minor), dir_fd=parent)


def make_link(source: int, name: str, parent: int, leaf: str) -> None:
    """Make ``leaf`` in ``parent`` a hard link to ``name`` in ``source``."""
    os.link(name, leaf, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)


def same_file(names: tuple[str, str], folders: tuple[int, int]) -> bool:
    """Say whether two names are links of one file."""
    one, other = (
        os.stat(name, dir_fd=folder, follow_symlinks=False)
        for name, folder in zip(names, folders, strict=True)
    )
    return os.path.samestat(one, other)


def write_all(fd: int, data: Bytes) -> None:
    """Write every byte."""
    written = os.write(fd, data)
    while written < len(data):
        written += os.write(fd, memoryview(data)[written:])
