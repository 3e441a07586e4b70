"""Log lines on their way to a server (syslog, journald), sent without ever waiting for it.

A server that reads slowly holds the container's output back when it is `HELD_BACK_BYTES` behind, for the
monitor's `STUCK_S` at most: then what waits is thrown away. In mode ``non-blocking``, and while there is no
connection, the oldest messages are thrown away at once. The server is told how many are missing.
"""

from __future__ import annotations

import _socket
import os
import select
import time

from berth.errors import Failed
from berth.runtime import imports
from berth.runtime.loglines import Lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from berth.runtime.messages import RemoteLogMessage

    Compose = Callable[[str, bytes, int], bytes]
    Watch = Callable[[int, int, Callable[[int], None]], None]

HELD_BACK_BYTES = 1 << 20
CONNECT_S = 5.0
RECONNECT_S = 1.0
LAST_WORDS_S = 2.0
DATAGRAMS = ("udp", "unixgram")


class Shipper(Lines):
    """One server, for one container."""

    def __init__(self, message: RemoteLogMessage, compose: Compose, folder_fd: int | None) -> None:
        """Connect; Failed when that is not possible."""
        super().__init__()
        self._message = message
        self._folder_fd = folder_fd
        self._compose = compose
        self._blocking = message["blocking"]
        self._limit = HELD_BACK_BYTES if self._blocking else message["max_buffer"]
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._lost = 0
        self._tried_at = 0.0
        self._watch: Watch | None = None
        self._forget: Callable[[int], None] | None = None
        self._resume: Callable[[], None] | None = None
        self._watched = False
        self._sock: _socket.socket | None = self._connect(CONNECT_S)
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
        size, count = self._pending_bytes, 0
        while size > self._limit and count < len(self._pending) - 1:
            size -= len(self._pending[count])
            count += 1
        return count

    def _throw_away(self, count: int) -> None:
        self._pending_bytes -= sum(map(len, self._pending[:count]))
        del self._pending[:count]
        self._lost += count

    def give_up(self) -> None:
        """Throw away what a server that does not read was to get."""
        self._throw_away(len(self._pending))
        self._disconnect()

    def send(self) -> None:
        """Send what the server takes now."""
        if self._sock is None and not self._reconnect():
            return
        if self._lost and not self._pending:
            self._confess()
        sent = 0
        try:
            assert self._sock is not None
            while sent < len(self._pending):
                data = self._pending[sent]
                done = self._sock.send(data, _socket.MSG_NOSIGNAL)
                self.moved_at = time.monotonic()
                if done < len(data) and self._message["network"] not in DATAGRAMS:
                    self._pending[sent] = data[done:]
                    self._pending_bytes -= done
                    break
                sent += 1
        except BlockingIOError:
            pass
        except OSError:
            self._disconnect()
        self._pending_bytes -= sum(map(len, self._pending[:sent]))
        del self._pending[:sent]
        self._mind()

    def _confess(self) -> None:
        text = b"berth: %d messages of the log are missing here\n" % self._lost
        self._lost = 0
        self._add(self._compose("stderr", text, time.time_ns()))

    def _mind(self) -> None:
        """Ask the loop to come back while something waits."""
        if self._watch is None or self._forget is None or self._resume is None:
            return
        wanted = bool(self._pending) and self._sock is not None
        if wanted and not self._watched and self._sock is not None:
            self._watch(self._sock.fileno(), select.EPOLLOUT, lambda _events: self.send())
        elif not wanted and self._watched and self._sock is not None:
            self._forget(self._sock.fileno())
        self._watched = wanted
        if not self.lags:
            self._resume()

    def _disconnect(self) -> None:
        if self._sock is not None:
            if self._watched and self._forget is not None:
                self._forget(self._sock.fileno())
            self._watched = False
            self._sock.close()
            self._sock = None
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

    def _connect(self, timeout_s: float) -> _socket.socket:
        """Connect, or begin to when there is no time."""
        self._tried_at = time.monotonic()
        network, address = self._message["network"], self._message["address"]
        kind = _socket.SOCK_DGRAM if network in DATAGRAMS else _socket.SOCK_STREAM
        family = self._message["family"]
        sock = _socket.socket(family, kind | _socket.SOCK_CLOEXEC)
        if family == _socket.AF_UNIX:
            # By its folder's descriptor: the host's paths are not seen from here.
            where: object = f"/proc/self/fd/{self._folder_fd}/{address[0]}"
        else:
            where = (address[0], int(address[1]))
        sock.settimeout(timeout_s)
        try:
            sock.connect(where)  # type: ignore[arg-type]  # of the one kind or the other
        except BlockingIOError:
            pass
        except OSError as error:
            sock.close()
            why = (error.strerror or str(error)).lower()
            shown = self._message["shown"]
            raise Failed(
                f"failed to initialize logging driver: dial {network} {shown}: connect: {why}"
            ) from error
        sock.setblocking(False)
        return sock

    def close(self) -> None:
        """Send the rest, to a server that takes it."""
        self._finish_lines()
        if self._sock is not None:
            self._sock.settimeout(LAST_WORDS_S)
            try:
                for data in self._pending:
                    self._sock.sendall(data)
            except OSError:
                pass
            if self._watched and self._forget is not None:
                self._forget(self._sock.fileno())
            self._sock.close()
            self._sock = None
        if self._folder_fd is not None:
            os.close(self._folder_fd)

    def _finish_lines(self) -> None:
        """Send unfinished lines."""
        self._resume = None  # there is no more output
        Lines.flush(self, time.time_ns())


def open_shipper(message: RemoteLogMessage, folder_fd: int | None) -> Shipper:
    """Return one that is connected; Failed when nobody is there."""
    driver: ModuleType = imports.from_host(f"berth.runtime.{message['driver']}")
    return Shipper(message, driver.composer(message), folder_fd)
