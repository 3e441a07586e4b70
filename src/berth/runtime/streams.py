"""The streams of a process: its output goes to its log and to attached clients, their input to it.

A client that lags holds the output back, as a pipe does; should it take nothing for `STUCK_S` while others
read, too, it is hung up on. After the end a client takes the rest in its own time, and holds up nobody.
"""

from __future__ import annotations

import fcntl
import os
import select
import time

from berth.runtime.clients import CHUNK_BYTES, STDERR, STDOUT, Client, Input

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from berth.runtime.jsonlog import LogWriter
    from berth.runtime.locallog import LocalWriter
    from berth.runtime.ringlog import RingLog
    from berth.runtime.shipping import Shipper

STUCK_S = 10.0
TERMINAL_BYTES = 1 << 16  # more than the kernel keeps of a terminal's output
STREAM_NAMES = {STDOUT: "stdout", STDERR: "stderr"}


class Streams:
    """An event loop that serves them. What else it serves is its subclass's."""

    def __init__(self, *, stdin_once: bool) -> None:
        self.epoll = select.epoll()
        self.handlers: dict[int, Callable[[int], None]] = {}
        self.clients: dict[int, Client] = {}
        self.outputs: dict[int, int] = {}  # descriptor → stream
        self.paused_outputs = False
        self.input: Input | None = None
        self.master: int | None = None
        self.log: LogWriter | LocalWriter | RingLog | None = None
        self.ring: RingLog | None = None  # the same log, when a thread writes it
        self.shipper: Shipper | None = None  # to where the log is sent as well
        self.stdin_once = stdin_once
        self.have_ended = False

    def on_detached(self) -> None:
        """Hear that a client has typed its detach keys."""
        raise NotImplementedError

    def close(self) -> None:
        """Close every descriptor, without a word to anybody."""
        self.epoll.close()
        if self.log is not None:
            self.log.close()
        streams = set(self.outputs)  # a terminal's master is input and output in one
        if self.master is not None:
            streams.add(self.master)
        if self.input is not None:
            streams.add(self.input.fd)
        for fd in streams:
            os.close(fd)

    # Descriptors and their handlers

    def watch(self, fd: int, events: int, handler: Callable[[int], None]) -> None:
        """Call ``handler(events)`` whenever one of ``events`` holds for ``fd``."""
        self.handlers[fd] = handler
        self.epoll.register(fd, events)

    def forget(self, fd: int) -> None:
        """Stop watching ``fd``."""
        if self.handlers.pop(fd, None):
            self.epoll.unregister(fd)

    def turn(self) -> None:
        """Wait for something to happen, and serve it."""
        for fd, events in self.epoll.poll(STUCK_S if self.paused_outputs else None):
            handler = self.handlers.get(fd)
            if handler:
                handler(events)
        if self.paused_outputs:
            self._drop_stuck_clients()

    # Clients

    def attach(self, client: Client) -> None:
        """Serve a client from now on."""
        if self.have_ended:
            client.close()
            return
        fd = client.fileno()
        self.clients[fd] = client
        self.watch(
            fd, select.EPOLLIN | select.EPOLLRDHUP, lambda events: self._on_client(client, events)
        )
        if client.early:
            self._take_input(client)

    def _interest(self, client: Client) -> None:
        reading = client.input_open and not (self.input and len(self.input.pending) > CHUNK_BYTES)
        events = (select.EPOLLIN if reading else 0) | (select.EPOLLOUT if client.pending else 0)
        self.epoll.modify(client.fileno(), events)

    def _on_client(self, client: Client, events: int) -> None:
        if events & (select.EPOLLHUP | select.EPOLLERR) and not events & select.EPOLLIN:
            self._drop_client(client)
            return
        if events & select.EPOLLOUT:
            self._flush_client(client)
        if events & select.EPOLLIN and client.fileno() in self.clients:
            self._take_input(client)

    def _take_input(self, client: Client) -> None:
        data = client.read_input()
        if data is None:
            return
        if not data:
            had_input, client.input_open = client.input_open, False
            self._interest(client)
            if self.input is None or not had_input:
                return
            if self.stdin_once and not self.input.terminal:
                self.input.closing = True
                self._flush_input()
            else:  # the input stays open for others; this client is let go, as Docker does
                client.leaving = True
                self._flush_client(client)
            return
        if not client.input_open or self.input is None:
            return
        if self.input.terminal:
            data, detached = client.find_detach(data)
            if detached:
                self.on_detached()
                self._drop_client(client)
        self.input.pending += data
        self._flush_input()

    def _flush_client(self, client: Client) -> None:
        if not client.flush():
            self._drop_client(client)
            return
        if (client.leaving or self.have_ended) and not client.pending:
            self._drop_client(client)
            return
        self._interest(client)
        self._resume_outputs()

    def _drop_client(self, client: Client) -> None:
        fd = client.fileno()
        if fd < 0:
            return
        self.forget(fd)
        self.clients.pop(fd, None)
        client.close()
        self._resume_outputs()

    def _flush_input(self) -> None:
        target = self.input
        if target is None:
            return
        if not target.flush():
            self.forget(target.fd)
            if not target.terminal:
                os.close(target.fd)
            self.input = None
            return
        if not target.terminal:
            if target.pending and target.fd not in self.handlers:
                self.watch(target.fd, select.EPOLLOUT, lambda _events: self._flush_input())
            elif not target.pending:
                self.forget(target.fd)
        elif target.fd in self.outputs:
            self.epoll.modify(target.fd, self._output_interest(target.fd))
        for client in self.clients.values():
            self._interest(client)

    # The process's output

    def use_terminal(self, master: int) -> None:
        """Serve a terminal in the place of three pipes."""
        self.master = master
        self.input = Input(master, terminal=True)
        self.add_output(master, STDOUT)

    def add_output(self, fd: int, stream: int) -> None:
        """Read a pipe (or a terminal's master) of the process."""
        os.set_blocking(fd, False)
        self.outputs[fd] = stream
        self.watch(fd, select.EPOLLIN, lambda events: self._on_output(fd, events))

    def _on_output(self, fd: int, events: int) -> None:
        if events & select.EPOLLOUT:
            self._flush_input()
        if events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
            self._read_output(fd)

    def _read_output(self, fd: int) -> int:
        """Pass one chunk on; return its size, 0 at the end or when there is none just now."""
        stream = self.outputs[fd]
        try:
            chunk = os.read(fd, CHUNK_BYTES)
        except BlockingIOError:
            return 0
        except OSError:  # a terminal's last slave was closed
            chunk = b""
        if not chunk:
            self._end_output(fd)
            return 0
        if self.log is not None:
            self.log.write(STREAM_NAMES[stream], chunk, time.time_ns())
        if self.shipper is not None:
            self.shipper.write(STREAM_NAMES[stream], chunk, time.time_ns())
        for client in list(self.clients.values()):
            client.queue(stream, chunk)
            self._flush_client(client)
        if self._is_held_back():
            self._pause_outputs(paused=True)
        return len(chunk)

    def _end_output(self, fd: int) -> None:
        self.forget(fd)
        self.outputs.pop(fd)
        if fd != self.master:
            os.close(fd)

    def _output_interest(self, fd: int) -> int:
        writes = fd == self.master and self.input is not None and self.input.pending
        return (0 if self.paused_outputs else select.EPOLLIN) | (select.EPOLLOUT if writes else 0)

    def _pause_outputs(self, *, paused: bool) -> None:
        if self.paused_outputs != paused:
            self.paused_outputs = paused
            for fd in self.outputs:
                self.epoll.modify(fd, self._output_interest(fd))

    def _resume_outputs(self) -> None:
        if self.paused_outputs and not self._is_held_back():
            self._pause_outputs(paused=False)

    def _is_held_back(self) -> bool:
        shipper = self.shipper
        return any(c.lags for c in self.clients.values()) or (shipper is not None and shipper.lags)

    def ship(self, shipper: Shipper) -> None:
        """Send the log to a server as well."""
        self.shipper = shipper
        shipper.serve(self.watch, self.forget, self._resume_outputs)

    def _drop_stuck_clients(self) -> None:
        """Hang up on those that hold back what others wait for; one alone may, as at a pipe's end."""
        since = time.monotonic() - STUCK_S
        if self.shipper is not None and self.shipper.lags and self.shipper.moved_at <= since:
            self.shipper.give_up()
        for client in list(self.clients.values()):
            alone = not any(c.streams for c in self.clients.values() if c is not client)
            if client.lags and client.moved_at <= since and not alone:
                self._drop_client(client)

    def pipes(self) -> list[int]:
        """Return the kernel's numbers of stdin, stdout and stderr, 0 for what is no pipe from here."""
        numbers = [0, 0, 0]
        if self.master is None:
            for fd, stream in self.outputs.items():
                numbers[stream] = os.fstat(fd).st_ino
            if self.input is not None:
                numbers[0] = os.fstat(self.input.fd).st_ino
        return numbers

    # The end

    def pass_on_the_rest(self) -> None:
        """Read what is left of the output, and no more: processes that are left may write without end."""
        for fd in list(self.outputs):
            left = _room(fd)
            while left > 0 and (size := self._read_output(fd)):
                left -= size
            if fd in self.outputs:
                self._end_output(fd)

    def close_log(self) -> None:
        """Write what is left of the log."""
        for log in (self.log, self.shipper):
            if log is not None:
                log.close()
        self.log = self.shipper = None

    def end(self) -> None:
        """Let each client go that has everything, the others when they have."""
        self.have_ended = True
        for client in list(self.clients.values()):
            client.input_open = False
            if client.flush() and client.pending:
                self._interest(client)
            else:
                self._drop_client(client)


def _room(fd: int) -> int:
    """Return how many bytes of output may be waiting in a pipe, or in a terminal."""
    try:
        return fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ)
    except OSError:
        return TERMINAL_BYTES
