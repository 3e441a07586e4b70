"""Docker's json-file log, written by the monitor: one JSON object a line of output."""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_LINE_BYTES = 16_384  # of one entry; longer lines become several, only the last with a newline
NANOSECONDS = 1_000_000_000
MODE = 0o640
FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC

# Bytes that stand for themselves in Go's JSON, and the newline, which framing takes care of.
SAFE = bytes({*range(0x20, 0x80), 0x0A} - set(b'"\\<>&'))
# The others below 0x80 as Docker writes them, a tab in hexadecimal too. The backslash must be first.
ESCAPES = {b"\\": b"\\\\", b'"': b'\\"', b"\r": b"\\r"} | {
    bytes((n,)): b"\\u%04x" % n for n in (*range(0x20), *b"<>&") if n not in b"\r\n"
}
SEPARATORS = {"\u2028".encode(): b"\\u2028", "\u2029".encode(): b"\\u2029"}
INVALID = {0xDC00 + byte: "\\ufffd" for byte in range(0x80, 0x100)}  # as surrogateescape reads them


def timestamp(time_ns: int) -> str:
    """Return RFC 3339 with nanoseconds, in UTC, without trailing zeros, as Go writes it."""
    seconds, rest = divmod(time_ns, NANOSECONDS)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    fraction = f"{rest:09d}".rstrip("0")
    return f"{text}.{fraction}Z" if fraction else f"{text}Z"


def escape(text: bytes) -> bytes:
    """Return ``text`` as it stands inside a JSON string of Go's, but newlines as they are.

    Each byte that belongs to no valid UTF-8 becomes U+FFFD. One pass when nothing is to escape.
    """
    unsafe = text.translate(None, SAFE)
    if not unsafe:
        return text
    present = set(unsafe)
    for byte, escaped in ESCAPES.items():
        if byte[0] in present:
            text = text.replace(byte, escaped)
    return text if unsafe.isascii() else _escape_unicode(text)


def _escape_unicode(text: bytes) -> bytes:
    try:
        text.decode()
    except UnicodeDecodeError:
        text = text.decode("utf-8", "surrogateescape").translate(INVALID).encode()
    for separator, escaped in SEPARATORS.items():
        text = text.replace(separator, escaped)
    return text


def encode(stream: str, chunk: bytes, time_ns: int) -> bytes:
    """Return the log entries of ``chunk``: one a line, several for a line above MAX_LINE_BYTES.

    An end without a newline makes an entry without one. Each piece of a long line is valid UTF-8 when the
    line is.
    """
    if not chunk:
        return b""
    head = b'{"log":"'
    tail = f'","stream":"{stream}","time":"{timestamp(time_ns)}"}}\n'.encode()
    between = b"\\n" + tail + head
    if not _has_long_line(chunk):
        return _frame(chunk, head, between, tail)
    return b"".join(_frame(piece, head, between, tail) for piece in _pieces(chunk))


def _frame(chunk: bytes, head: bytes, between: bytes, tail: bytes) -> bytes:
    """Frame all lines at once: 200 MB take two seconds so, and fifteen line by line."""
    text = escape(chunk)
    if text.endswith(b"\n"):
        return head + text[:-1].replace(b"\n", between) + b"\\n" + tail
    return head + text.replace(b"\n", between) + tail


def _has_long_line(chunk: bytes) -> bool:
    start = 0
    while len(chunk) - start > MAX_LINE_BYTES:
        newline = chunk.rfind(b"\n", start, start + MAX_LINE_BYTES + 1)
        if newline < 0:
            return True
        start = newline + 1
    return False


def _pieces(chunk: bytes) -> Iterator[bytes]:
    lines = chunk.split(b"\n")
    last = lines.pop()
    for line in lines:
        pieces = split_long(line)
        pieces[-1] += b"\n"
        yield from pieces
    if last:
        yield from split_long(last)


def split_long(line: bytes) -> list[bytes]:
    """Split a line into pieces of at most MAX_LINE_BYTES, at least one, never inside a character."""
    pieces = []
    while len(line) > MAX_LINE_BYTES:
        cut = MAX_LINE_BYTES
        for back in range(4):
            if line[cut - back] & 0xC0 != 0x80:  # not a byte that continues a character
                cut -= back
                break
        pieces.append(line[:cut])
        line = line[cut:]
    return [*pieces, line]


