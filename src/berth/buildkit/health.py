"""grpc.health.v1.Health: whoever asks gets an answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from berth.buildkit import messages

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.protobuf.message import Message
    from grpclib.server import Stream

    from berth.buildkit.grpc import Method

SERVING = 1


class Health:
    """The method of the service."""

    NAME = "grpc.health.v1.Health"

    def methods(self) -> Mapping[str, Method]:
        """Return the table."""
        return {"Check": (self.check, "one-one", "HealthRequest", "HealthResponse")}

    async def check(self, stream: Stream[Message, Message]) -> None:
        """Say that all is well."""
        await stream.recv_message()
        await stream.send_message(messages.of("HealthResponse")(status=SERVING))
