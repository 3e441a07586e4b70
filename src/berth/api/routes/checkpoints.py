"""Routes of checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from berth.api.router import Route
from berth.engine.models import CheckpointRequest

if TYPE_CHECKING:
    from berth.api.parameters import Call
    from berth.engine.engine import Engine


class CheckpointRoutes:
    """``/containers/{id}/checkpoints``."""

    def __init__(self, engine: Engine) -> None:
        self._checkpoints = engine.checkpoints

    def routes(self) -> list[Route]:
        """Return the table."""
        return [
            Route("GET", "/containers/{}/checkpoints", self.list),
            Route("POST", "/containers/{}/checkpoints", self.create),
            Route("DELETE", "/containers/{}/checkpoints/{}", self.remove),
        ]

    async def list(self, call: Call) -> None:
        """Answer the names of a container's."""
        names = self._checkpoints.all(call.name, call.text("dir"))
        await call.exchange.respond(200, [{"Name": name} for name in names])

    async def create(self, call: Call) -> None:
        """Make one."""
        request = await call.decode(CheckpointRequest, required=True)
        await self._checkpoints.create(call.name, request)
        await call.exchange.respond(201)

    async def remove(self, call: Call) -> None:
        """Remove one."""
        await self._checkpoints.remove(call.name, call.names[1], call.text("dir"))
        await call.exchange.respond(204)
