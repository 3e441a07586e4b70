"""The connections of an engine, and how it takes leave of them."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from berth.api import listeners
from berth.api.protocol import HttpConnection
from berth.errors import InvalidArgument

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator

    from berth.api.exchange import Exchange
    from berth.api.tls import TlsListener

# How long requests that are being worked on may take when the engine leaves.
LEAVE_S = 10.0


Handle = Callable[["Exchange"], Awaitable[None]]


class Server:
    """Serves every connection with one handler. It listens before that: who connects early waits."""

    _handle: Handle

    def __init__(self) -> None:
        self._sockets: list[tuple[socket.socket, ssl.SSLContext | None]] = []  # not served yet
        self._listeners: list[asyncio.Server | TlsListener] = []
        self._files: list[tuple[Path, os.stat_result]] = []
        self._connections: set[HttpConnection] = set()
        self._requests = 0
        self._used_at = time.monotonic()

    @property
    def idle_s(self) -> float:
        """How long no request has been worked on. What a monitor serves does not count."""
        return 0.0 if self._requests else time.monotonic() - self._used_at

    async def _serve(self, exchange: Exchange) -> None:
        self._requests += 1
        try:
            await self._handle(exchange)
        finally:
            self._requests -= 1
            self._used_at = time.monotonic()

    def opened(self, connection: HttpConnection) -> None:
        """Note a new connection."""
        self._connections.add(connection)

    def closed(self, connection: HttpConnection) -> None:
        """Forget a connection."""
        self._connections.discard(connection)

    async def listen(
        self,
        host: str,
        *,
        group: str | None = None,
        tls: ssl.SSLContext | None = None,
        local_only: bool = False,
    ) -> None:
        """Listen on unix://PATH (for ``group``), tcp://HOST:PORT or fd:// (sockets passed by systemd).

        With ``tls`` TCP is spoken in it. ``local_only``: what is passed must be unix sockets.
        """
        kind, _, address = host.partition("://")
        if kind == "unix" and address.startswith("/"):
            path = Path(address)
            self._sockets.append((listeners.unix_socket(path, group), None))
            self._files.append((path, path.stat()))
        elif kind == "tcp":
            port = listeners.TLS_PORT if tls else listeners.TCP_PORT
            for sock in await asyncio.to_thread(listeners.tcp_sockets, address, default_port=port):
                self._sockets.append((sock, tls))
        elif kind == "fd":
            for sock in listeners.passed_sockets(address, local_only=local_only):
                self._sockets.append((sock, tls))
        else:
            raise InvalidArgument(f"listen on {host!r}: use unix:///PATH, tcp://HOST:PORT or fd://")

    @asynccontextmanager
    async def serving(self, handle: Handle) -> AsyncIterator[None]:
        """Serve meanwhile whatever is listened on. At the end streams end, other requests may for a while.

        Connections on which a monitor may answer (``/wait``) stay open in it.
        """
        self._handle = handle
        while self._sockets:
            await self._accept_on(*self._sockets.pop(0))
        try:
            yield
        finally:
            self.close()
            await self._take_leave()

    async def _accept_on(self, sock: socket.socket, tls: ssl.SSLContext | None) -> None:
        loop = asyncio.get_running_loop()
        sock.setblocking(False)
        local = sock.family == socket.AF_UNIX
        if tls is not None and not local:
            from berth.api.tls import TlsListener

            self._listeners.append(TlsListener(sock, tls, self.serve_here))
            return

        def connected() -> HttpConnection:
            return HttpConnection(self._serve, self, local=local)

        if local:
            server = await loop.create_unix_server(connected, sock=sock, backlog=listeners.BACKLOG)
        else:
            server = await loop.create_server(connected, sock=sock, backlog=listeners.BACKLOG)
        self._listeners.append(server)

    async def serve_here(self, sock: socket.socket) -> None:
        """Serve a connected unix socket: what somebody relays from a client that may do all."""
        await asyncio.get_running_loop().connect_accepted_socket(
            lambda: HttpConnection(self._serve, self, local=True), sock=sock
        )

    def close(self) -> None:
        """Listen no more. Idempotent."""
        for path, status in self._files:
            remove_own(path, status)
        for listener in (*self._listeners, *(sock for sock, _ in self._sockets)):
            listener.close()

    async def _take_leave(self) -> None:
        connections = list(self._connections)
        for connection in connections:
            connection.leave()
        try:
            async with asyncio.timeout(LEAVE_S):
                for connection in connections:
                    await connection.wait_closed()
        except TimeoutError:
            for connection in connections:
                connection.cancel()
                await connection.wait_closed()


def remove_own(path: Path, status: os.stat_result) -> None:
    """Remove a socket file unless another engine has put its own there meanwhile."""
    try:
        if os.path.samestat(path.lstat(), status):
            path.unlink()
    except FileNotFoundError:
        return
