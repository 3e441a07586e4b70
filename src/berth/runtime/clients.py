"""Attached clients of a monitor: framing, buffers and detach keys. No event loop here."""

from __future__ import annotations

import _socket
import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.runtime.messages import AttachmentMessage

STDOUT = 1
STDERR = 2
# Beyond this a client holds back the container's output, as a pipe would.
MAX_PENDING_BYTES = 1 << 20
CHUNK_BYTES = 65_536


class Client:
    """One connection that gets output and may give input. The socket is non-blocking and ours."""

    __slots__ = (
        "detach_keys",
        "early",
        "input_open",
        "leaving",
        "matched",
        "moved_at",
        "multiplexed",
        "pending",
        "sock",
        "streams",
    )

    def __init__(self, fd: int, options: AttachmentMessage) -> None:
        self.sock = _socket.socket(fileno=fd)
        self.sock.setblocking(False)
        self.streams = {
            stream
            for stream, wanted in ((STDOUT, options["stdout"]), (STDERR, options["stderr"]))
            if wanted
        }
        self.input_open = options["stdin"]
        self.leaving = False  # its input has ended: it gets what is on its way to it, and no more
        self.multiplexed = options["multiplexed"]
        self.detach_keys = bytes.fromhex(options["detach_keys"])
        self.early = bytes.fromhex(options["early"])
        self.matched = 0
        self.pending = bytearray()
        self.moved_at = time.monotonic()  # when it last took something

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self.sock.fileno()

    @property
    def lags(self) -> bool:
        """Say whether it holds back the output."""
        return len(self.pending) > MAX_PENDING_BYTES

    def queue(self, stream: int, chunk: bytes) -> None:
        """Add output of a stream the client wants."""
        if stream in self.streams and not self.leaving:
            if self.multiplexed:
                self.pending += bytes((stream, 0, 0, 0)) + len(chunk).to_bytes(4, "big")
            self.pending += chunk

    def flush(self) -> bool:
        """Send what the socket takes; False when the client is gone."""
        while self.pending:
            try:
                sent = self.sock.send(self.pending, _socket.MSG_NOSIGNAL)
            except BlockingIOError:
                return True
            except OSError:
                return False
            del self.pending[:sent]
            self.moved_at = time.monotonic()
        return True

    def read_input(self) -> bytes | None:
        """Return input, empty at its end; None when there is none just now."""
        if self.early:
            data, self.early = self.early, b""
            return data
        try:
            return self.sock.recv(CHUNK_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def find_detach(self, data: bytes) -> tuple[bytes, bool]:
        """Return (input without the detach keys, whether they were complete).

        A partial sequence is held back until the next byte decides.
        """
        keys = self.detach_keys
        if not keys:
            return data, False
        out = bytearray()
        for byte in data:
            if byte == keys[self.matched]:
                self.matched += 1
                if self.matched == len(keys):
                    return bytes(out), True
                continue
            out += keys[: self.matched]
            self.matched = 1 if byte == keys[0] else 0
            if not self.matched:
                out.append(byte)
        return bytes(out), False

    def close(self) -> None:
        """Hang up, also for others that hold duplicates of the socket."""
        try:
            self.sock.shutdown(_socket.SHUT_RDWR)
        except OSError:
            pass
        self.sock.close()


class Input:
    """The container's stdin: a pipe or a terminal's master, written without blocking."""

    __slots__ = ("closing", "fd", "pending", "terminal")

    def __init__(self, fd: int, *, terminal: bool) -> None:
        self.fd = fd
        self.terminal = terminal
        self.pending = bytearray()
        self.closing = False
        os.set_blocking(fd, False)

    def flush(self) -> bool:
        """Write what fits; False when nobody reads any more or everything was written before closing."""
        while self.pending:
            try:
                written = os.write(self.fd, self.pending[:CHUNK_BYTES])
            except BlockingIOError:
                return True
            except OSError:
                return False
            del self.pending[:written]
        return not self.closing
