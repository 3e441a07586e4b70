"""Times as clients read and write them."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta

from berth.errors import InvalidArgument

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NEVER = "0001-01-01T00:00:00Z"  # Go's zero
SECOND_NS = 1_000_000_000
UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")


def began_ns(moment_ns: int) -> int:
    """Return when something began by the clock that never jumps; what began just now, or later, began now."""
    return time.monotonic_ns() - max(0, time.time_ns() - moment_ns)


def rfc3339(time_ns: int) -> str:
    """Return a time with nanoseconds, Go's zero for 0."""
    if not time_ns:
        return NEVER
    seconds, rest = divmod(time_ns, SECOND_NS)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def moment_ns(text: str) -> int:
    """Return the time that ``text`` means: Unix seconds, RFC 3339, or how long ago ("10m")."""
    if re.fullmatch(r"\d+(\.\d+)?", text):
        seconds, _, fraction = text.partition(".")
        return int(seconds) * SECOND_NS + int(fraction[:9].ljust(9, "0"))
    if re.fullmatch(f"(?:{DURATION.pattern})+", text):
        ago_s = sum(float(number) * UNITS_S[unit] for number, unit in DURATION.findall(text))
        return time.time_ns() - int(ago_s * SECOND_NS)
    try:
        return parse_ns(text)
    except ValueError as error:
        raise InvalidArgument(f'failed to parse value as time or duration: "{text}"') from error


def parse_ns(text: str) -> int:
    """Return an RFC 3339 time in nanoseconds, as exactly as Python reads it; ValueError when it is none."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - EPOCH) // timedelta(microseconds=1) * 1000
