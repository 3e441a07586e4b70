"""Reading a container's log, once or as it grows."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING, ParamSpec

from berth.kernel import inotify
from berth.logs.entries import LogEntry, LogQuery, Renderer
from berth.logs.files import LogFiles
from berth.logs.formats import JSON_LINES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from berth.logs.formats import Format

POLL_S = 0.1  # without inotify only
NANOSECONDS = 1_000_000_000

Arguments = ParamSpec("Arguments")

__all__ = ["LogEntry", "LogQuery", "read_entries", "read_frames"]


async def read_frames(
    path: Path,
    query: LogQuery,
    *,
    terminal: bool,
    ended: asyncio.Event,
    format_: Format = JSON_LINES,
) -> AsyncIterator[bytes]:
    """Yield the log as clients get it: raw for a terminal's, else multiplexed.

    With ``query.follow`` it goes on until ``ended`` is set and everything was read, or until
    ``query.until_ns`` has passed. A log that is not there is empty.
    """
    renderer = Renderer(query, terminal=terminal)
    async for found in _select(path, query, renderer, ended, format_):
        yield found if isinstance(found, bytes) else renderer.render(found)


async def read_entries(
    path: Path, query: LogQuery, *, ended: asyncio.Event
) -> AsyncIterator[list[LogEntry]]:
    """Yield the entries themselves, some at a time; otherwise as :func:`read_frames`."""
    renderer = Renderer(query, terminal=True, joins=False)
    async for entries in _select(path, query, renderer, ended, JSON_LINES):
        assert not isinstance(entries, bytes)
        yield entries


async def _select(
    path: Path, query: LogQuery, renderer: Renderer, ended: asyncio.Event, format_: Format
) -> AsyncIterator[bytes | list[LogEntry]]:
    changes = Changes(path.parent, ended, query.until_ns) if query.follow else None
    files = LogFiles(path, format_)
    try:
        if query.tail is not None and files.needs_unpacking:
            await _in_thread(files.seek_tail, query.tail)
        elif query.tail is not None:
            files.seek_tail(query.tail)
        async for block in _blocks(files, changes):
            if format_ is JSON_LINES and (whole := renderer.whole(block)) is not None:
                yield whole
                continue
            found = format_.parse(block)
            if files.surplus:
                found, files.surplus = found[files.surplus :], 0
            entries = renderer.select(found)
            if entries:
                yield entries
            if renderer.done:
                return
    finally:
        files.close()
        if changes is not None:
            changes.close()


async def _blocks(files: LogFiles, changes: Changes | None) -> AsyncIterator[bytes]:
    while True:
        # Asked before reading: what is written before the end is read after this.
        last = changes is None or changes.over()
        if files.needs_unpacking:
            await _in_thread(files.unpack)
        while block := files.read():
            yield block
            await asyncio.sleep(0)  # others use the loop too
        if changes is None:
            return
        if files.advance():
            continue
        if last:
            return
        await changes.wait()


async def _in_thread(
    work: Callable[Arguments, None], *args: Arguments.args, **kwargs: Arguments.kwargs
) -> None:
    """Run what reads files in a thread; not given up half-way, for the files are closed then."""
    running = asyncio.ensure_future(asyncio.to_thread(work, *args, **kwargs))
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise


class Changes:
    """Waits for a directory to change, for the container's end, or for a moment to pass."""

    def __init__(self, folder: Path, ended: asyncio.Event, until_ns: int | None) -> None:
        self._ended = ended
        self._until_ns = until_ns
        self._changed = asyncio.Event()
        self._fd: int | None = None
        try:
            mask = inotify.IN_MODIFY | inotify.IN_CREATE | inotify.IN_MOVED_TO
            self._fd = inotify.watch_directory(os.fspath(folder), mask)
        except OSError:  # too many watchers on this machine: look now and then
            return
        asyncio.get_running_loop().add_reader(self._fd, self._on_change)

    def _on_change(self) -> None:
        assert self._fd is not None
        inotify.drain(self._fd)
        self._changed.set()

    def over(self) -> bool:
        """Say whether nothing more is going to be written that is wanted."""
        return self._ended.is_set() or self._left_s() == 0

    def _left_s(self) -> float | None:
        if self._until_ns is None:
            return None
        return max(0, self._until_ns - time.time_ns()) / NANOSECONDS

    async def wait(self) -> None:
        """Wait for any of them since the last call."""
        left_s = self._left_s()
        if self._fd is None:
            left_s = POLL_S if left_s is None else min(left_s, POLL_S)
        waiters = [
            asyncio.ensure_future(self._changed.wait()),
            asyncio.ensure_future(self._ended.wait()),
        ]
        try:
            await asyncio.wait(waiters, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for waiter in waiters:
                waiter.cancel()
        self._changed.clear()

    def close(self) -> None:
        """Stop watching."""
        if self._fd is not None:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = None
