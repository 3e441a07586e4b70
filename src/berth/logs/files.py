"""The files of one log: ``path`` is written, ``path.1`` came before it, ``path.2`` before that."""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from berth.logs.formats import BLOCK_BYTES, JSON_LINES
from berth.runtime.logfile import PACKED

if TYPE_CHECKING:
    from berth.logs.formats import Format

FLAGS = os.O_RDONLY | os.O_CLOEXEC
GZIP = 31  # zlib's window bits for a gzip header
HEAD_BYTES = 4096  # as many tell files apart
HOLES = 3  # names in a row that nothing has: there is nothing older


class LogFiles:
    """Reads a log in order, oldest file first, across rotations. Close it.

    The writer never changes what it wrote; a rotation moves names and leaves files as they are, or packs
    them.
    """

    def __init__(self, path: Path, format_: Format = JSON_LINES) -> None:
        self._path = os.fspath(path)
        self._format = format_
        self._files = _open_all(self._path)
        self._rest = b""
        self.surplus = 0  # entries at the position that are not wanted

    @property
    def needs_unpacking(self) -> bool:
        """Say whether :meth:`unpack` has something to do, which takes a while."""
        return any(file.packed for file in self._files)

    def unpack(self) -> None:
        """Unpack what is packed, to be read next."""
        for file in self._files:
            file.unpack()

    def seek_tail(self, count: int) -> None:
        """Go on with the last ``count`` entries, once ``surplus`` are left out."""
        kept: list[LogFile] = []
        while self._files:
            file = self._files.pop()
            kept.insert(0, file)
            file.unpack()
            missing = self._format.seek(file.fd, count)
            if missing <= 0:
                self.surplus = -missing
                break
            count = missing
        for file in self._files:
            file.close()
        self._files = kept

    def read(self) -> bytes:
        """Return the next whole entries; empty when there are none now."""
        while self._files:
            data = os.read(self._files[0].fd, BLOCK_BYTES)
            if data:
                block = self._rest + data if self._rest else data
                end = self._format.whole(block)
                self._rest = block[end:]
                if not end:
                    continue
                return block[:end] if self._rest else block
            if len(self._files) == 1:
                return b""
            self._leave()
        return b""

    def advance(self) -> bool:
        """After the last file was read: say whether there is a newer one, to be read from now on."""
        current = self._files[-1] if self._files else None
        if current is not None and _is_at(self._path, current.inode):
            return False
        found = _open_all(self._path)
        # A file that is no longer there was older than all that are.
        start = 0
        for index, file in enumerate(found):
            if current is not None and file.is_same(current):
                start = index + 1
        for file in found[:start]:
            file.close()
        self._files += found[start:]
        return len(found) > start

    def _leave(self) -> None:
        self._files.pop(0).close()
        self._rest = b""

    def close(self) -> None:
        """Close all files."""
        while self._files:
            self._leave()


class LogFile:
    """One file. A packed one is unpacked into a nameless file before it is read."""

    def __init__(self, fd: int, folder: str, *, packed: bool) -> None:
        self.fd = fd
        self.packed = packed
        self._folder = folder
        head = os.pread(fd, HEAD_BYTES, 0) if packed else b""
        # The packer wrote the inode's number as the name: RFC 1952, after ten bytes, up to a zero.
        name = head[10:30].partition(b"\0")[0]
        self.inode = int(name) if name.isdigit() else os.fstat(fd).st_ino
        self._head = zlib.decompressobj(GZIP).decompress(head, HEAD_BYTES) if packed else b""

    def head(self) -> bytes:
        """Return how it begins."""
        return self._head or os.pread(self.fd, HEAD_BYTES, 0)

    def is_same(self, other: LogFile) -> bool:
        """Say whether it is the file that another was, before it was packed.

        Numbers of inodes are used again, so the other one must begin as the packed one does, too: an empty
        one does not.
        """
        if self.inode != other.inode:
            return False
        packed, rest = (self, other) if self._head else (other, self)
        return rest.head().startswith(packed._head)

    def unpack(self) -> None:
        """Make it readable; one that is damaged is read as far as it goes."""
        if not self.packed:
            return
        plain = os.open(self._folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        unpacker = zlib.decompressobj(GZIP)
        try:
            while data := os.read(self.fd, BLOCK_BYTES):
                unpacked = memoryview(unpacker.decompress(data))
                while unpacked:
                    unpacked = unpacked[os.write(plain, unpacked) :]
        except (OSError, zlib.error):  # also a disk that is full
            pass
        os.close(self.fd)
        os.lseek(plain, 0, os.SEEK_SET)
        self.fd, self.packed = plain, False

    def close(self) -> None:
        """Close it."""
        os.close(self.fd)


def _is_at(path: str, inode: int) -> bool:
    try:
        return Path(path).stat().st_ino == inode
    except FileNotFoundError:
        return False


def _open_all(path: str) -> list[LogFile]:
    """Open all files, oldest first. Newest first in time, so that a rotation meanwhile hides nothing.

    In the middle of one there is a name that nothing has, between a file that has moved on and the next one.
    """
    files: list[LogFile] = []
    number = holes = 0
    while holes < HOLES:
        file = _open(path, number)
        holes = 0 if file else holes + 1
        if file and any(file.is_same(known) for known in files):
            file.close()
        elif file:
            files.insert(0, file)
        number += 1
    return files


def _open(path: str, number: int) -> LogFile | None:
    name = f"{path}.{number}" if number else path
    # Packed ones last: the plain file goes when the packed one is there.
    for candidate in (name, name + PACKED, name)[: 3 if number else 1]:
        try:
            fd = os.open(candidate, FLAGS)
        except FileNotFoundError:
            continue
        return LogFile(fd, os.path.dirname(path), packed=candidate.endswith(PACKED))  # noqa: PTH120
    return None
