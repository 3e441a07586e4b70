"""The files of one log: ``path`` is written, ``path.1`` came before it, ``path.2`` before that."""

from __future__ import annotations

import os
from pathlib import Path

BLOCK_BYTES = 1 << 18  # a block occupies the event loop for some five milliseconds
FLAGS = os.O_RDONLY | os.O_CLOEXEC


class LogFiles:
    """Reads a log in order, oldest file first, across rotations. Close it.

    The writer never changes what it wrote; a rotation moves names and leaves files as they are.
    """

    def __init__(self, path: Path) -> None:
        self._path = os.fspath(path)
        self._fds = _open_all(self._path)
        self._rest = b""

    def seek_tail(self, count: int) -> None:
        """Go on with the last ``count`` entries."""
        kept: list[int] = []
        while self._fds:
            fd = self._fds.pop()
            kept.insert(0, fd)
            missing = _seek_lines(fd, count)
            if missing == 0:
                break
            count = missing
        for fd in self._fds:
            os.close(fd)
        self._fds = kept

    def read(self) -> bytes:
        """Return the next whole lines; empty when there are none now."""
        while self._fds:
            data = os.read(self._fds[0], BLOCK_BYTES)
            if data:
                end = data.rfind(b"\n") + 1
                if not end:
                    self._rest += data
                    continue
                block = self._rest + data[:end]
                self._rest = data[end:]
                return block
            if len(self._fds) == 1:
                return b""
            self._leave()
        return b""

    def advance(self) -> bool:
        """After the last file was read: say whether there is a newer one, to be read from now on."""
        current = os.fstat(self._fds[-1]).st_ino if self._fds else None
        if current is not None and _is_at(self._path, current):
            return False
        fds = _open_all(self._path)
        inodes = [os.fstat(fd).st_ino for fd in fds]
        # A file that is no longer there was older than all that are.
        start = inodes.index(current) + 1 if current in inodes else 0
        for fd in fds[:start]:
            os.close(fd)
        self._fds += fds[start:]
        return len(fds) > start

    def _leave(self) -> None:
        os.close(self._fds.pop(0))
        self._rest = b""

    def close(self) -> None:
        """Close all files."""
        while self._fds:
            self._leave()


def _is_at(path: str, inode: int) -> bool:
    try:
        return Path(path).stat().st_ino == inode
    except FileNotFoundError:
        return False


def _open_all(path: str) -> list[int]:
    """Open all files, oldest first. Newest first in time, so that a rotation meanwhile hides nothing."""
    fds: list[int] = []
    inodes: set[int] = set()
    number = 0
    while True:
        try:
            fd = os.open(f"{path}.{number}" if number else path, FLAGS)
        except FileNotFoundError:
            break
        inode = os.fstat(fd).st_ino
        if inode in inodes:
            os.close(fd)
        else:
            inodes.add(inode)
            fds.insert(0, fd)
        number += 1
    return fds


def _seek_lines(fd: int, count: int) -> int:
    """Set the position before the last ``count`` lines; return how many the file lacks."""
    position = os.fstat(fd).st_size
    # The newline that ends the last line ends the search, too, so one more is looked for.
    wanted = count + 1
    while position > 0:
        start = max(0, position - BLOCK_BYTES)
        block = os.pread(fd, position - start, start)
        found = block.count(b"\n")
        if found >= wanted:
            end = len(block)
            for _ in range(wanted):
                end = block.rfind(b"\n", 0, end)
            os.lseek(fd, start + end + 1, os.SEEK_SET)
            return 0
        wanted -= found
        position = start
    os.lseek(fd, 0, os.SEEK_SET)
    return wanted - 1
