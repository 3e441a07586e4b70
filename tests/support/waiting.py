"""Wait for a condition instead of for the clock."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
_never = threading.Event()


def wait_for(condition: Callable[[], T], what: str, *, timeout_s: float = 20.0) -> T:
    """Return the condition's first true value; AssertionError names ``what`` when there is none."""
    end = time.monotonic() + timeout_s
    pause_s = 0.005
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited {timeout_s:g} s in vain until {what}; last: {value!r}")
        _never.wait(pause_s)
        pause_s = min(pause_s * 1.5, 0.1)
