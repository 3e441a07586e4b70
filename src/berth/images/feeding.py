"""A request's body through a pipe to a worker, as it comes."""

from __future__ import annotations

import asyncio
import fcntl
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PIPE_BYTES = 1 << 20


def open_pipe() -> tuple[int, int]:
    """Return the ends of a large pipe; the writing one does not block."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(writing, False)
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return reading, writing


async def feed(body: AsyncIterator[bytes], fd: int) -> None:
    """Write a body to a pipe and close it. What nobody takes any more is read all the same."""
    wanted = True
    try:
        async for chunk in body:
            view = memoryview(chunk)
            while view and wanted:
                try:
                    view = view[os.write(fd, view) :]
                except BlockingIOError:
                    await _writable(fd)
                except BrokenPipeError:
                    wanted = False
    finally:
        os.close(fd)


async def _writable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_writer(fd, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_writer(fd)
