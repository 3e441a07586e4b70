"""The log of the driver ``local``: output as it came, in records, with next to no work a line.

    record   size (4 bytes, big-endian) · stream (1) · time in ns (8) · output · size again (4)

The size is that of stream, time and output. Output ends with a newline, but for pieces of lines above
`MAX_LINE_BYTES` and the end of the last one. The second size lets a reader go backwards.
"""

from __future__ import annotations

import time

from berth.runtime.logfile import LogFile
from berth.runtime.loglines import Lines

STREAMS = {"stdout": b"\x01", "stderr": b"\x02"}
SIZE_BYTES = 4
HEAD_BYTES = 9  # of stream and time
MAX_SIZE_BYTES = 20 << 20  # Docker's defaults
MAX_FILES = 5


def encode(stream: str, output: bytes, time_ns: int) -> bytes:
    """Return a record."""
    if not output:
        return b""
    size = (HEAD_BYTES + len(output)).to_bytes(SIZE_BYTES, "big")
    return b"".join((size, STREAMS[stream], time_ns.to_bytes(8, "big"), output, size))


def end_of_record(records: bytes, start: int, position: int) -> int:
    """Return where the record with the byte before ``position`` ends."""
    end = start
    while end < position and end < len(records):
        end += int.from_bytes(records[end : end + SIZE_BYTES], "big") + 2 * SIZE_BYTES
    return end


class LocalWriter(Lines):
    """An open log of this kind; see :mod:`berth.runtime.logfile`."""

    def __init__(
        self, path: str, *, max_size_bytes: int | None, max_files: int, compress: bool
    ) -> None:
        super().__init__()
        self._file = LogFile(
            path,
            max_size_bytes=max_size_bytes,
            max_files=max_files,
            compress=compress,
            end_of_entry=end_of_record,
        )

    def take(self, stream: str, pieces: list[bytes], time_ns: int) -> None:
        """Write records."""
        self._file.append(
            b"".join([encode(stream, piece, time_ns) for piece in pieces]),
            lambda text: encode("stderr", text, time_ns),
        )

    def clear(self) -> None:
        """Forget everything that is on disk."""
        self._file.clear()

    def close(self) -> None:
        """Flush and close."""
        self.flush(time.time_ns())
        self._file.close()
