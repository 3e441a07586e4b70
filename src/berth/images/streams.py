"""Byte streams of archives: what compression they have, and their plain bytes in bounded pieces."""

from __future__ import annotations

import bz2
import lzma
import os
import sys
import zlib
from typing import TYPE_CHECKING, Protocol, cast

from berth.errors import InvalidArgument
from berth.images.compressions import BZIP2, GZIP, MAGIC_BYTES, XZ, ZSTD, compression

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

try:
    from isal.igzip_lib import DECOMP_GZIP, IgzipDecompressor, IsalError
except ImportError:  # no wheel for this machine: zlib, at half the speed
    FAST_GZIP = False
else:
    FAST_GZIP = True

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHUNK_BYTES = 1 << 20
READ_BYTES = 256 << 10
LZMA_MEMORY_BYTES = 256 << 20

# What decompressors raise; bz2 raises an OSError without a number.
DAMAGE: tuple[type[Exception], ...] = (
    ValueError,
    zlib.error,
    lzma.LZMAError,
    zstd.ZstdError,
)
if FAST_GZIP:
    DAMAGE += (cast("type[Exception]", IsalError),)


Bytes = bytes | memoryview


class Decompressor(Protocol):
    """What bz2, lzma, zstd and isal have in common."""

    @property
    def eof(self) -> bool:
        """Whether the end of a member was reached."""

    @property
    def needs_input(self) -> bool:
        """Whether more output needs more input."""

    @property
    def unused_data(self) -> bytes:
        """What follows the member."""

    def decompress(self, data: Bytes, max_length: int = -1) -> bytes:
        """Return up to ``max_length`` bytes."""


class _Gunzip:
    """zlib with the interface of the others."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(16 + zlib.MAX_WBITS)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    def decompress(self, data: Bytes, max_length: int = -1) -> bytes:
        """See Decompressor."""
        out = self._zlib.decompress(self._zlib.unconsumed_tail + data, max(max_length, 0))
        self.needs_input = not self._zlib.unconsumed_tail and len(out) < max_length
        return out


def _gunzip() -> Decompressor:
    if not FAST_GZIP:
        return _Gunzip()
    fast: Decompressor = IgzipDecompressor(flag=DECOMP_GZIP)
    return fast


MAKERS: dict[str, Callable[[], Decompressor]] = {
    GZIP: _gunzip,
    ZSTD: zstd.ZstdDecompressor,
    XZ: lambda: lzma.LZMADecompressor(memlimit=LZMA_MEMORY_BYTES),
    BZIP2: bz2.BZ2Decompressor,
}


def file_chunks(fd: int) -> Iterator[bytes]:
    """Yield the file's bytes from its beginning."""
    offset = 0
    while data := os.pread(fd, READ_BYTES, offset):
        offset += len(data)
        yield data


def growing_chunks(fd: int, counts: int) -> Iterator[bytes]:
    """Yield the bytes of a file that grows, up to what the pipe ``counts`` says, and at its end the rest."""
    offset = available = 0
    ended = False
    while True:
        if offset == available and not ended:
            told = os.read(counts, READ_BYTES)
            ended = not told
            # Eight bytes a time: the last of them is the newest.
            available = int.from_bytes(told[-8:], "little") if told else os.fstat(fd).st_size
        piece = os.pread(fd, min(READ_BYTES, available - offset), offset)
        if piece:
            offset += len(piece)
            yield piece
        elif ended or offset < available:  # or it was cut meanwhile
            return


def pipe_chunks(fd: int) -> Iterator[bytes]:
    """Yield what comes through a pipe, to its end."""
    while data := os.read(fd, READ_BYTES):
        yield data


def plain_chunks(chunks: Iterator[Bytes]) -> Iterator[Bytes]:
    """Yield the plain bytes of a compressed or plain stream, told by its beginning.

    InvalidArgument when it is damaged or cut off.
    """
    head = bytes(next(chunks, b""))
    while len(head) < MAGIC_BYTES and (more := next(chunks, b"")):
        head += more
    name = compression(head)
    if name is None:
        if head:
            yield head
        yield from chunks
        return
    try:
        yield from _members(MAKERS[name], head, chunks)
    except EOFError:
        raise InvalidArgument(f"{name}: unexpected EOF") from None
    except DAMAGE as error:
        raise InvalidArgument(f"{name}: {str(error).lower() or 'damaged data'}") from error
    except OSError as error:
        if error.errno is not None:
            raise  # the file, not what is in it
        raise InvalidArgument(f"{name}: {str(error).lower()}") from error


def _members(
    make: Callable[[], Decompressor], data: Bytes, chunks: Iterator[Bytes]
) -> Iterator[bytes]:
    """Decompress members one after the other; zeros after the last are padding."""
    while data:
        member = make()
        while not member.eof:
            out = member.decompress(data, CHUNK_BYTES)
            data = b""
            if out:
                yield out
            if member.needs_input and not member.eof:
                data = next(chunks, b"")
                if not data:
                    raise EOFError
        data = member.unused_data.lstrip(b"\0")
        while not data and (more := next(chunks, b"")):
            data = bytes(more).lstrip(b"\0")


class ByteStream:
    """Exact reads from chunks. A read that meets the end returns less."""

    def __init__(self, chunks: Iterator[Bytes]) -> None:
        self._chunks = chunks
        self._chunk: Bytes = b""
        self._offset = 0

    def read(self, size: int) -> bytes:
        """Return ``size`` bytes, fewer at the end."""
        end = self._offset + size
        if end <= len(self._chunk):
            data = self._chunk[self._offset : end]
            self._offset = end
            return data if isinstance(data, bytes) else bytes(data)
        return b"".join(self.pieces(size))

    def pieces(self, size: int) -> Iterator[memoryview]:
        """Yield ``size`` bytes as views, fewer at the end."""
        while size:
            if self._offset == len(self._chunk):
                self._chunk = next(self._chunks, b"")
                self._offset = 0
                if not self._chunk:
                    return
            piece = memoryview(self._chunk)[self._offset : self._offset + size]
            self._offset += len(piece)
            size -= len(piece)
            yield piece

    def skip(self, size: int) -> int:
        """Pass over ``size`` bytes; return how many there were."""
        if self._offset + size <= len(self._chunk):
            self._offset += size
            return size
        return sum(len(piece) for piece in self.pieces(size))
