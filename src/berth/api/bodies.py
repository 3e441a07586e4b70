"""Bodies of requests that come in chunks, as docker sends archives: their bytes, without their framing.

h11 takes a body apart chunk by chunk and copies each thrice. Here what has come is one piece, copied once;
h11 gets the head, and from the last chunk on the rest, so it knows the state of the connection.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import h11

HEAD_END = b"\r\n\r\n"
CODING = re.compile(rb"\r\ntransfer-encoding:[ \t]*chunked[ \t]*\r\n", re.IGNORECASE)
SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;[ \t!-~]*)?\r\n")
MAX_LINE_BYTES = 4096
LINE_END = b"\r\n"
NO_SIZE = b"!\r\n"


def head_size(data: bytes) -> int:
    """Return how long the head of a request with a chunked body is, when ``data`` begins with one; else 0."""
    end = data.find(HEAD_END) + len(HEAD_END)
    return end if end >= len(HEAD_END) and CODING.search(data, 0, end) else 0


def has_body(request: h11.Request) -> bool:
    """Say whether a body may follow the head of a request."""
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
        for name, value in request.headers
    )


class ChunkedBody:
    """What follows the head. Sans-I/O."""

    def __init__(self) -> None:
        self._left = 0  # of a chunk's bytes, and of the line end behind them
        self._line = b""  # the beginning of a size
        self._data = b""
        self.is_over = False

    def receive(self, data: bytes) -> bytes:
        """Take what came; return what is h11's: from the last chunk on, or what h11 refuses."""
        if self.is_over:
            return data
        view, at = memoryview(data), 0
        pieces: list[bytes | memoryview] = [self._data] if self._data else []
        rest = b""
        while at < len(data):
            if self._left > len(LINE_END):
                end = min(at + self._left - len(LINE_END), len(data))
                pieces.append(view[at:end])
                self._left -= end - at
                at = end
            elif self._left:
                at = self._pass_line_end(data, at)
            else:
                at = self._read_size(data, at)
            if at < 0:
                rest, self.is_over = self._line, True
                break
        self._data = b"".join(pieces)
        return rest

    def _pass_line_end(self, data: bytes, at: int) -> int:
        """Pass over a byte behind a chunk; -1 when it is another."""
        if data[at] != LINE_END[-self._left]:
            self._line = NO_SIZE
            return -1
        self._left -= 1
        return at + 1

    def _read_size(self, data: bytes, at: int) -> int:
        """Read the line of a chunk's size; return where it ends, -1 when it is the last, or none."""
        end = data.find(b"\n", at) + 1
        self._line += data[at : end or len(data)]
        if not end and len(self._line) <= MAX_LINE_BYTES:
            return len(data)
        found = SIZE_LINE.fullmatch(self._line)
        size = int(found[1], 16) if found else 0
        if not size:
            self._line = self._line + data[end:] if found else NO_SIZE
            return -1
        self._line = b""
        self._left = size + len(LINE_END)
        return end

    def take(self) -> bytes:
        """Return what has come of the body since the last time."""
        data, self._data = self._data, b""
        return data
