"""This machine's side of `berth cp`: what is at a path, packing it, extracting there."""

from __future__ import annotations

import os
import stat
import threading

from berth.errors import InvalidArgument
from berth.files.archives import Unpacker
from berth.images.pack import FileSink, Packer
from berth.images.streams import ByteStream
from berth.images.tar import LINK, TarReader
from berth.images.tar_writer import TarWriter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from berth.images.tar import Member, Stream

MAX_LINKS = 10
READ_BYTES = 1 << 18
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Place:
    """A source or a destination. ``rebased``: the name that it gets instead of its own."""

    __slots__ = ("exists", "is_folder", "path", "rebased")

    def __init__(self, path: str, *, exists: bool, is_folder: bool, rebased: str = "") -> None:
        self.path = path
        self.exists = exists
        self.is_folder = is_folder
        self.rebased = rebased


def local_source(path: str, *, follow: bool) -> Place:
    """Return what is to be copied; links are followed in its directory, and at its end with ``follow``."""
    leaf = path.rstrip("/").rpartition("/")[2]
    inner = "/." if path.rpartition("/")[2] == "." else ""
    try:
        if follow or inner:
            resolved = os.path.realpath(path, strict=True)
        else:
            folder = os.path.realpath(os.path.dirname(os.path.abspath(path)), strict=True)
            resolved = os.path.join(folder, os.path.basename(os.path.abspath(path)))
            if path.endswith("/"):
                resolved = os.path.realpath(resolved, strict=True)
        status = os.lstat(resolved)
    except OSError as error:
        what = (error.strerror or "").lower()
        raise InvalidArgument(f"lstat {error.filename or path}: {what}") from None
    is_folder = stat.S_ISDIR(status.st_mode)
    if (path.endswith("/") or inner) and not is_folder:
        raise InvalidArgument(f"lstat {os.path.abspath(path)}{inner or '/'}: not a directory")
    rebased = "" if inner or os.path.basename(resolved) == leaf else leaf
    return Place(resolved + inner, exists=True, is_folder=is_folder, rebased=rebased)


def resolve(path: str) -> Place:
    """Return what is at a destination, following links as far as they go."""
    slash = "/." if path.rpartition("/")[2] == "." else "/" if path.endswith("/") else ""
    found = os.path.abspath(path)
    for _ in range(MAX_LINKS + 1):
        try:
            status = os.lstat(found)
        except FileNotFoundError:
            break
        except OSError as error:
            raise InvalidArgument(f"lstat {found}: {(error.strerror or '').lower()}") from None
        if not stat.S_ISLNK(status.st_mode):
            return Place(found + slash, exists=True, is_folder=stat.S_ISDIR(status.st_mode))
        found = os.path.normpath(os.path.join(os.path.dirname(found), os.readlink(found)))
    else:
        raise InvalidArgument(f"too many symlinks in {path}")
    folder = os.path.dirname(found)
    if not os.path.exists(folder):
        raise InvalidArgument(f"stat {folder}: no such file or directory")
    if not os.path.isdir(folder):
        raise InvalidArgument("not a directory")
    return Place(found + slash, exists=False, is_folder=False)


def pack(source: Place, new: str, fd: int) -> None:
    """Write an archive of ``source`` to ``fd``, under the name ``new`` if there is one."""
    writer = TarWriter(FileSink(fd))
    path = source.path.removesuffix("/.")
    inner = path != source.path
    own = "." if inner else os.path.basename(path)
    name = new or source.rebased or own
    if source.is_folder:
        Packer(os.open(path or "/", _DIRECTORY), writer).tree("", name or "/")
    else:
        Packer(os.open(os.path.dirname(path) or "/", _DIRECTORY), writer).tree(own, name)
    writer.end()


def pieces(fd: int) -> Iterator[bytes]:
    """Give what comes from a descriptor until its end."""
    while data := os.read(fd, READ_BYTES):
        yield data


def piped(write: Callable[[int], None]) -> Iterator[bytes]:
    """Give what ``write`` writes to the descriptor that it gets, in a thread that runs ahead."""
    reading, writing = os.pipe()
    failure: list[BaseException] = []

    def run() -> None:
        try:
            write(writing)
        except BaseException as error:  # noqa: BLE001 - raised where the pieces are wanted
            failure.append(error)
        finally:
            os.close(writing)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield from pieces(reading)
        thread.join()
        if failure:
            raise failure[0]
    finally:
        os.close(reading)


class Renaming(TarReader):
    """Reads an archive; what begins with ``old`` begins with ``new`` instead."""

    def __init__(self, stream: Stream, *, old: str, new: str) -> None:
        super().__init__(stream)
        self._old, self._new = old, new

    def __iter__(self) -> Iterator[Member]:
        for member in super().__iter__():
            member.name = member.name.replace(self._old, self._new, 1)
            if member.kind == LINK:
                member.linkname = member.linkname.replace(self._old, self._new, 1)
            yield member


def extract(chunks: Iterator[bytes], folder: str, *, old: str, new: str) -> int:
    """Extract an archive into a directory, what begins with ``old`` as ``new``; return its bytes.

    Everything becomes this process's user's, and no link leads out of the directory.
    """
    sizes: list[int] = []

    def counted() -> Iterator[bytes]:
        for chunk in chunks:
            sizes.append(len(chunk))
            yield chunk

    os.umask(0)
    root = os.open(folder, _DIRECTORY)
    pieces = counted()
    reader = Renaming(ByteStream(pieces), old=old, new=new)
    Unpacker(root, "", owner=(os.geteuid(), os.getegid()), keeps=True).extract(reader)
    for _ in pieces:
        pass
    return sum(sizes)
