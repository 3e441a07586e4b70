"""Routes of volumes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from berth.api.router import Route
from berth.engine.models import VolumeCreate

if TYPE_CHECKING:
    from berth.api.parameters import Call
    from berth.engine.engine import Engine

# Until then a prune without a filter took the named volumes along.
ANONYMOUS_ONLY_SINCE = (1, 42)


class VolumeRoutes:
    """``/volumes``."""

    def __init__(self, engine: Engine) -> None:
        self._volumes = engine.volumes

    def routes(self) -> list[Route]:
        """Return the table."""
        return [
            Route("GET", "/volumes", self.list),
            Route("POST", "/volumes/create", self.create),
            Route("POST", "/volumes/prune", self.prune),
            Route("GET", "/volumes/{}", self.inspect),
            Route("DELETE", "/volumes/{}", self.remove),
        ]

    async def list(self, call: Call) -> None:
        """Answer those that pass."""
        await call.exchange.respond(200, self._volumes.list(call.filters()))

    async def inspect(self, call: Call) -> None:
        """Answer everything about one."""
        await call.exchange.respond(200, self._volumes.inspect(call.name))

    async def create(self, call: Call) -> None:
        """Make one, or answer the one that has the name."""
        request = await call.decode(VolumeCreate)
        await call.exchange.respond(201, self._volumes.create(request))

    async def remove(self, call: Call) -> None:
        """Remove one."""
        await self._volumes.remove(call.name, force=call.flag("force"))
        await call.exchange.respond(204)

    async def prune(self, call: Call) -> None:
        """Remove those that no container has."""
        filters = call.filters()
        if call.version < ANONYMOUS_ONLY_SINCE:
            filters.setdefault("all", ["true"])
        await call.exchange.respond(200, await self._volumes.prune(filters))
