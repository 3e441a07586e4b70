"""Docker's json-file log, written by the monitor: one JSON object a line of output."""

from __future__ import annotations

import os
import time


MAX_LINE_BYTES = 16_384
NANOSECONDS = 1_000_000_000

# What Go's encoder writes other than as it is.
ESCAPES = {n: f"\\u{n:04x}" for n in range(32)} | {
    ord('"'): '\\"',
    ord("\\"): "\\\\",
    ord("\n"): "\\n",
    ord("\r"): "\\r",
    ord("\t"): "\\t",
    ord("<"): "\\u003c",
    ord(">"): "\\u003e",
    ord("&"): "\\u0026",
    0x2028: "\\u2028",
    0x2029: "\\u2029",
}


def timestamp(time_ns: int) -> str:
    """Return RFC 3339 with nanoseconds, in UTC, without trailing zeros, as Go writes it."""
    seconds, rest = divmod(time_ns, NANOSECONDS)
    parts = time.gmtime(seconds)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", parts)
    fraction = f"{rest:09d}".rstrip("0")
    return f"{text}.{fraction}Z" if fraction else f"{text}Z"


def encode_line(stream: str, line: bytes, time_ns: int) -> bytes:
    """Return the log entry of one line, with or without its newline."""
    text = line.decode("utf-8", "replace").translate(ESCAPES)
    return f'{{"log":"{text}","stream":"{stream}","time":"{timestamp(time_ns)}"}}\n'.encode()


class LogWriter:
    """An open log. A full disk loses entries, never the container."""

    def __init__(self, path: str, max_size_bytes: int | None, max_files: int) -> None:
        self._path = path
        self._max_size_bytes = max_size_bytes
        self._max_files = max_files
        self._partial: dict[str, bytes] = {}
        self._open()

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._fd = os.open(self._path, flags, 0o640)
        self._size_bytes = os.fstat(self._fd).st_size

    def write(self, stream: str, chunk: bytes, time_ns: int) -> None:
        """Add output; the end of an unfinished line waits for the rest of it."""
        lines = (self._partial.pop(stream, b"") + chunk).split(b"\n")
        rest = lines.pop()
        entries = [self._encode(stream, line + b"\n", time_ns) for line in lines]
        while len(rest) >= MAX_LINE_BYTES:
            entries.append(encode_line(stream, rest[:MAX_LINE_BYTES], time_ns))
            rest = rest[MAX_LINE_BYTES:]
        if rest:
            self._partial[stream] = rest
        if entries:
            self._append(b"".join(entries))

    def _encode(self, stream: str, line: bytes, time_ns: int) -> bytes:
        parts = [line[i : i + MAX_LINE_BYTES] for i in range(0, len(line), MAX_LINE_BYTES)]
        return b"".join(encode_line(stream, part, time_ns) for part in parts)

    def _append(self, data: bytes) -> None:
        try:
            os.write(self._fd, data)
            self._size_bytes += len(data)
            if self._max_size_bytes and self._size_bytes >= self._max_size_bytes:
                self._rotate()
        except OSError:
            return

    def _rotate(self) -> None:
        for number in range(self._max_files - 1, 0, -1):
            older = f"{self._path}.{number}"
            newer = f"{self._path}.{number - 1}" if number > 1 else self._path
            if os.path.exists(newer):
                os.replace(newer, older)
        if self._max_files <= 1:
            os.truncate(self._path, 0)
        os.close(self._fd)
        self._open()

    def close(self) -> None:
        """Write what is left of unfinished lines and close."""
        for stream, rest in self._partial.items():
            self._append(encode_line(stream, rest, time.time_ns()))
        self._partial.clear()
        os.close(self._fd)
