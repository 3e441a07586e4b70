"""Log lines on their way to a server (syslog, journald), sent without ever waiting for it.

A server that reads slowly holds the container's output back when it is `HELD_BACK_BYTES` behind, for the
monitor's `STUCK_S` at most: then what waits is thrown away. In mode ``non-blocking``, and while there is no
connection, the oldest messages are thrown away at once. The server is told how many are missing.
"""

from __future__ import annotations

import os
import time

from berth.errors import Failed
from berth.runtime import imports, logconnection
from berth.runtime.logconnection import DATAGRAMS, SECURE, Connection
from berth.runtime.loglines import Lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from berth.runtime.messages import RemoteLogMessage
    from berth.runtime.securelog import Certificates

    Compose = Callable[[str, bytes, int], bytes]
    Watch = Callable[[int, int, Callable[[int], None]], None]

HELD_BACK_BYTES = 1 << 20
CONNECT_S = 5.0
RECONNECT_S = 1.0
LAST_WORDS_S = 2.0


class Shipper(Lines):
    """One server, for one container."""

    def __init__(
        self,
        message: RemoteLogMessage,
        compose: Compose,
        fd: int | None,
        certificates: Certificates | None,
    ) -> None:
        """Connect; Failed when that is not possible."""
        super().__init__()
        self._message = message
        self._fd = fd
        self._certificates = certificates
        self._compose = compose
        self._blocking = message["blocking"]
        self._limit = HELD_BACK_BYTES if self._blocking else message["max_buffer"]
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._begun = False  # the first of them: its rest must follow
        self._lost = 0
        self._tried_at = 0.0
        self._watch: Watch | None = None
        self._forget: Callable[[int], None] | None = None
        self._resume: Callable[[], None] | None = None
        self._watched = 0  # the events, and whose
        self._watched_fd = -1
        self._sock: Connection | None = self._connect(CONNECT_S)
        self.moved_at = time.monotonic()

    def serve(
        self, watch: Watch, forget: Callable[[int], None], resume: Callable[[], None]
    ) -> None:
        """Go on when the server reads: the loop's ways to say so; ``resume``: no more output waits."""
        self._watch, self._forget, self._resume = watch, forget, resume

    @property
    def lags(self) -> bool:
        """Say whether it holds back the output."""
        return self._blocking and self._sock is not None and self._pending_bytes > self._limit

    def take(self, stream: str, pieces: list[bytes], time_ns: int) -> None:
        """Make messages of lines, and send what can be sent."""
        for piece in pieces:
            *lines, rest = piece.split(b"\n")
            for line in lines:
                self._add(self._compose(stream, line + b"\n", time_ns))
            if rest:
                self._add(self._compose(stream, rest, time_ns))
        self.send()
        if not self._blocking or self._sock is None:
            self._throw_away(self._excess())

    def _add(self, message: bytes) -> None:
        self._pending.append(message)
        self._pending_bytes += len(message)

    def _excess(self) -> int:
        """Return how many of the oldest messages are too many."""
        size, count = self._pending_bytes, int(self._begun)
        while size > self._limit and count < len(self._pending) - 1:
            size -= len(self._pending[count])
            count += 1
        return count - int(self._begun)

    def _throw_away(self, count: int) -> None:
        first = int(self._begun)
        those = slice(first, first + count)
        self._pending_bytes -= sum(map(len, self._pending[those]))
        del self._pending[those]
        self._lost += count

    def give_up(self) -> None:
        """Throw away what a server that does not read was to get."""
        self._disconnect()
        self._throw_away(len(self._pending))

    def send(self) -> None:
        """Send what the server takes now."""
        if self._sock is None and not self._reconnect():
            return
        if self._lost and not self._pending:
            self._confess()
        sent, broken = 0, False
        try:
            assert self._sock is not None
            while sent < len(self._pending):
                data = self._pending[sent]
                done = self._sock.put(data)
                self.moved_at = time.monotonic()
                self._begun = done < len(data) and self._message["network"] not in DATAGRAMS
                if self._begun:
                    self._pending[sent] = data[done:]
                    self._pending_bytes -= done
                    break
                sent += 1
        except BlockingIOError:
            pass
        except OSError:
            broken = True
        self._pending_bytes -= sum(map(len, self._pending[:sent]))
        del self._pending[:sent]
        if broken:
            self._disconnect()
        self._mind()

    def _confess(self) -> None:
        text = b"berth: %d messages of the log are missing here\n" % self._lost
        self._lost = 0
        self._add(self._compose("stderr", text, time.time_ns()))

    def _mind(self) -> None:
        """Ask the loop to come back while something waits."""
        if self._watch is None or self._forget is None or self._resume is None:
            return
        sock = self._sock
        wanted = sock.events if sock is not None and (self._pending or sock.holds) else 0
        if wanted != self._watched:
            self._unwatch()
            if wanted and sock is not None:
                self._watch(sock.fileno(), wanted, lambda _events: self.send())
                self._watched, self._watched_fd = wanted, sock.fileno()
        if not self.lags:
            self._resume()

    def _unwatch(self) -> None:
        if self._watched and self._forget is not None:
            self._forget(self._watched_fd)
        self._watched = 0

    def _disconnect(self) -> None:
        """Hang up. What had begun to be sent ends in the middle, for there is nobody who gets the rest."""
        if self._sock is not None:
            self._unwatch()
            self._sock.close()
            self._sock = None
        if self._begun:
            self._begun = False
            self._throw_away(1)
        if self._resume is not None:
            self._resume()

    def _reconnect(self) -> bool:
        now = time.monotonic()
        if now - self._tried_at < RECONNECT_S:
            return False
        try:
            self._sock = self._connect(0)
        except Failed:
            return False
        return True

    def _connect(self, timeout_s: float) -> Connection:
        """Connect, or begin to when there is no time."""
        self._tried_at = time.monotonic()
        sock = logconnection.connect(self._message, self._fd, timeout_s)
        if self._certificates is None:
            return Connection(sock)
        return self._certificates.secure(sock, timeout_s)

    def close(self) -> None:
        """Send the rest, to a server that takes it."""
        self._finish_lines()
        if self._sock is not None:
            self._unwatch()
            try:
                self._sock.finish(self._pending, LAST_WORDS_S)
            except OSError:
                pass
            self._sock.close()
            self._sock = None
        if self._fd is not None:
            os.close(self._fd)

    def _finish_lines(self) -> None:
        """Send unfinished lines."""
        self._resume = None  # there is no more output
        Lines.flush(self, time.time_ns())


def open_shipper(message: RemoteLogMessage, fd: int | None) -> Shipper:
    """Return one that is connected; Failed when nobody is there. ``fd`` is its own from then on."""
    driver: ModuleType = imports.from_host(f"berth.runtime.{message['driver']}")
    certificates = None
    if message["network"] == SECURE:
        assert fd is not None
        certificates = imports.from_host("berth.runtime.securelog").Certificates(message, fd)
    return Shipper(message, driver.composer(message), fd, certificates)
