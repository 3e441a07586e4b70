"""Progress of a long operation as a stream of JSON messages to the client."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from berth.api.exchange import Exchange

BAR_CHARS = 50
UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB")
STEP = 1000.0


class ProgressStream:
    """The response begins with the first message, so that what fails before it fails with a status."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def report(self, message: Mapping[str, object]) -> None:
        """Send a message; while the client does not read, those that only count bytes are left out."""
        self.begin()
        detail = message.get("progressDetail")
        if detail:
            if self._exchange.is_held_back:
                return
            message = {**message, "progress": _drawn(detail)}
        self._exchange.send_document(message)

    def begin(self) -> None:
        """Begin the response, if it has not begun."""
        if not self._exchange.answered:
            self._exchange.begin()

    async def end(self) -> None:
        """End the response."""
        self.begin()
        await self._exchange.end()


def _drawn(detail: object) -> str:
    assert isinstance(detail, dict)
    return bar(detail.get("current", 0), detail.get("total", 0))


def bar(current_bytes: int, total_bytes: int) -> str:
    """Return the bar that old clients print as it is."""
    if total_bytes <= 0 or current_bytes > total_bytes:
        return f"{human_size(current_bytes):>8}"
    done = current_bytes * BAR_CHARS // total_bytes
    numbers = f"{human_size(current_bytes):>8}/{human_size(total_bytes)}"
    return f"[{'=' * done}>{' ' * (BAR_CHARS - done)}] {numbers}"


def human_size(size_bytes: float) -> str:
    """Return four significant digits and a decimal unit, as Docker's units package."""
    for unit in UNITS[:-1]:
        if size_bytes < STEP:
            return f"{size_bytes:.4g}{unit}"
        size_bytes /= STEP
    return f"{size_bytes:.4g}{UNITS[-1]}"
