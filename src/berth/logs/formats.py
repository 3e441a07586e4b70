"""The two forms of a log on disk: where its records end, and what entries are in them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from berth.logs.entries import STDERR, STDOUT, LogEntry, parse
from berth.runtime.jsonlog import timestamp
from berth.runtime.locallog import HEAD_BYTES, SIZE_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

BLOCK_BYTES = 1 << 18  # a block occupies the event loop for some five milliseconds
STREAMS = {1: STDOUT, 2: STDERR}


class Format(NamedTuple):
    """``whole``: the end of the last whole record of a block. ``seek``: as :func:`seek_lines`."""

    whole: Callable[[bytes], int]
    parse: Callable[[bytes], list[LogEntry]]
    seek: Callable[[int, int], int]


def whole_lines(block: bytes) -> int:
    """Return the end of the last line."""
    return block.rfind(b"\n") + 1


def seek_lines(fd: int, count: int) -> int:
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


def whole_records(block: bytes) -> int:
    """Return the end of the last whole record."""
    end = 0
    while end + SIZE_BYTES <= len(block):
        after = end + int.from_bytes(block[end : end + SIZE_BYTES], "big") + 2 * SIZE_BYTES
        if after > len(block):
            break
        end = after
    return end


def parse_records(block: bytes) -> list[LogEntry]:
    """Return the entries of whole records."""
    entries: list[LogEntry] = []
    position = 0
    while position < len(block):
        start = position + SIZE_BYTES
        end = start + int.from_bytes(block[position:start], "big")
        stream = STREAMS.get(block[start], STDOUT)
        time = timestamp(int.from_bytes(block[start + 1 : start + HEAD_BYTES], "big")).encode()
        *lines, rest = block[start + HEAD_BYTES : end].split(b"\n")
        entries += [LogEntry(line + b"\n", stream, b"", time) for line in lines]
        if rest:
            entries.append(LogEntry(rest, stream, b"", time))
        position = end + SIZE_BYTES
    return entries


def seek_records(fd: int, count: int) -> int:
    """Set the position before the records of the last ``count`` entries; return how many the file lacks.

    A negative number is how many too many the first of these records has.
    """
    position = os.fstat(fd).st_size
    while position > 0 and count > 0:
        size = int.from_bytes(os.pread(fd, SIZE_BYTES, position - SIZE_BYTES), "big")
        start = position - size - 2 * SIZE_BYTES
        if start < 0:
            break
        output = os.pread(fd, size - HEAD_BYTES, start + SIZE_BYTES + HEAD_BYTES)
        count -= output.count(b"\n") + (not output.endswith(b"\n"))
        position = start
    os.lseek(fd, max(0, position), os.SEEK_SET)
    return count


JSON_LINES = Format(whole_lines, parse, seek_lines)
RECORDS = Format(whole_records, parse_records, seek_records)
