"""Warnings on the way: kept until the surface writes them where its caller wants them."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def _drop(_text: str) -> None:
    """Nobody listens."""


_take: Callable[[str], None] = _drop


def listen(take: Callable[[str], None]) -> None:
    """Have every warning from now on given to ``take``, and to nobody who listened before."""
    global _take
    _take = take


def warn(text: str) -> None:
    """Give a warning."""
    _take(text)
