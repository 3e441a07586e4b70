"""Reading json-file logs, once or as they grow."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

CHUNK_BYTES = 1 << 20
POLL_S = 0.05


class Entry(msgspec.Struct):
    """One line of output."""

    log: str
    stream: str
    time: str


async def read(
    path: Path, *, tail: int | None, follow: bool, ended: asyncio.Event
) -> AsyncIterator[list[Entry]]:
    """Yield the entries of the log; with ``follow``, until ``ended`` is set and all was read.

    ``tail`` counts from the end, None means all. A log that is not there is empty.
    """
    decoder = msgspec.json.Decoder(Entry)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    with open(fd, "rb") as file:  # noqa: PTH123 - a descriptor
        rest = b""
        first = True
        while True:
            was_last = not follow or ended.is_set()
            data = file.read(CHUNK_BYTES) if not first or tail is None else file.read()
            lines = (rest + data).split(b"\n")
            rest = lines.pop()
            if first and tail is not None:
                lines = lines[-tail:] if tail else []
            first = False
            if lines:
                yield [decoder.decode(line) for line in lines if line]
            elif not data and was_last:
                return
            elif not data:
                await _wait_a_little(ended)


async def _wait_a_little(ended: asyncio.Event) -> None:
    try:
        await asyncio.wait_for(ended.wait(), POLL_S)
    except TimeoutError:
        return


def frame(entry: Entry, *, terminal: bool, timestamps: bool) -> bytes:
    """Return an entry as clients get it: with the stream's 8-byte header unless it is a terminal's."""
    text = f"{entry.time} {entry.log}" if timestamps else entry.log
    data = text.encode()
    if terminal:
        return data
    stream = 2 if entry.stream == "stderr" else 1
    return bytes((stream, 0, 0, 0)) + len(data).to_bytes(4, "big") + data
