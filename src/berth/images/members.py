"""An archive's members as they come: each becomes a file, and what looks like a layer a tree as well.

So an archive is read once, while it arrives. Which of the files and trees an image needs is known at the
end only; the rest goes with the directory.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from berth.errors import BerthError, InvalidArgument
from berth.images import tar
from berth.images.compressions import GZIP, ZSTD, compression
from berth.images.layer import Extractor, clean, write_all
from berth.images.unpack import Layer
from berth.oci.digest import CANONICAL

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator, Mapping

    from berth.images.streams import Bytes

    Report = Callable[[Mapping[str, object]], None]

MAX_LINKS = 16
MAX_MEMBERS = 100_000
USTAR = slice(257, 262)


@dataclass(slots=True, kw_only=True)
class Tree:
    """A layer, extracted into ``NAME/fs``."""

    name: str
    diff_id: str
    size: int
    root: bool


@dataclass(slots=True, kw_only=True)
class Member:
    """A file of the archive."""

    file: str  # its name in the directory
    size: int
    digest: str
    compression: str | None
    tree: Tree | None = None


class Members:
    """What an archive has, in the directory ``directory``."""

    def __init__(
        self, directory: int, known: Container[str], report: Report, *, plain: bool
    ) -> None:
        """Begin; of files called like one of ``known`` no tree is wanted. ``plain``: see Extractor."""
        self._directory = directory
        self._known = known
        self._report = report
        self._plain = plain
        self._files: dict[str, Member] = {}
        self._links: dict[str, str] = {}

    def take(self, reader: tar.TarReader) -> None:
        """Take a whole archive. InvalidArgument: it is none; OSError: the disk is full."""
        for count, entry in enumerate(reader):
            if count > MAX_MEMBERS:
                raise InvalidArgument(
                    f"read image archive: more than {MAX_MEMBERS} members",
                    hint="use import for the tar of a root file system",
                )
            path = clean(entry.name)
            if entry.kind == tar.REGULAR and entry.regions is None:
                self._files[path] = self._take_file(reader, entry, f"m{count}")
            elif entry.kind == tar.LINK:
                self._links[path] = clean(entry.linkname)
            elif entry.kind == tar.SYMLINK:
                # Older archives link equal layers: "../<id>/layer.tar".
                target = posixpath.join("/", posixpath.dirname(path), entry.linkname)
                self._links[path] = posixpath.normpath(target).lstrip("/")

    def _take_file(self, reader: tar.TarReader, entry: tar.Member, file: str) -> Member:
        head = reader.read_data(min(entry.size, tar.PIECE_BYTES))
        pieces: Iterator[Bytes] = chain((head,), reader.pieces(entry.size - len(head)))
        kind = compression(head)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        target = os.open(file, flags, 0o600, dir_fd=self._directory)
        try:
            leaf = posixpath.basename(entry.name)
            if looks_like_layer(head, kind) and leaf not in self._known:
                digest, tree = self._take_layer(pieces, kind, target, f"t{file}")
            else:
                digest, tree = copy(pieces, target), None
        finally:
            os.close(target)
        return Member(file=file, size=entry.size, digest=digest, compression=kind, tree=tree)

    def _take_layer(
        self, pieces: Iterator[Bytes], kind: str | None, target: int, name: str
    ) -> tuple[str, Tree | None]:
        """Write, hash and extract at once. What does not extract is only a file: it may be no layer."""
        os.mkdir(name, 0o700, dir_fd=self._directory)
        os.mkdir(f"{name}/fs", 0o755, dir_fd=self._directory)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        root = os.open(f"{name}/fs", flags, dir_fd=self._directory)
        layer = Layer(pieces, compressed=kind is not None, copy_to=target)
        extractor = Extractor(
            root, lambda: self._report({"bytes": layer.blob_size}), plain=self._plain
        )
        whole = True
        try:
            extractor.extract(tar.TarReader(layer.stream()))
        except BerthError:
            whole = False
        finally:
            os.close(root)
        layer.drain()
        outcome = layer.finish()
        if not whole:
            return str(outcome["digest"]), None
        tree = Tree(
            name=name,
            diff_id=str(outcome["diff_id"]),
            size=extractor.size_bytes,
            root=extractor.has_root,
        )
        return str(outcome["digest"]), tree

    def trees(self) -> list[Tree]:
        """Return the layers that were extracted."""
        return [member.tree for member in self._files.values() if member.tree is not None]

    def has(self, path: str) -> bool:
        """Say whether there is such a member, a link maybe."""
        return path in self._files or path in self._links

    def find(self, name: str) -> Member:
        """Return a member, through links; InvalidArgument when there is none."""
        path = clean(name)
        for _ in range(MAX_LINKS):
            if path in self._files:
                return self._files[path]
            if path not in self._links:
                break
            path = self._links[path]
        raise InvalidArgument(f"read image archive: {name[:200]!r} is missing in it")

    def open(self, member: Member) -> int:
        """Return a descriptor of a member's file."""
        return os.open(member.file, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._directory)

    def rename(self, member: Member, file: str) -> None:
        """Give a member's file another name; it is synced."""
        fd = self.open(member)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        both = {"src_dir_fd": self._directory, "dst_dir_fd": self._directory}
        os.rename(member.file, file, **both)
        member.file = file


def looks_like_layer(head: bytes, kind: str | None) -> bool:
    """Say whether a file that begins so may be a layer."""
    return kind in (GZIP, ZSTD) or head[USTAR] == b"ustar"


def copy(pieces: Iterator[Bytes], target: int) -> str:
    """Write pieces to a file; return their digest."""
    hasher = hashlib.new(CANONICAL)
    for piece in pieces:
        hasher.update(piece)
        write_all(target, piece)
    return f"{CANONICAL}:{hasher.hexdigest()}"
