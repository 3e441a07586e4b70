"""Signals by name or number, as clients write them."""

from __future__ import annotations

import signal

from berth.errors import InvalidArgument

PREFIX = "SIG"


def signal_number(name: str) -> int:
    """Return the number of a signal given as "9", "KILL", "SIGKILL" or "RTMIN+1"."""
    if name.isascii() and name.isdigit() and int(name):
        if int(name) < signal.NSIG:
            return int(name)
        raise InvalidArgument(f"The linux daemon does not support signal {int(name)}")
    full = name.upper() if name.upper().startswith(PREFIX) else PREFIX + name.upper()
    base, plus, offset = full.partition("+")
    number = {item.name: item.value for item in signal.Signals}.get(base)
    if number is None or (plus and not offset.isdigit()):
        raise InvalidArgument(f"invalid signal: {name}")
    found = number + (int(offset) if plus else 0)
    if found >= signal.NSIG:
        raise InvalidArgument(f"invalid signal: {name}")
    return found
