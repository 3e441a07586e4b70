"""Requests that need no parser: whole in one piece, as clients send nearly all of theirs.

One regular expression is a third of the work of h11, which gets everything else: bodies in pieces, closing
connections, other versions, whatever looks odd. What this reads it reads as h11 does.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

import h11

from berth.api.reasons import REASONS

MAX_BYTES = 64 << 10
# Each part takes what it can and gives nothing back: no bytes of a client's make it try twice.
HEAD = re.compile(
    rb"(GET|HEAD|POST|DELETE|PUT) (/[!-~]*+) HTTP/1\.1\r\n"
    rb"((?:[-!#$%&'*+.^_`|~0-9A-Za-z]++:[ \t!-~]*+\r\n)++)\r\n"
)
LINE = re.compile(rb"([^:]+):([^\r]*)\r\n")
# What these say is the parser's matter; of `Connection` only what changes nothing.
ODD = frozenset((b"transfer-encoding", b"expect"))
KEPT_OPEN = frozenset((b"keep-alive", b"upgrade"))

Headers = list[tuple[bytes, bytes]]


class Plain(NamedTuple):
    """A whole request. Has the fields of h11's, and the body."""

    method: bytes
    target: bytes
    headers: Headers
    body: bytes


def parse(data: bytes) -> Plain | None:
    """Return the request that ``data`` is; None when it is more, less, or not as plain as that."""
    match = HEAD.match(data) if len(data) <= MAX_BYTES else None
    if match is None:
        return None
    headers = [(name.lower(), value.strip(b" \t")) for name, value in LINE.findall(match[3])]
    hosts, length = 0, None
    for name, value in headers:
        if name in ODD or (name == b"connection" and value.lower() not in KEPT_OPEN):
            return None
        if name == b"host":
            hosts += 1
        elif name == b"content-length":
            if length is not None or not value.isdigit():
                return None
            length = int(value)
    body = data[match.end() :]
    if hosts != 1 or len(body) != (length or 0):
        return None
    return Plain(match[1], match[2], headers, body)


class Answer:
    """The answer to such a request: h11's events as bytes."""

    __slots__ = ("_chunked", "closes", "done", "open")

    def __init__(self) -> None:
        self._chunked = False
        self.open = False  # the head was sent and the end was not
        self.done = False
        self.closes = False

    def encode(self, event: h11.Event) -> bytes:
        """Return an event as it is sent."""
        if isinstance(event, h11.Data):
            data = bytes(event.data)
            return b"%x\r\n%b\r\n" % (len(data), data) if self._chunked and data else data
        if isinstance(event, h11.Response):
            head, self._chunked, self.closes = _head(
                event.status_code, tuple(event.headers.raw_items())
            )
            self.open = True
            return head
        assert isinstance(event, h11.EndOfMessage)
        self.open, self.done = False, True
        return b"0\r\n\r\n" if self._chunked else b""


@lru_cache(maxsize=256)
def _head(status: int, headers: tuple[tuple[bytes, bytes], ...]) -> tuple[bytes, bool, bool]:
    """Return the bytes of a head, and whether it says that chunks follow, or that the end comes."""
    lines = b"".join([b"%b: %b\r\n" % pair for pair in headers])
    known = {name.lower(): value.lower() for name, value in headers}
    return (
        b"HTTP/1.1 %d %b\r\n%b\r\n" % (status, REASONS[status], lines),
        known.get(b"transfer-encoding") == b"chunked",
        known.get(b"connection") == b"close",
    )
