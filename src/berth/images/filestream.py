"""An archive that is a file: what is passed over is not read."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PIECE_BYTES = 1 << 20


class FileStream:
    """A file as what :class:`berth.images.tar.TarReader` reads; the descriptor stays the caller's."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._size = os.fstat(fd).st_size
        self.position = 0

    def read(self, size: int) -> bytes:
        """Return ``size`` bytes, fewer at the end."""
        data = os.pread(self._fd, size, self.position)
        self.position += len(data)
        return data

    def pieces(self, size: int) -> Iterator[memoryview]:
        """Yield ``size`` bytes in pieces, fewer at the end."""
        while size and (data := self.read(min(size, PIECE_BYTES))):
            size -= len(data)
            yield memoryview(data)

    def skip(self, size: int) -> int:
        """Pass over ``size`` bytes; return how many there were."""
        passed = min(size, self._size - self.position)
        self.position += passed
        return passed
