"""Thin blobs: of a layer that came as a plain archive, the bytes of large files are on the disk once.

They are in the layer's unpacked tree; the blob's file has holes in their place. What else there is of the
archive (headers, small files, padding) stays in it. ``<root>/<blob>-<chain>``, both sha256 in hex, is the
index of a thin blob: which of its ranges are which files of the tree of that chain ID. A blob with an index
is read by it, whether its file has the holes yet or not.
"""

from __future__ import annotations

import errno
import io
import os
from bisect import bisect_right
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from berth.errors import Corrupt, NotFound
from berth.kernel.filecopies import sync_folder
from berth.kernel.mounts import open_without_links
from berth.oci.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from _typeshed import WriteableBuffer

    Trees = Callable[[str], Path]  # where a chain ID's tree is; NotFound

READ_BYTES = 1 << 20
PREFIX = "sha256:"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Range(msgspec.Struct, array_like=True):
    """A range of the blob that is all of a file below the tree, named without links."""

    offset: int
    size: int
    path: str


class Index(msgspec.Struct):
    """The ranges that a blob's file has not, in order."""

    files: list[Range]


class ThinBlobs:
    """Which blobs of a store are thin, and their bytes."""

    def __init__(self, root: Path, trees: Trees) -> None:
        self._root = root
        self._trees = trees
        root.mkdir(mode=0o700, exist_ok=True)
        names = (entry.name.partition("-") for entry in root.iterdir())
        self._chains = {Digest(PREFIX + blob): PREFIX + chain for blob, _, chain in names}

    def all(self) -> list[tuple[Digest, str]]:
        """Return the thin blobs and the chain IDs of the trees that have the rest of them."""
        return list(self._chains.items())

    def __contains__(self, digest: Digest) -> bool:
        return digest in self._chains

    def _path(self, digest: Digest, chain_id: str) -> Path:
        return self._root / f"{digest.encoded}-{chain_id.removeprefix(PREFIX)}"

    def add(self, digest: Digest, chain_id: str, index: Path) -> None:
        """Take over a synced index; the blob's file may lose its ranges from now on."""
        index.rename(self._path(digest, chain_id))
        sync_folder(self._root)
        self._chains[digest] = chain_id

    def move(self, digest: Digest, chain_id: str) -> None:
        """Read a blob from another tree of the same layer; the first may go when this is done."""
        self._path(digest, self._chains[digest]).rename(self._path(digest, chain_id))
        sync_folder(self._root)
        self._chains[digest] = chain_id

    def forget(self, digest: Digest) -> None:
        """Drop a blob's index, if it has one: the file is whole, or gone."""
        if digest in self._chains:
            self._path(digest, self._chains.pop(digest)).unlink()

    def open(self, digest: Digest, file: Path) -> BinaryIO:
        """Open a thin blob whose file this is. NotFound: it has gone meanwhile; Corrupt: its tree has."""
        try:
            chain_id = self._chains[digest]
            index = msgspec.json.decode(self._path(digest, chain_id).read_bytes(), type=Index)
            blob = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        except (KeyError, FileNotFoundError):
            raise NotFound(f"content {digest}: not found") from None
        try:
            tree = os.open(self._trees(chain_id), _DIRECTORY)
        except (NotFound, OSError):
            os.close(blob)
            raise Corrupt(f"content {digest}: the tree of layer {chain_id} is missing") from None
        return io.BufferedReader(Reader(blob, tree, index.files), READ_BYTES)


class Reader(io.RawIOBase):
    """The bytes of a blob, out of its file and a tree; both descriptors become the reader's own.

    OSError when the tree has not what it should have.
    """

    def __init__(self, blob: int, tree: int, files: list[Range]) -> None:
        self._blob = blob
        self._tree = tree
        self._files = files
        self._starts = [one.offset for one in files]
        self._size = os.fstat(blob).st_size
        self._position = 0
        self._open: tuple[int, int] = (-1, -1)  # the number of a file, and its descriptor

    def readable(self) -> bool:
        """Say that it is."""
        return True

    def seekable(self) -> bool:
        """Say that it is."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a position; return it."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Read what is there in one piece, nothing at the end."""
        with memoryview(buffer) as view:
            done = self._read(view[: max(0, self._size - self._position)])
        self._position += done
        return done

    def _read(self, view: memoryview) -> int:
        if not view:
            return 0
        number = bisect_right(self._starts, self._position) - 1
        if number >= 0 and self._position < self._files[number].offset + self._files[number].size:
            one = self._files[number]
            left = one.offset + one.size - self._position
            done = os.preadv(self._file(number), [view[:left]], self._position - one.offset)
            if not done:
                raise OSError(errno.EIO, f"{one.path!r} of the layer's tree is cut off")
            return done
        following = number + 1
        end = self._starts[following] if following < len(self._starts) else self._size
        return os.preadv(self._blob, [view[: end - self._position]], self._position)

    def _file(self, number: int) -> int:
        if self._open[0] != number:
            self._close_file()
            path = self._files[number].path
            try:
                fd = open_without_links(path, _FILE, dir_fd=self._tree)
            except OSError as error:
                why = os.strerror(error.errno or 0)
                raise OSError(error.errno, f"{path!r} of the layer's tree: {why}") from error
            self._open = (number, fd)
        return self._open[1]

    def _close_file(self) -> None:
        if self._open[1] >= 0:
            os.close(self._open[1])
            self._open = (-1, -1)

    def close(self) -> None:
        """Close everything."""
        if not self.closed:
            self._close_file()
            os.close(self._blob)
            os.close(self._tree)
        super().close()


def ranges_between(files: list[Range], size: int) -> Iterator[tuple[int, int]]:
    """Yield the ranges (start, end) of a blob of ``size`` bytes that are in none of its files."""
    start = 0
    for one in files:
        if start < one.offset:
            yield start, one.offset
        start = one.offset + one.size
    if start < size:
        yield start, size
