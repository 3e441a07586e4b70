"""Routes of networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from berth.api import compatibility
from berth.api.router import Route
from berth.engine.networkmodels import (
    EndpointRequest,
    NetworkConnect,
    NetworkCreate,
    NetworkDisconnect,
    NetworkShape,
)

if TYPE_CHECKING:
    from berth.api.parameters import Call
    from berth.engine.engine import Engine


class NetworkRoutes:
    """``/networks``."""

    def __init__(self, engine: Engine) -> None:
        self._networks = engine.networks

    def routes(self) -> list[Route]:
        """Return the table."""
        return [
            Route("GET", "/networks", self.list),
            Route("POST", "/networks/create", self.create),
            Route("POST", "/networks/prune", self.prune),
            Route("GET", "/networks/{}", self.inspect),
            Route("POST", "/networks/{}/connect", self.connect),
            Route("POST", "/networks/{}/disconnect", self.disconnect),
            Route("POST", "/networks/{}/shape", self.shape),
            Route("DELETE", "/networks/{}", self.remove),
        ]

    async def list(self, call: Call) -> None:
        """Answer those that pass."""
        await call.exchange.respond(200, self._networks.list(call.filters()))

    async def inspect(self, call: Call) -> None:
        """Answer everything about one."""
        found = self._networks.inspect(call.name)
        compatibility.older_network(found, call.version)
        await call.exchange.respond(200, found)

    async def create(self, call: Call) -> None:
        """Make one."""
        request = await call.decode(NetworkCreate, required=True)
        await call.exchange.respond(201, await self._networks.create(request))

    async def connect(self, call: Call) -> None:
        """Let a container take part in one."""
        request = await call.decode(NetworkConnect, required=True)
        asked = request.endpoint_config or EndpointRequest()
        await self._networks.connections.connect(request.container, call.name, asked)
        await call.exchange.respond(200)

    async def disconnect(self, call: Call) -> None:
        """Take a container out of one."""
        request = await call.decode(NetworkDisconnect, required=True)
        await self._networks.connections.disconnect(
            request.container, call.name, force=request.force
        )
        await call.exchange.respond(200)

    async def shape(self, call: Call) -> None:
        """Change how fast, late and surely a container's packets arrive."""
        request = await call.decode(NetworkShape, required=True)
        await self._networks.connections.shape(request.container, call.name, request.driver_opts)
        await call.exchange.respond(200)

    async def remove(self, call: Call) -> None:
        """Remove one."""
        await self._networks.remove(call.name)
        await call.exchange.respond(204)

    async def prune(self, call: Call) -> None:
        """Remove those that no running container is in."""
        await call.exchange.respond(200, await self._networks.prune(call.filters()))
