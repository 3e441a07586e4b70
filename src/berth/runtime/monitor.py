"""The monitor: parent of one container's (or exec's) process, and all that outlives berthd.

It owns the stdio or terminal, writes the log, serves attached clients, keeps the exit status and
answers whoever berthd could not. It needs nothing from berthd while it runs.

    berthd                                       monitor
       │ request (through the zygote)  ───────────►│ forks the process, which prepares itself
       │ handover: network, trees, clients  ──────►│   (not for an exec)
       │ (end of file instead)  ──────────────────►│   undoes everything
       │◄── {"event": "failed", "error"} ──────────│   or
       │◄── {"event": "started", "pid", …} pidfd ──│
       │ {"op": "attach", …} + socket  ───────────►│   any time, also from a later berthd
       │ {"op": "resize", "rows", "columns"} ─────►│   by <directory>/control.sock
       │ {"op": "answer"} + socket  ──────────────►│   a client's /wait, should this berthd be gone
       │ {"op": "keep"} + descriptors  ───────────►│   to be held till the end, for later berthds
       │◄── {"event": "kept"} + descriptors ───────│   to one that connects, after "started"
       │◄── {"event": "exited", "exit_code", …} ───│   before clients see the end of their streams
       │ {"op": "clear"}  ────────────────────────►│ forgets the log on disk
       │ {"op": "settle"}  ───────────────────────►│ removes its records
       │◄── {"event": "free"} ─────────────────────│ once nothing of this run is left, or
       │◄── end of file ───────────────────────────│   when it is of no further use
       │ {"op": "spare", "cgroups_path", …} ──────►│ to one that is free: clone a process ahead
       │ request  ────────────────────────────────►│ the next run

A client that lags holds the output back, as a pipe does; should it take nothing for `STUCK_S` while others
read, too, it is hung up on. After the end a client takes the rest in its own time, and holds up nobody.
"""

from __future__ import annotations

import _socket
import os
import select
import time

from berth.kernel import processes, sockets
from berth.runtime import codec, pty
from berth.runtime.clients import CHUNK_BYTES, STDERR, STDOUT, Client, Input
from berth.runtime.orphans import Orphans
from berth.runtime.records import EXIT_FILE, SOCKET_FILE, TASK_FILE, remove_records, write_atomic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from berth.kernel.cgroups import Cgroup
    from berth.runtime.jsonlog import LogWriter
    from berth.runtime.locallog import LocalWriter
    from berth.runtime.ringlog import RingLog
    from berth.runtime.shipping import Shipper

STUCK_S = 10.0
STREAM_NAMES = {STDOUT: "stdout", STDERR: "stderr"}


