"""The monitor: parent of one container's (or exec's) process, and all that outlives berthd.

It owns the stdio or terminal, writes the log and serves attached clients (`berth.runtime.streams`), keeps the
exit status and answers whoever berthd could not. It needs nothing from berthd while it runs.

    berthd                                       monitor
       │ request (through the zygote)  ───────────►│ forks the process, which prepares itself
       │ handover: network, trees, clients  ──────►│   (not for an exec)
       │ (end of file instead)  ──────────────────►│   undoes everything
       │◄── {"event": "failed", "error"} ──────────│   or
       │◄── {"event": "started", "pid", …} pidfd ──│
       │ {"op": "attach", …} + socket  ───────────►│   any time, also from a later berthd
       │ {"op": "resize", "rows", "columns"} ─────►│   by <directory>/control.sock
       │ {"op": "answer"} + socket  ──────────────►│   a client's /wait, should this berthd be gone
       │ {"op": "keep"} + descriptors  ───────────►│   to be held till the end, for later berthds;
       │                                           │   "anew": and no others any more
       │◄── {"event": "kept"} + descriptors ───────│   to one that connects, after "started"
       │◄── {"event": "exited", "exit_code", …} ───│   before clients see the end of their streams
       │ {"op": "clear"}  ────────────────────────►│ forgets the log on disk
       │ {"op": "settle"}  ───────────────────────►│ removes its records
       │◄── {"event": "free"} ─────────────────────│ once nothing of this run is left, or
       │◄── end of file ───────────────────────────│   when it is of no further use
       │ {"op": "spare", "cgroups_path", …} ──────►│ to one that is free: clone a process ahead
       │ request  ────────────────────────────────►│ the next run
"""

from __future__ import annotations

import _socket
import os
import select
import time

from berth.kernel import processes, sockets
from berth.runtime import codec, pty
from berth.runtime.clients import Client
from berth.runtime.orphans import Orphans
from berth.runtime.records import EXIT_FILE, SOCKET_FILE, TASK_FILE, remove_records, write_atomic
from berth.runtime.streams import Streams

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.kernel.cgroups import Cgroup


class Monitor(Streams):
    """The life of one process, and who hears of it. Its working directory is the task's.

    Made in the zygote, where :meth:`close` closes what the fork goes on with.
    """

    def __init__(self, control: sockets.Socket, *, stdin_once: bool) -> None:
        super().__init__(stdin_once=stdin_once)
        self.controls: dict[int, sockets.Socket] = {}
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
        self._descriptors = 0  # how many it may have open before and after the process's life
        self.mounts_fd = -1
        self.cgroup: Cgroup | None = None
        self.listener = sockets.Socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        self.control = control
        self.add_control(control)

    def close(self) -> None:
        """Close every descriptor, without a word to anybody."""
        super().close()
        self.listener.close()
        for control in self.controls.values():
            control.close()
        self._close_kept()

    def run(self) -> None:
        """Serve until the process has ended and somebody took note."""
        while not self.is_done():
            self.turn()

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

    def on_detached(self) -> None:
        """Tell berthd that a client has left on its own."""
        self.tell({"event": "detached"}, [])

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
            self._keep(fds, anew=request.get("anew", False))
            fds = []
        elif operation == "clear" and self.log is not None and self.exited is None:
            self.log.clear()
        elif operation == "settle":
            self.settled = True
        for fd in fds:
            os.close(fd)

    # The end

    def own(self, pid: int, pidfd: int) -> None:
        """Take a new process; whoever looks from now on finds its record."""
        self.pid = pid
        self.pidfd = pidfd
        self._hold_mounts()
        write_atomic(TASK_FILE, {"pid": pid, "monitor": os.getpid()})

    def announce(self) -> None:
        """Say that the process runs, and wait for its end from now on."""
        # Ports are kept by the thousand. Not before: its limit is the process's, too.
        self._descriptors = processes.raise_descriptor_limit()
        self.watch(self.pidfd, select.EPOLLIN, self._on_exit)
        self.started = {"event": "started", "pid": self.pid, "started_at_ns": time.time_ns()}
        self.started["monitor"] = os.getpid()
        self.started["pipes"] = self.pipes()
        self.tell(self.started, [self.pidfd])

    def _on_exit(self, _events: int) -> None:
        self.forget(self.pidfd)
        self._close_kept()
        processes.lower_descriptor_limit(self._descriptors)
        _, status = os.waitpid(self.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        finished = time.time_ns()
        self.pass_on_the_rest()
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
        self.close_log()
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
        self.end()

    def _keep(self, fds: list[int], *, anew: bool) -> None:
        if anew:
            self._close_kept()
        self.kept += fds

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
            self.turn()


def prepare() -> None:
    """Make the forked zygote a monitor: a session of its own, a name, nothing to be dumped."""
    os.setsid()
    processes.set_name(b"berth-monitor")
