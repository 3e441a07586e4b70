"""The HEALTHCHECK instruction: from its line to an image's check."""

from __future__ import annotations

import re

import msgspec

from berth.errors import InvalidArgument
from berth.oci.image import Healthcheck

MIN_NS = 1_000_000
UNITS_NS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9}
UNITS_NS["h"] = 60 * UNITS_NS["m"]
DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
FLAG = re.compile(r"--([^ ]*)\s*")
RETRIES = re.compile(r"[0-9]{1,9}")
TIMES = ("interval", "timeout", "start-period", "start-interval")


def healthcheck(text: str) -> Healthcheck:
    """Read ``[--interval=30s …] CMD …`` or ``NONE``; InvalidArgument in Docker's words."""
    check = Healthcheck()
    at = 0
    while found := FLAG.match(text, at):
        name, _, value = found[1].partition("=")
        _set(check, name, value)
        at = found.end()
    kind, _, rest = text[at:].partition(" ")
    if kind.upper() == "NONE":
        if rest.strip():
            raise InvalidArgument("HEALTHCHECK NONE takes no arguments")
        check.test = ["NONE"]
    elif kind.upper() == "CMD":
        check.test = _test(rest.strip())
    else:
        raise InvalidArgument(f'Unknown type "{kind.upper()}" in HEALTHCHECK (try CMD)')
    return check


def _test(text: str) -> list[str]:
    if not text:
        raise InvalidArgument("Missing command after HEALTHCHECK CMD")
    if text.startswith("["):
        try:
            return ["CMD", *msgspec.json.decode(text, type=list[str])]
        except msgspec.DecodeError:
            pass
    return ["CMD-SHELL", text]


def _set(check: Healthcheck, name: str, value: str) -> None:
    if name == "retries":
        if not RETRIES.fullmatch(value) or int(value) < 1:
            raise InvalidArgument(f"--retries must be at least 1 (not {value})")
        check.retries = int(value)
    elif name in TIMES:
        setattr(check, name.replace("-", "_"), _duration_ns(name, value))
    else:
        raise InvalidArgument(f"unknown flag: {name}")


def _duration_ns(name: str, text: str) -> int:
    if not re.fullmatch(f"(?:{DURATION.pattern})+", text):
        raise InvalidArgument(f'time: invalid duration "{text}"')
    found = int(sum(float(number) * UNITS_NS[unit] for number, unit in DURATION.findall(text)))
    if 0 < found < MIN_NS:
        raise InvalidArgument(f"Interval {name!r} cannot be less than 1ms")
    return found
