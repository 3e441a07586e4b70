"""Pump a hijacked connection: keys and pipes in, output out, until the container's streams end.

Detach keys are found here, not in the engine: what has been typed so far of the sequence is held back, and
sent on as soon as it turns out to be something else.
"""

from __future__ import annotations

import _socket
import os
import select

from berth.client.streams import STDERR, STDOUT, Demultiplexer
from berth.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from berth.cli import terminal

READ_BYTES = 1 << 16
KEPT_BYTES = 1 << 18  # stdin rests while more than this waits for the engine
DEFAULT_DETACH_KEYS = "ctrl-p,ctrl-q"
NO_SIGNAL = getattr(_socket, "MSG_NOSIGNAL", 0)
ENDED = select.POLLIN | select.POLLHUP | select.POLLERR


def detach_keys(text: str) -> bytes:
    """Return the bytes of "ctrl-p,ctrl-q"; InvalidArgument when it is no such list."""
    found = bytearray()
    for key in (text or DEFAULT_DETACH_KEYS).split(","):
        if len(key) == 6 and key.startswith("ctrl-") and "@" <= key[5].upper() <= "_":
            found.append(ord(key[5].upper()) & 0x1F)
        elif len(key) == 1 and key.isascii():
            found.append(ord(key))
        else:
            raise InvalidArgument(f"invalid detach keys ({text}) provided")
    return bytes(found)


class DetachFilter:
    """Looks for the sequence in what is typed."""

    __slots__ = ("_held", "_keys", "found")

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = b""
        self.found = False

    def feed(self, data: bytes) -> bytes:
        """Return what may be sent; ``found`` becomes true when the sequence is complete."""
        out = bytearray()
        for byte in data:
            self._held += bytes((byte,))
            while self._held and not self._keys.startswith(self._held):
                out.append(self._held[0])
                self._held = self._held[1:]
            if self._held == self._keys:
                self.found = True
                break
        return bytes(out)


class Session:
    """One attachment to a container or an exec. ``stdin`` is a descriptor or None."""

    def __init__(
        self,
        hijacked: tuple[_socket.socket, bytes],
        *,
        tty: bool,
        stdin: int | None = None,
        keys: bytes = b"",
        hidden: int = 0,
    ) -> None:
        self._socket, self._early = hijacked
        self._demultiplexer = None if tty else Demultiplexer()
        self._stdin = stdin
        self._filter = DetachFilter(keys) if keys else None
        self._hidden = hidden  # STDOUT or STDERR, when only the other one was asked for
        self._pending = b""
        self._input_ended = stdin is None
        self.detached = False

    def pump(self, signals: terminal.Signals, on_signal: Callable[[int], None]) -> None:
        """Go on until the output ends or the detach keys were typed."""
        self._socket.setblocking(False)
        poll = select.poll()
        poll.register(signals.fd, select.POLLIN)
        if self._early:
            self._show(self._early)
        open_ = True
        while open_ and not self.detached:
            self._arm(poll)
            for fd, events in poll.poll():
                if fd == signals.fd:
                    for number in os.read(signals.fd, 64):
                        on_signal(number)
                elif fd == self._stdin:
                    self._take_input()
                else:
                    open_ = self._exchange(events)
        self._socket.close()

    def close(self) -> None:
        """Hang up without a word."""
        self._socket.close()

    def _arm(self, poll: select.poll) -> None:
        poll.register(
            self._socket.fileno(), select.POLLIN | (select.POLLOUT if self._pending else 0)
        )
        if self._stdin is None:
            return
        if self._input_ended or len(self._pending) > KEPT_BYTES:
            try:
                poll.unregister(self._stdin)
            except KeyError:
                pass
        else:
            poll.register(self._stdin, select.POLLIN)

    def _take_input(self) -> None:
        assert self._stdin is not None
        try:
            data = os.read(self._stdin, READ_BYTES)
        except OSError:  # the terminal went away
            data = b""
        if not data:
            self._input_ended = True
        if self._filter is not None:
            data = self._filter.feed(data)
            self.detached = self._filter.found
        self._pending += data
        self._send()

    def _send(self) -> None:
        try:
            while self._pending:
                sent = self._socket.send(self._pending, NO_SIGNAL)
                self._pending = self._pending[sent:]
            if self._input_ended and self._stdin is not None:
                self._socket.shutdown(_socket.SHUT_WR)
        except BlockingIOError:
            return
        except OSError:  # nobody reads any more: the process closed its stdin or ended
            self._pending = b""
            self._input_ended = True

    def _exchange(self, events: int) -> bool:
        if events & select.POLLOUT:
            self._send()
        if not events & ENDED:
            return True
        try:
            data = self._socket.recv(KEPT_BYTES)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if data:
            self._show(data)
        return bool(data)

    def _show(self, data: bytes) -> None:
        if self._demultiplexer is None:
            write(STDOUT, data)
            return
        for stream, payload in self._demultiplexer.feed(data):
            if stream != self._hidden:
                write(STDERR if stream == STDERR else STDOUT, payload)


def write(fd: int, data: bytes | memoryview) -> None:
    """Write everything, also to a descriptor somebody made non-blocking."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            waiting = select.poll()
            waiting.register(fd, select.POLLOUT)
            waiting.poll()


def check_output(path: str, what: str) -> None:
    """Refuse a file that cannot be made, before anything is asked of the engine."""
    folder = os.path.dirname(os.path.normpath(path)) if path else ""
    if folder and not os.path.isdir(folder):
        why = f"stat {folder}: no such file or directory"
        raise InvalidArgument(f"failed to {what}: invalid output path: {why}")


def write_out(path: str, chunks: Iterable[bytes]) -> None:
    """Write everything to stdout, or to a file that appears when it is whole."""
    if not path:
        for chunk in chunks:
            write(STDOUT, chunk)
        return
    partial = f"{path}.{os.getpid()}.part"
    try:
        fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise InvalidArgument(f"write to {path}: {error.strerror}") from error
    try:
        for chunk in chunks:
            write(fd, chunk)
        os.rename(partial, path)
    except BaseException:
        os.unlink(partial)
        raise
    finally:
        os.close(fd)