class Monitor:
    """The event loop around one process. Its working directory is the task's.

    Made in the zygote, where :meth:`close` closes what the fork goes on with.
    """

    def __init__(self, control: sockets.Socket, *, stdin_once: bool) -> None:
        self.epoll = select.epoll()
        self.handlers: dict[int, Callable[[int], None]] = {}
        self.controls: dict[int, sockets.Socket] = {}
        self.clients: dict[int, Client] = {}
        self.outputs: dict[int, int] = {}  # descriptor → stream
        self.paused_outputs = False
        self.input: Input | None = None
        self.master: int | None = None
        self.log: LogWriter | LocalWriter | RingLog | None = None
        self.ring: RingLog | None = None  # the same log, when a thread writes it
        self.shipper: Shipper | None = None  # to where the log is sent as well
        self.stdin_once = stdin_once
        self.orphans = Orphans()
        self.kept: list[
            int
        ] = []  # berthd's, which it would lose with its end: sockets of the network
        self.started: dict[str, object] = {}
        self.exited: dict[str, object] | None = None
        self.recorded = False
        self.settled = False
        self.pid = 0
        self.pidfd = -1
        self.mounts_fd = -1
        self.cgroup: Cgroup | None = None
        self.listener = sockets.Socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        self.control = control
        self.add_control(control)

    def close(self) -> None:
        """Close every descriptor, without a word to anybody."""
        self.epoll.close()
        self.listener.close()
        for control in self.controls.values():
            control.close()
        if self.log is not None:
            self.log.close()
        self._close_kept()
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

    def run(self) -> None:
        """Serve until the process has ended and somebody took note."""
        while not self.is_done():
            self._turn()

    def _turn(self) -> None:
        for fd, events in self.epoll.poll(STUCK_S if self.paused_outputs else None):
            handler = self.handlers.get(fd)
            if handler:
                handler(events)
        if self.paused_outputs:
            self._drop_stuck_clients()

    def is_done(self) -> bool:
        """Say whether the end is known to berthd, or recorded for the one that comes next."""
        if self.exited is None:
            return False
        return self.settled or (self.recorded and not self.controls)

    # berthd

    def add_control(self, control: sockets.Socket) -> None:
        """Take requests from one more berthd connection."""
        self.controls[control.fileno()] = control
        self.watch(control.fileno(), select.EPOLLIN, lambda _events: self._on_request(control))

    def listen(self) -> None:
        """Let a later berthd connect."""
        self.listener.bind(SOCKET_FILE)
        self.listener.listen(4)
        self.watch(self.listener.fileno(), select.EPOLLIN, self._on_connection)

    def callers(self) -> list[int]:
        """Return the descriptors at whose far ends somebody waits for this process's word or end."""
        return [*self.controls, self.listener.fileno()]

    def _on_connection(self, _events: int) -> None:
        fd, _ = self.listener._accept()  # type: ignore[attr-defined]  # typeshed leaves it out
        control = sockets.adopt(fd)
        self.add_control(control)
        if self.exited:
            self._send(control, self.exited, [])
            return
        self._send(control, {**self.started, "kept": len(self.kept)}, [self.pidfd])
        for first in range(0, len(self.kept), sockets.MAX_DESCRIPTORS):
            part = self.kept[first : first + sockets.MAX_DESCRIPTORS]
            self._send(control, {"event": "kept"}, part)

    def tell(self, event: dict[str, object], fds: list[int]) -> None:
        """Send an event to every berthd connection; one that is gone is dropped."""
        for control in list(self.controls.values()):
            self._send(control, event, fds)

    def _send(self, control: sockets.Socket, event: dict[str, object], fds: list[int]) -> None:
        try:
            sockets.send(control, codec.encode(event), fds)
        except OSError:
            self._drop_control(control)

    def _drop_control(self, control: sockets.Socket) -> None:
        fd = control.fileno()
        self.forget(fd)
        self.controls.pop(fd, None)
        control.close()

    def _on_request(self, control: sockets.Socket) -> None:
        try:
            data, fds = sockets.receive(control)
        except OSError:
            data, fds = b"", []
        if not data:
            self._drop_control(control)
            return
        request = codec.decode(data)
        operation = request["op"]
        if operation == "attach":
            self.attach(Client(fds.pop(0), request))
        elif operation == "resize" and self.master is not None:
            pty.set_size(self.master, request["rows"], request["columns"])
        elif operation == "answer":
            self.orphans.add(fds.pop(0), control)
        elif operation == "keep" and self.exited is None:
            self.kept += fds
            fds = []
        elif operation == "clear" and self.log is not None and self.exited is None:
            self.log.clear()
        elif operation == "settle":
            self.settled = True
        for fd in fds:
            os.close(fd)

    # Clients

    def attach(self, client: Client) -> None:
        """Serve a client from now on."""
        if self.exited is not None:
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
                self.tell({"event": "detached"}, [])
                self._drop_client(client)
        self.input.pending += data
        self._flush_input()

    def _flush_client(self, client: Client) -> None:
        if not client.flush():
            self._drop_client(client)
            return
        if (client.leaving or self.exited is not None) and not client.pending:
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

    def _read_output(self, fd: int) -> bool:
        """Pass one chunk on; False at the end or when there is none just now."""
        stream = self.outputs[fd]
        try:
            chunk = os.read(fd, CHUNK_BYTES)
        except BlockingIOError:
            return False
        except OSError:  # a terminal's last slave was closed
            chunk = b""
        if not chunk:
            if fd == self.master:
                self.epoll.modify(fd, 0)
                self.forget(fd)
            else:
                self.forget(fd)
                os.close(fd)
            self.outputs.pop(fd)
            return False
        if self.log is not None:
            self.log.write(STREAM_NAMES[stream], chunk, time.time_ns())
        if self.shipper is not None:
            self.shipper.write(STREAM_NAMES[stream], chunk, time.time_ns())
        for client in list(self.clients.values()):
            client.queue(stream, chunk)
            self._flush_client(client)
        if self._is_held_back():
            self._pause_outputs(paused=True)
        return True

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

    # The end

    def own(self, pid: int, pidfd: int) -> None:
        """Take a new process; whoever looks from now on finds its record."""
        self.pid = pid
        self.pidfd = pidfd
        self._hold_mounts()
        write_atomic(TASK_FILE, {"pid": pid, "monitor": os.getpid()})

    def announce(self) -> None:
        """Say that the process runs, and wait for its end from now on."""
        self.watch(self.pidfd, select.EPOLLIN, self._on_exit)
        self.started = {"event": "started", "pid": self.pid, "started_at_ns": time.time_ns()}
        self.started["monitor"] = os.getpid()
        self.started["pipes"] = self._pipes()
        self.tell(self.started, [self.pidfd])

    def _pipes(self) -> list[int]:
        """Return the kernel's numbers of stdin, stdout and stderr, 0 for what is no pipe from here."""
        numbers = [0, 0, 0]
        if self.master is None:
            for fd, stream in self.outputs.items():
                numbers[stream] = os.fstat(fd).st_ino
            if self.input is not None:
                numbers[0] = os.fstat(self.input.fd).st_ino
        return numbers

    def _on_exit(self, _events: int) -> None:
        self.forget(self.pidfd)
        self._close_kept()
        _, status = os.waitpid(self.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        finished = time.time_ns()
        for fd in list(self.outputs):
            while fd in self.outputs and self._read_output(fd):
                pass
        if self.ring is None:
            self._conclude(code, finished)
            return
        written = self.ring.finish()

        def on_written(_events: int) -> None:
            self.forget(written)
            os.close(written)
            self._conclude(code, finished)

        self.watch(written, select.EPOLLIN, on_written)

    def _conclude(self, code: int, finished: int) -> None:
        """Record the end, and tell everybody."""
        for log in (self.log, self.shipper):
            if log is not None:
                log.close()
        self.log = self.shipper = None
        self.exited = {
            "event": "exited",
            "exit_code": code if code >= 0 else 128 - code,
            "started_at_ns": self.started["started_at_ns"],
            "finished_at_ns": finished,
            "oom_killed": self.cgroup is not None and self.cgroup.oom_kills() > 0,
        }
        try:
            write_atomic(EXIT_FILE, self.exited)
            self.recorded = True
        except OSError:  # the disk is full: then this process is the record
            self.recorded = False
        # Before streams end: whoever asks for the code then finds berthd told.
        self.tell(self.exited, [])
        for client in list(self.clients.values()):
            client.input_open = False
            if client.flush() and client.pending:
                self._interest(client)
            else:
                self._drop_client(client)

    def _close_kept(self) -> None:
        for fd in self.kept:
            os.close(fd)
        self.kept = []

    def _hold_mounts(self) -> None:
        """Keep the mount namespace: its teardown (overlay syncs) then is ours, after the exit is told."""
        try:
            self.mounts_fd = os.open(f"/proc/{self.pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # it is gone already
            self.mounts_fd = -1

    def finish(self) -> None:
        """Answer whom no berthd is going to; with berthd's word, remove the records."""
        assert self.exited is not None
        self.orphans.answer(self.exited["exit_code"], settled=self.settled)
        if self.settled:
            remove_records()
        if self.mounts_fd >= 0:
            os.close(self.mounts_fd)

    def release(self) -> sockets.Socket | None:
        """Close everything but the connection to the berthd that asked for this run, and return that.

        None, and nothing closed, when others are still to be served, berthd is gone, or it has a thread.
        """
        control = self.controls.pop(self.control.fileno(), None)
        is_needed = bool(self.controls or self.clients) or not self.settled
        # One with a thread clones no other process: locks of the heap may be held.
        if control is None or is_needed or self.ring is not None:
            if control is not None:
                self.controls[control.fileno()] = control
            return None
        self.close()
        self.handlers.clear()  # they refer to this object, and no collector is at work here
        return control

    def leave(self) -> None:
        """Let berthd go on, then let clients take the rest."""
        self.forget(self.listener.fileno())
        self.listener.close()
        for control in list(self.controls.values()):
            self._drop_control(control)
        while self.clients:
            self._turn()


def prepare() -> None:
    """Make the forked zygote a monitor: a session of its own, a name, nothing to be dumped."""
    os.setsid()
    processes.set_name(b"berth-monitor")
