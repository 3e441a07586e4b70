"""Routes of BuildKit's protocol: both leave HTTP for gRPC."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from berth.api.router import Route
from berth.errors import InvalidArgument

if TYPE_CHECKING:
    from berth.api.exchange import Exchange
    from berth.api.parameters import Call
    from berth.buildkit.service import BuildKit

PROTOCOL = "h2c"
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
ID = b"x-docker-expose-session-uuid"
METHOD = b"x-docker-expose-session-grpc-method"


class SessionRoutes:
    """``/session`` and ``/grpc``."""

    def __init__(self, buildkit: BuildKit) -> None:
        self._buildkit = buildkit

    def routes(self) -> list[Route]:
        """Return the table."""
        return [
            Route("POST", "/session", self.session, long=True),
            Route("POST", "/grpc", self.grpc, long=True),
        ]

    async def session(self, call: Call) -> None:
        """Call what a build's client serves on this connection."""
        exchange = call.exchange
        methods = [value.decode("latin-1") for key, value in exchange.raw_headers if key == METHOD]
        id_ = exchange.header(ID) or ""
        sock, early = await switched(exchange)
        await self._buildkit.keep(id_, methods, sock, early)

    async def grpc(self, call: Call) -> None:
        """Serve a client."""
        await self._buildkit.serve(*await switched(call.exchange))


async def switched(exchange: Exchange) -> tuple[socket.socket, bytes]:
    """Leave HTTP, if the client wants HTTP/2; return its socket and what came ahead."""
    wanted = exchange.header(b"upgrade")
    if wanted is None:
        raise InvalidArgument("no upgrade proto in request")
    if wanted != PROTOCOL:
        raise InvalidArgument(f"protocol {wanted} not supported")
    fd, early = await exchange.switch(SWITCHING)
    return socket.socket(fileno=fd), early
