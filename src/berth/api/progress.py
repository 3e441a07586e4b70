"""Progress of a long operation as a stream of JSON messages to the client."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from berth.api.exchange import Exchange


class ProgressStream:
    """The response begins with the first message, so that what fails before it fails with a status."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def report(self, message: Mapping[str, object]) -> None:
        """Send a message; while the client does not read, those that only count bytes are left out."""
        if not self._exchange.answered:
            self._exchange.begin()
        if message.get("progressDetail") and self._exchange.is_held_back:
            return
        self._exchange.send_document(message)

    async def end(self) -> None:
        """End the response."""
        if not self._exchange.answered:
            self._exchange.begin()
        await self._exchange.end()
