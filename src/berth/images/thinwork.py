"""The job that makes a blob thin, confined to the layer's tree."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import msgspec

from berth.content.thin import Index, Range, ranges_between
from berth.errors import InvalidArgument
from berth.images import tar
from berth.images.filestream import FileStream
from berth.images.layer import clean, write_all
from berth.images.tar import TarReader
from berth.kernel.filecopies import copy_range
from berth.kernel.mounts import open_without_links
from berth.runtime.worker import confine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from berth.images.tar import Member

    Report = Callable[[Mapping[str, object]], None]

CAPABILITIES = ("CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH")
MIN_FILE_BYTES = 8 << 10  # less is read sooner from the blob than from a file of its own
NICENESS = 10
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def thin(argument: dict[str, object], fds: list[int], report: Report) -> Mapping[str, object]:
    """Write the plain layer blob ``fds[0]`` into the empty file ``fds[1]`` without what ``fds[3]`` has.

    That is the tree which the layer was unpacked to. ``fds[2]`` gets the index. Returns ``spared``, the
    bytes that were left out, byte for byte those of the tree's files.
    """
    del argument, report
    blob, target, index, tree = fds
    os.nice(NICENESS)
    confine(tree, keep_capabilities=CAPABILITIES)
    files = list(in_tree(blob))
    size = os.fstat(blob).st_size
    os.ftruncate(target, size)
    for start, end in ranges_between(files, size):
        copy_range(blob, target, start, end)
    write_all(index, msgspec.json.encode(Index(files)))
    return {"spared": sum(one.size for one in files)}


def in_tree(blob: int) -> Iterator[Range]:
    """Yield the ranges of an archive that are files below this process's root."""
    stream = FileStream(blob)
    reader = TarReader(stream)
    for member in reader:
        if member.kind != tar.REGULAR or member.regions or member.size < MIN_FILE_BYTES:
            continue
        offset = stream.position
        path = _path(member)
        if path and _is_same(path, reader, member.size):
            yield Range(offset, member.size, path)


def _path(member: Member) -> str:
    """Return the path of a member if it can be written down, else ""."""
    try:
        path = clean(member.name)
        path.encode()
    except (InvalidArgument, UnicodeEncodeError):
        return ""
    return path


def _is_same(path: str, reader: TarReader, size: int) -> bool:
    try:
        fd = open_without_links(path, _FILE)
    except OSError:  # something else has taken its place
        return False
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size != size:
            return False
        offset = 0
        for piece in reader.pieces(size):
            if os.pread(fd, len(piece), offset) != piece:
                return False
            offset += len(piece)
        return True
    finally:
        os.close(fd)
