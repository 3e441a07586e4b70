"""Pipes between berthd and a worker, on the event loop: a slow side holds back the other."""

from __future__ import annotations

import asyncio
import fcntl
import os
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

PIPE_BYTES = 1 << 20
READ_BYTES = 1 << 18


def make() -> tuple[int, int]:
    """Return the reading and the writing end, large if the user's limit allows; the caller's to close."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    with suppress(OSError):
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return reading, writing


async def _until(add: Callable[[Callable[[], None]], None], remove: Callable[[], bool]) -> None:
    ready = asyncio.Event()
    add(ready.set)
    try:
        await ready.wait()
    finally:
        remove()


async def _readable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    await _until(lambda call: loop.add_reader(fd, call), lambda: loop.remove_reader(fd))


async def _writable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    await _until(lambda call: loop.add_writer(fd, call), lambda: loop.remove_writer(fd))


async def read(fd: int) -> AsyncIterator[bytes]:
    """Yield what comes out until the other end is closed."""
    os.set_blocking(fd, False)
    while True:
        try:
            data = os.read(fd, READ_BYTES)
        except BlockingIOError:
            await _readable(fd)
            continue
        if not data:
            return
        yield data


async def write(fd: int, chunks: AsyncIterator[bytes]) -> None:
    """Put everything in; stop when nobody takes it any more."""
    os.set_blocking(fd, False)
    try:
        async for chunk in chunks:
            view = memoryview(chunk)
            while view:
                try:
                    view = view[os.write(fd, view) :]
                except BlockingIOError:
                    await _writable(fd)
    except BrokenPipeError:
        return
