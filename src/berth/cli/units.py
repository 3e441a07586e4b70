"""Sizes, durations and times between people's spelling and numbers."""

from __future__ import annotations

import time

SUFFIXES = {"": 0, "b": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
BINARY_NAMES = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
DECIMAL_NAMES = ("B", "kB", "MB", "GB", "TB", "PB")
DURATIONS_NS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
BILLION = 1_000_000_000


def integer(text: str) -> int:
    """Return a decimal number; ValueError in Go's words."""
    digits = text[1:] if text[:1] in ("-", "+") else text
    if not digits.isdecimal():
        raise ValueError(f'strconv.ParseInt: parsing "{text}": invalid syntax')
    return int(text)


def size(text: str) -> int:
    """Return the bytes of "512", "64m", "1.5GiB"; -1 stays. Suffixes are powers of 1024, as Docker's."""
    if text == "-1":
        return -1
    digits = text.rstrip("bBiIkKmMgGtTpP").rstrip()
    suffix = text[len(digits) :].strip().lower()
    unit = suffix if suffix == "b" else suffix.removesuffix("b").removesuffix("i")
    if not digits.replace(".", "", 1).isdecimal():
        number = "".join(letter for letter in text if letter.isdecimal() or letter == ".")
        if number and text.startswith(number):
            raise ValueError(f"invalid suffix: '{text[len(number) :].strip()}'")
        raise ValueError(f"invalid size: '{text}'")
    if unit not in SUFFIXES:
        raise ValueError(f"invalid suffix: '{suffix}'")
    return int(float(digits) * 1024 ** SUFFIXES[unit])


def billionths(text: str) -> int:
    """Return a decimal such as "1.5" in billionths (Docker's NanoCpus)."""
    sign = -1 if text.startswith("-") else 1
    whole, _, part = text.removeprefix("-").partition(".")
    if not (whole + part).isdecimal():
        raise ValueError(f"failed to parse {text} as a rational number")
    if len(part.rstrip("0")) > 9:
        raise ValueError("value is too precise")
    return sign * (int(whole or "0") * BILLION + int(part[:9].ljust(9, "0")))


def duration_ns(text: str) -> int:
    """Return the nanoseconds of a Go duration such as "1m30s"."""
    total, digits, rest = 0.0, "", text
    while rest:
        if rest[0].isdecimal() or rest[0] == ".":
            digits, rest = digits + rest[0], rest[1:]
            continue
        unit = rest[:2] if rest[:2] in DURATIONS_NS else rest[:1]
        if not digits or unit not in DURATIONS_NS:
            raise ValueError(f'time: invalid duration "{text}"')
        total += float(digits) * DURATIONS_NS[unit]
        digits, rest = "", rest[len(unit) :]
    if (digits and digits != "0") or not text:
        raise ValueError(f'time: missing unit in duration "{text}"')
    return round(total)


def human_size(count: float, *, binary: bool = False, digits: int = 3) -> str:
    """Return "13.3kB", or with ``binary`` "1.934MiB", which always has four digits."""
    base, names = (1024.0, BINARY_NAMES) if binary else (1000.0, DECIMAL_NAMES)
    power = 0
    while count >= base and power < len(names) - 1:
        count /= base
        power += 1
    return f"{count:.{4 if binary else digits}g}{names[power]}"


def human_duration(seconds: float) -> str:
    """Return "Less than a second", "5 minutes", "About an hour", "3 weeks" as Docker's tables do."""
    whole = int(seconds)
    hours = int(seconds / 3600 + 0.5)
    steps = (
        (whole < 1, "Less than a second"),
        (whole == 1, "1 second"),
        (whole < 60, f"{whole} seconds"),
        (whole < 120, "About a minute"),
        (whole < 3600, f"{whole // 60} minutes"),
        (hours == 1, "About an hour"),
        (hours < 48, f"{hours} hours"),
        (hours < 336, f"{hours // 24} days"),
        (hours < 1440, f"{hours // 168} weeks"),
        (hours < 17_520, f"{hours // 720} months"),
    )
    years = f"{whole // 31_536_000} years"
    return next((text for is_so, text in steps if is_so), years)


def ago(since_s: float) -> str:
    """Return how long ago a time was."""
    return f"{human_duration(max(0.0, time.time() - since_s))} ago"


def seconds(text: str) -> float:
    """Return the seconds since the epoch of an RFC 3339 time; 0 for none."""
    return nanoseconds(text) / BILLION


def nanoseconds(text: str) -> int:
    """Return the nanoseconds since the epoch of an RFC 3339 time; 0 for none."""
    if len(text) < 19 or text.startswith("0001-"):
        return 0
    date, clock, rest = text[:10], text[11:19], text[19:]
    part = ""
    if rest.startswith("."):
        stop = next((i for i, c in enumerate(rest[1:], 1) if not c.isdecimal()), len(rest))
        part, rest = rest[1:stop], rest[stop:]
    year, month, day = (int(number) for number in date.split("-"))
    hour, minute, second = (int(number) for number in clock.split(":"))
    found = _days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second
    if len(rest) == 6 and rest[0] in "+-":
        offset = int(rest[1:3]) * 3600 + int(rest[4:6]) * 60
        found -= offset if rest[0] == "+" else -offset
    return found * BILLION + int(part[:9].ljust(9, "0"))


def _days(year: int, month: int, day: int) -> int:
    """Return the days since 1970-01-01 in the Gregorian calendar (March-based months)."""
    year -= month <= 2
    of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return year * 365 + year // 4 - year // 100 + year // 400 + of_year - 719_468


def local_time(since_s: float) -> str:
    """Return "2024-01-02 15:04:05 +0100 CET" for tables."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(since_s))


def go_time(text: str) -> str:
    """Return an RFC 3339 time in UTC as Go prints one: "2024-01-02 15:04:05.123 +0000 UTC"."""
    if len(text) < 20 or not text.endswith("Z"):
        return text
    fraction = text[19:-1].rstrip("0").rstrip(".")
    return f"{text[:10]} {text[11:19]}{fraction} +0000 UTC"


def log_time(text: str, now_ns: int) -> str:
    """Return what the API's ``since`` and ``until`` take for "42m", an RFC 3339 time or a Unix time."""
    if text.replace(".", "", 1).isdecimal():
        return text
    complete = text + "0001-01-01T00:00:00"[len(text) :] if len(text) < 19 else text
    try:
        found = nanoseconds(complete)
    except ValueError:
        try:
            found = now_ns - duration_ns(text)
        except ValueError:
            raise ValueError(f'failed to parse value as time or duration: "{text}"') from None
    return f"{found // BILLION}.{found % BILLION:09}"
