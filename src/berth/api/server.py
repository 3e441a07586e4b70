"""The sockets an engine listens on, and the connections that came over them."""

from __future__ import annotations

import asyncio
import grp
import os
import socket
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING

from berth.api.protocol import HttpConnection
from berth.errors import Conflict, Failed, InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from berth.api.exchange import Exchange

SOCKET_MODE = 0o660
SOCKET_GROUP = "docker"
BACKLOG = 1024
FIRST_PASSED_FD = 3  # sd_listen_fds(3)
# How long requests that are being worked on may take when the engine leaves.
LEAVE_S = 10.0


class Server:
    """Serves every connection with one handler."""

    def __init__(self, handle: Callable[[Exchange], Awaitable[None]]) -> None:
        self._handle = handle
        self._listeners: list[asyncio.Server] = []
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

    async def listen(self, host: str) -> None:
        """Listen on unix://PATH, tcp://HOST:PORT or fd:// (sockets passed by systemd)."""
        kind, _, address = host.partition("://")
        if kind == "unix" and address.startswith("/"):
            path = Path(address)
            await self._listen_on(unix_socket(path))
            self._files.append((path, path.stat()))
        elif kind == "tcp":
            for sock in await asyncio.to_thread(tcp_sockets, address):
                await self._listen_on(sock)
        elif kind == "fd":
            for sock in passed_sockets():
                await self._listen_on(sock)
        else:
            raise InvalidArgument(f"listen on {host!r}: use unix:///PATH, tcp://HOST:PORT or fd://")

    async def _listen_on(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        local = sock.family == socket.AF_UNIX

        def connected() -> HttpConnection:
            return HttpConnection(self._serve, self, local=local)

        if local:
            server = await loop.create_unix_server(connected, sock=sock, backlog=BACKLOG)
        else:
            server = await loop.create_server(connected, sock=sock, backlog=BACKLOG)
        self._listeners.append(server)

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


def unix_socket(path: Path) -> socket.socket:
    """Listen on a socket file for its owner and group; one that nobody serves is replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    clear(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o777 & ~SOCKET_MODE)  # so that the file never has another mode
    try:
        sock.bind(str(path))
        os.chown(path, -1, group_id())
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise Failed(f"listen on {path}: {error.strerror or error}") from error
    finally:
        os.umask(before)
    return sock


def remove_own(path: Path, status: os.stat_result) -> None:
    """Remove a socket file unless another engine has put its own there meanwhile."""
    try:
        if os.path.samestat(path.lstat(), status):
            path.unlink()
    except FileNotFoundError:
        return


def clear(path: Path) -> None:
    """Make the name free: remove a socket that nobody serves; Conflict for anything else."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise Conflict(f"listen on {path}: the file exists and is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        if probe.connect_ex(str(path)) == 0:
            raise Conflict(f"listen on {path}: another engine answers there")
    path.unlink(missing_ok=True)


def group_id() -> int:
    """Return the id of the group that may use the socket, -1 when there is none."""
    try:
        return grp.getgrnam(SOCKET_GROUP).gr_gid
    except KeyError:
        return -1


def tcp_sockets(address: str) -> list[socket.socket]:
    """Listen on HOST:PORT; an empty host is this machine only."""
    name, _, port = address.rpartition(":")
    if not port.isdecimal():
        raise InvalidArgument(f"listen on tcp://{address}: a port is needed")
    host = name.strip("[]") or "127.0.0.1"
    found = []
    try:
        for family, kind, protocol, _, where in socket.getaddrinfo(
            host, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            sock = socket.socket(family, kind, protocol)
            found.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(where)
            sock.listen(BACKLOG)
    except OSError as error:
        for sock in found:
            sock.close()
        raise Failed(f"listen on tcp://{address}: {error.strerror or error}") from error
    return found


def passed_sockets() -> list[socket.socket]:
    """Return the listening sockets that systemd passed (sd_listen_fds(3)); each is taken once."""
    count = os.environ.get("LISTEN_FDS", "0")
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or not count.isdecimal() or count == "0":
        raise InvalidArgument("listen on fd://: no sockets were passed to this process")
    del os.environ["LISTEN_FDS"], os.environ["LISTEN_PID"]
    found = []
    for fd in range(FIRST_PASSED_FD, FIRST_PASSED_FD + int(count)):
        os.set_inheritable(fd, False)
        found.append(socket.socket(fileno=fd))
    return found
