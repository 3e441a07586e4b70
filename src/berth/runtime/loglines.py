"""Lines of output, put together from what a pipe gives; any log is written from these."""

from __future__ import annotations

MAX_LINE_BYTES = 16_384  # of one entry; longer lines become several, only the last with a newline


class Lines:
    """Holds the ends of unfinished lines, and hands on what can be written."""

    def __init__(self) -> None:
        self._partial: dict[str, bytes] = {}

    def take(self, stream: str, pieces: list[bytes], time_ns: int) -> None:
        """Write output: the first piece is whole lines, the others, if any, are pieces of a long one."""
        raise NotImplementedError

    def write(self, stream: str, chunk: bytes, time_ns: int) -> None:
        """Add output. The end of an unfinished line waits for the rest, or for more than an entry holds."""
        chunk = self._partial.pop(stream, b"") + chunk
        end = chunk.rfind(b"\n") + 1
        *pieces, rest = split_long(chunk[end:])
        if rest:
            self._partial[stream] = rest
        if end or pieces:
            self.take(stream, [chunk[:end], *pieces], time_ns)

    def close(self) -> None:
        """Write what is left, and end."""
        raise NotImplementedError

    def lose(self, size_bytes: int, time_ns: int) -> None:
        """Say in the log that so much is not in it."""
        self.flush(time_ns)
        text = f"berth: {size_bytes} bytes of the log are missing here: its disk is too slow\n"
        self.take("stderr", [text.encode()], time_ns)

    def flush(self, time_ns: int) -> None:
        """Write what is left of unfinished lines, as entries without a newline."""
        for stream, rest in self._partial.items():
            self.take(stream, [rest], time_ns)
        self._partial.clear()


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
