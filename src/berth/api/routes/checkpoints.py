"""Routes of checkpoints, answered as an engine answers that has no experimental features."""

from __future__ import annotations

from typing import TYPE_CHECKING

from berth.api.router import Route
from berth.errors import InvalidArgument, Unsupported

if TYPE_CHECKING:
    from berth.api.parameters import Call

DISABLED = (
    "This experimental feature is disabled by default. Start the Docker daemon in experimental mode in"
    " order to enable it."
)
HINT = "this engine has no checkpoints; berth-oci makes them of containers from bundles"


class CheckpointRoutes:
    """``/containers/{id}/checkpoints``."""

    def routes(self) -> list[Route]:
        """Return the table."""
        return [
            Route("GET", "/containers/{}/checkpoints", self.refuse),
            Route("POST", "/containers/{}/checkpoints", self.refuse),
            Route("DELETE", "/containers/{}/checkpoints/{}", self.refuse),
        ]

    async def refuse(self, call: Call) -> None:
        """Refuse, in Docker's words."""
        raise Unsupported(DISABLED, hint=HINT)


def check_start(call: Call) -> None:
    """Refuse to start a container from a checkpoint: it must not begin anew instead."""
    if call.text("checkpoint"):
        raise InvalidArgument("checkpoint is only supported in experimental mode", hint=HINT)
