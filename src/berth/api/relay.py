"""Bytes between a client and somebody who speaks something plainer: TLS or WebSocket outside, a pipe inside.

Who serves the inside need not know: berthd hands out one end of a socket pair and relays on the other.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import Protocol

from berth.errors import InvalidArgument

CHUNK_BYTES = 128 << 10
LINGER_S = 5.0  # how long a client may take to hang up once everything was sent


class Codec(Protocol):
    """What is spoken outside. No I/O: bytes in, bytes out."""

    ended: bool  # the client has ended its side, which says nothing of ours

    def receive(self, data: bytes) -> bytes:
        """Take bytes of the client; return what they carry. InvalidArgument when they make no sense."""
        ...

    def send(self, data: bytes) -> None:
        """Wrap what is for the client."""
        ...

    def finish(self) -> None:
        """Say that nothing more comes from us."""
        ...

    def outgoing(self) -> bytes:
        """Return what is to be sent now: what was wrapped, and what the protocol itself has to say."""
        ...


class Relay:
    """One client. Both sockets are non-blocking and closed at the end of :meth:`run`."""

    def __init__(self, outer: socket.socket, inner: socket.socket, codec: Codec) -> None:
        self._outer = outer
        self._inner = inner
        self._codec = codec
        self._ended = False
        self._sending = asyncio.Lock()
        self._loop = asyncio.get_running_loop()

    async def run(self, early: bytes = b"") -> None:
        """Relay until both sides are done or the client is gone. ``early``: what it sent already."""
        try:
            async with asyncio.TaskGroup() as group:
                inward = group.create_task(self._inward(early), name="relay in")
                await self._outward()
                with suppress(TimeoutError):
                    await asyncio.wait_for(inward, LINGER_S)
        finally:
            self._outer.close()
            self._inner.close()

    async def _inward(self, data: bytes) -> None:
        try:
            while True:
                if data and not await self._take(data):
                    return
                if not (data := await self._loop.sock_recv(self._outer, CHUNK_BYTES)):
                    return
        except (OSError, InvalidArgument):
            return
        finally:
            # The client is gone: the inside is to see that, too, and so ends the other direction.
            with suppress(OSError):
                self._inner.shutdown(socket.SHUT_RDWR)

    async def _take(self, data: bytes) -> bool:
        """Pass on what the client sent; False when nobody inside reads any more."""
        if self._ended:
            return True  # there may be no more, but its hanging up is still to be seen
        plain = self._codec.receive(data)
        await self._flush()
        try:
            if plain:
                await self._loop.sock_sendall(self._inner, plain)
            self._ended = self._codec.ended
            if self._ended:
                self._inner.shutdown(socket.SHUT_WR)
        except OSError:
            return False
        return True

    async def _outward(self) -> None:
        with suppress(OSError):
            while data := await self._loop.sock_recv(self._inner, CHUNK_BYTES):
                self._codec.send(data)
                await self._flush()
            self._codec.finish()
            await self._flush()
            self._outer.shutdown(socket.SHUT_WR)

    async def _flush(self) -> None:
        async with self._sending:
            if data := self._codec.outgoing():
                await self._loop.sock_sendall(self._outer, data)
