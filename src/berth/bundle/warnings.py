"""Warnings on the way: kept until the surface writes them where its caller wants them."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_listeners: list[Callable[[str], None]] = []


def listen(take: Callable[[str], None]) -> None:
    """Have every warning given to ``take``."""
    _listeners.append(take)


def warn(text: str) -> None:
    """Give a warning."""
    for take in _listeners:
        take(text)