class LogWriter:
    """An open log, rotated before an entry when it has reached ``max_size_bytes`` (None: never).

    ``path`` is the newest of ``max_files`` files, then come ``path.1``, ``path.2`` …  A reader that has
    ``path`` open keeps a whole file, also with one file only: the next one takes its name, never its inode.

    A disk that is full loses entries, never the container: nothing but the constructor raises, half an
    entry never stays, and the log itself says how much is missing as soon as it can.
    """

    def __init__(self, path: str, max_size_bytes: int | None, max_files: int) -> None:
        self._path = path
        self._max_size_bytes = max_size_bytes
        self._max_files = max_files
        self._partial: dict[str, bytes] = {}
        self._lost_bytes = 0
        self._lost_because = ""
        self._fd = os.open(path, FLAGS, MODE)
        self._size_bytes = os.fstat(self._fd).st_size

    def write(self, stream: str, chunk: bytes, time_ns: int) -> None:
        """Add output. The end of an unfinished line waits for the rest, or for more than an entry holds."""
        chunk = self._partial.pop(stream, b"") + chunk
        end = chunk.rfind(b"\n") + 1
        entries = encode(stream, chunk[:end], time_ns)
        *pieces, rest = split_long(chunk[end:])
        for piece in pieces:
            entries += encode(stream, piece, time_ns)
        if rest:
            self._partial[stream] = rest
        if entries:
            self._append(entries, time_ns)

    def flush(self, time_ns: int) -> None:
        """Write what is left of unfinished lines, as entries without a newline."""
        for stream, rest in self._partial.items():
            self._append(encode(stream, rest, time_ns), time_ns)
        self._partial.clear()

    def close(self) -> None:
        """Flush and close."""
        self.flush(time.time_ns())
        os.close(self._fd)

    def _append(self, entries: bytes, time_ns: int) -> None:
        confession = self._confession(time_ns) if self._lost_bytes else b""
        data = confession + entries
        done = 0
        try:
            while done < len(data):
                self._make_room()
                end = self._end_of_file(data, done)
                self._write_all(data[done:end])
                done = end
        except OSError as error:
            self._lost_because = error.strerror or str(error)
        if done >= len(confession):
            self._lost_bytes = 0
        self._lost_bytes += len(data) - max(done, len(confession))

    def _confession(self, time_ns: int) -> bytes:
        text = (
            f"berth: {self._lost_bytes} bytes of the log are missing here: {self._lost_because}\n"
        )
        return encode("stderr", text.encode(), time_ns)

    def _make_room(self) -> None:
        if self._max_size_bytes and self._size_bytes >= self._max_size_bytes:
            self._rotate()

    def _end_of_file(self, entries: bytes, start: int) -> int:
        """Return the end of the entry with which the file is full."""
        if not self._max_size_bytes:
            return len(entries)
        last = start + self._max_size_bytes - self._size_bytes - 1
        return entries.find(b"\n", last) + 1 or len(entries)

    def _write_all(self, data: bytes) -> None:
        """Write all or, as far as the disk allows, nothing: half an entry would spoil the next one."""
        written = os.write(self._fd, data)
        while written < len(data):
            try:
                written += os.write(self._fd, data[written:])
            except OSError:
                os.ftruncate(self._fd, self._size_bytes)
                raise
        self._size_bytes += written

    def _rotate(self) -> None:
        for number in range(self._max_files - 2, 0, -1):
            _replace(f"{self._path}.{number}", f"{self._path}.{number + 1}")
        if self._max_files > 1:
            _replace(self._path, f"{self._path}.1", keep=True)
        # Made beside and moved over: for readers there is a log under this name at every moment.
        fresh = f"{self._path}.new"
        fd = os.open(fresh, FLAGS | os.O_TRUNC, MODE)
        os.replace(fresh, self._path)
        os.close(self._fd)
        self._fd = fd
        self._size_bytes = 0


def _replace(source: str, target: str, *, keep: bool = False) -> None:
    """Rename ``source`` over ``target`` (or give it this second name); nothing when it is not there."""
    try:
        if keep:
            _remove(target)
            os.link(source, target)
        else:
            os.replace(source, target)
    except FileNotFoundError:
        pass


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
