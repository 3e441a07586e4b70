"""The connections of an engine, and how it takes leave of them."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

from berth.api import listeners
from berth.api.protocol import HttpConnection
from berth.errors import InvalidArgument

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable

    from berth.api.exchange import Exchange
    from berth.api.tls import TlsListener

# How long requests that are being worked on may take when the engine leaves.
LEAVE_S = 10.0


class Server:
    """Serves every connection with one handler."""

    def __init__(self, handle: Callable[[Exchange], Awaitable[None]]) -> None:
        self._handle = handle
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
            await self._listen_on(listeners.unix_socket(path, group))
            self._files.append((path, path.stat()))
        elif kind == "tcp":
            port = listeners.TLS_PORT if tls else listeners.TCP_PORT
            for sock in await asyncio.to_thread(listeners.tcp_sockets, address, default_port=port):
                await self._listen_on(sock, tls)
        elif kind == "fd":
            for sock in listeners.passed_sockets(address, local_only=local_only):
                await self._listen_on(sock, tls)
        else:
            raise InvalidArgument(f"listen on {host!r}: use unix:///PATH, tcp://HOST:PORT or fd://")

    async def _listen_on(self, sock: socket.socket, tls: ssl.SSLContext | None = None) -> None:
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

    async def close(self) -> None:
        """Take no more clients, end streams, and let other requests end for a while.

        Connections on which a monitor may answer (``/wait``) stay open in it.
        """
        for path, status in self._files:
            remove_own(path, status)
        for listener in self._listeners:
            listener.close()
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
