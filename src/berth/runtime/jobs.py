"""berthd's hold on workers: what they report, and how they end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from berth.errors import Failed
from berth.runtime.channel import Channel, Message, told_error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping


class Job:
    """A worker at work."""

    def __init__(self, channel: Channel, name: str) -> None:
        self._channel = channel
        self._name = name
        self._outcome: Message | None = None

    async def __aiter__(self) -> AsyncIterator[Mapping[str, object]]:
        """Yield its progress until it ends."""
        while self._outcome is None:
            item = await self._channel.receive()
            message: Message = (
                item[0] if item else {"error": Failed(f"{self._name}: the worker died").record()}
            )
            if "progress" in message:
                progress = message["progress"]
                assert isinstance(progress, dict)
                yield progress
            else:
                self._outcome = message
                self._channel.close()

    async def first(self) -> Mapping[str, object]:
        """Wait for its first report; raise the kind that it raised instead."""
        async for progress in self:
            return progress
        return await self.result()

    async def result(self) -> Mapping[str, object]:
        """Wait for the end; raise the kind that it raised."""
        async for _ in self:
            pass
        assert self._outcome is not None
        if "error" in self._outcome:
            raise told_error(self._outcome)
        result = self._outcome["result"]
        return result if isinstance(result, dict) else {}

    async def end(self) -> None:
        """End the worker; it touches nothing any more when this returns."""
        self._channel.finish()
        while await self._channel.receive() is not None:
            pass
