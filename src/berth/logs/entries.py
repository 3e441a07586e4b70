"""Entries of a json-file log, parsed block by block, and how clients get them.

A regular expression over a whole block reads what berth and Docker write; any other line goes through a
JSON decoder, and what is no entry at all (a crash in the middle of a write) is passed over.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import quote_plus

import msgspec

from berth.runtime.jsonlog import timestamp

NEWLINE = b"\\n"
STDOUT = b"stdout"
STDERR = b"stderr"
HEADERS = {STDOUT: b"\x01\0\0\0", STDERR: b"\x02\0\0\0"}
SECOND_CHARS = len("2026-01-02T03:04:05")
NANOSECOND_CHARS = len("2026-01-02T03:04:05.123456789")

# The text up to its first escape, the rest of it, the stream, the attributes, the time.
ENTRY = re.compile(
    rb'\{"log":"([^"\\]*+)((?:\\.[^"\\]*+)*+)","stream":"(stdout|stderr)",'
    rb'(?:"attrs":(\{[^{}]*+\}),)?"time":"([^"\\]*+)"\}\n'
)


# What most of a log is: lines of stdout without an escape but the newline's.
PLAIN = re.compile(
    rb'\{"log":"([^"\\]*+)\\n","stream":"stdout",(?:"attrs":\{[^{}]*+\},)?"time":"[^"\\]*+"\}\n'
)


class LogEntry(NamedTuple):
    """One line of output, or a piece of a long one. ``time`` is RFC 3339 in UTC, as it was written."""

    text: bytes
    stream: bytes
    attributes: bytes
    time: bytes


class _Stored(msgspec.Struct):
    time: str
    log: str = ""
    stream: str = "stdout"
    attrs: dict[str, str] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class LogQuery:
    """Which entries a client wants, and with what. ``tail`` counts entries of both streams."""

    stdout: bool = True
    stderr: bool = True
    follow: bool = False
    joined: bool = True  # lines may share a frame
    since_ns: int | None = None
    until_ns: int | None = None
    tail: int | None = None
    timestamps: bool = False
    details: bool = False


_decode_text = msgspec.json.Decoder(str).decode
_decode_entry = msgspec.json.Decoder(_Stored).decode
_decode_attributes = msgspec.json.Decoder(dict[str, str]).decode


def parse(block: bytes) -> list[LogEntry]:
    """Return the entries of ``block``, which is whole lines."""
    matches = ENTRY.findall(block)
    if len(matches) != block.count(b"\n"):
        return [entry for line in block.splitlines() if (entry := _parse_line(line))]
    return [
        LogEntry(
            plain + b"\n" if rest == NEWLINE else _unescape(plain + rest), stream, attributes, time
        )
        for plain, rest, stream, attributes, time in matches
    ]


def _unescape(text: bytes) -> bytes:
    try:
        return _decode_text(b'"' + text + b'"').encode()
    except msgspec.DecodeError:
        return text + b"\n"


def _parse_line(line: bytes) -> LogEntry | None:
    try:
        stored = _decode_entry(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    stream = STDERR if stored.stream == "stderr" else STDOUT
    attributes = msgspec.json.encode(stored.attrs) if stored.attrs else b""
    return LogEntry(stored.log.encode(), stream, attributes, stored.time.encode())


def time_key(time_ns: int) -> bytes:
    """Return what compares with an entry's time without its Z, byte by byte."""
    return timestamp(time_ns)[:-1].encode()


class Renderer:
    """Selects entries and writes them for one client; ``done`` once nothing more can be wanted.

    Without a terminal each entry is a frame of the Engine API: stream, three zeros, size, data.
    """

    def __init__(self, query: LogQuery, *, terminal: bool, joins: bool = True) -> None:
        shows_times = query.timestamps or query.details
        chooses = bool(query.since_ns or query.until_ns)
        self._joins = joins and query.joined and not (query.follow or shows_times or chooses)
        self._timestamps = query.timestamps
        self._details = query.details
        self._terminal = terminal
        self._streams = {
            name for name, on in ((STDOUT, query.stdout), (STDERR, query.stderr)) if on
        }
        self._since = time_key(query.since_ns) if query.since_ns else None
        self._until = time_key(query.until_ns) if query.until_ns else None
        self.done = False

    def whole(self, block: bytes) -> bytes | None:
        """Return a block of whole lines for the client in one frame; None when that is not so simple.

        Not for those that follow it, if only they would: they take a frame for a line.
        """
        if not self._joins:
            return None
        texts: list[bytes] = PLAIN.findall(block)
        if not texts or len(texts) != block.count(b"\n"):
            return None
        if STDOUT not in self._streams:
            return b""
        texts.append(b"")
        data = b"\n".join(texts)
        return data if self._terminal else HEADERS[STDOUT] + len(data).to_bytes(4, "big") + data

    def select(self, entries: list[LogEntry]) -> list[LogEntry]:
        """Return the entries that are wanted."""
        if self._until is not None:
            for index, entry in enumerate(entries):
                if entry.time[:-1] > self._until:
                    self.done = True
                    entries = entries[:index]
                    break
        if self._since is not None:
            since = self._since
            entries = [entry for entry in entries if entry.time[:-1] >= since]
        if len(self._streams) < len(HEADERS):
            entries = [entry for entry in entries if entry.stream in self._streams]
        return entries

    def render(self, entries: list[LogEntry]) -> bytes:
        """Return the bytes for the client."""
        if self._timestamps or self._details:
            entries = [entry._replace(text=self._prefixed(entry)) for entry in entries]
        if self._terminal:
            return b"".join([entry[0] for entry in entries])
        pieces: list[bytes] = []
        for text, stream, _, _ in entries:
            pieces += (HEADERS[stream], len(text).to_bytes(4, "big"), text)
        return b"".join(pieces)

    def _prefixed(self, entry: LogEntry) -> bytes:
        text = entry.text
        if self._details:
            text = details(entry.attributes) + b" " + text
        if self._timestamps:
            text = padded(entry.time) + b" " + text
        return text


def details(attributes: bytes) -> bytes:
    """Return attributes as ``docker logs --details`` shows them."""
    known = _decode_attributes(attributes) if attributes else {}
    pairs = (f"{quote_plus(name)}={quote_plus(value)}" for name, value in sorted(known.items()))
    return ",".join(pairs).encode()


def padded(time: bytes) -> bytes:
    """Return the time with nine digits after the point, as ``docker logs --timestamps`` shows it."""
    time = time[:-1]
    if len(time) == SECOND_CHARS:
        time += b"."
    return time.ljust(NANOSECOND_CHARS, b"0") + b"Z"
