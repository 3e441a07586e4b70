"""`exec`: one more process in a running container.

It enters by a descriptor of the container's first process: no path of the container is used, and nothing is
read from its /proc.
"""

from __future__ import annotations

import _signal
import os

from berth.bundle import attributes, birth, checks, child, descriptors, groups, labels, terminals
from berth.bundle.creation import NOT_STARTED, console, write_pid
from berth.bundle.gathering import compiled, drop_unknown_capabilities
from berth.bundle.plan import account
from berth.bundle.status import CREATED, CREATING, PAUSED, RUNNING, lives, state, status
from berth.errors import BerthError, Conflict, from_record
from berth.kernel import namespaces, processes, sockets
from berth.runtime import codec, stdio

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from typing import NoReturn

    from berth.bundle.plan import Filter
    from berth.bundle.records import Folder, Record
    from berth.oci.runtime_spec import Process

JOINED = ("user", "cgroup", "ipc", "uts", "network", "mount", "time")


class Options:
    """How the process is made, as the caller's flags say."""

    def __init__(self) -> None:
        self.console_socket = ""
        self.pid_file = ""
        self.preserve_fds = 0
        self.groups: list[str] = []
        self.ignore_paused = False


class Joining:
    """A process on its way into a container."""

    def __init__(self, folder: Folder, record: Record, process: Process, options: Options) -> None:
        self._record = record
        self._process = process
        self._options = options
        now = status(folder, record)
        if now == PAUSED and not options.ignore_paused:
            raise Conflict("cannot exec in a paused container (use --ignore-paused to override)")
        if now == CREATING:  # its root is the host's still
            raise Conflict("cannot exec in a container that is being created")
        if now not in (RUNNING, CREATED, PAUSED):
            raise Conflict("cannot exec in a stopped container")
        checks.check_process(process)
        self._linux = record.get("spec", {}).get("linux") or {}
        attributes.check(process, self._linux)
        drop_unknown_capabilities(process)
        self._filter: Filter | None = compiled(record.get("spec", {}))
        self._places = groups.places(record, options.groups)
        self._console: _socket.socket | None = None
        if options.console_socket:
            self._console = console(options.console_socket)
        self._state = state(record, RUNNING)

    def make(self) -> tuple[int, int]:
        """Make it; return its pid, and its terminal if nobody else got that."""
        record = self._record
        pidfd = os.pidfd_open(record.get("init_process_pid", 0))
        if not lives(record):
            raise Conflict("cannot exec in a stopped container")
        flags = _differing(record.get("init_process_pid", 0))
        descriptors.preserve(self._options.preserve_fds)
        ours, theirs = sockets.pair()
        attributes.set_processors((self._process.get("execCPUAffinity") or {}).get("initial", ""))
        pid = self._clone(pidfd, flags, (ours, theirs))
        theirs.close()
        os.close(pidfd)
        try:
            terminal = _follow(ours)
        except BerthError as error:
            os.waitpid(pid, 0)
            error.message = f"{NOT_STARTED}{error.message}"
            raise
        finally:
            ours.close()
        if self._options.pid_file:
            try:
                write_pid(self._options.pid_file, pid)
            except OSError:  # nobody would know of it
                os.kill(pid, _signal.SIGKILL)
                os.waitpid(pid, 0)
                raise
        return pid, terminal

    def _clone(self, pidfd: int, flags: int, pair: tuple[sockets.Socket, sockets.Socket]) -> int:
        processes.prctl(processes.PR_SET_DUMPABLE, 0)  # nor is its child at any moment in there
        first = flags & (namespaces.CLONE_NEWUSER | namespaces.CLONE_NEWPID)
        rest = flags & ~first

        def run() -> NoReturn:
            pair[0].close()
            self._run(
                pair[1], pidfd, rest, in_user_namespace=bool(flags & namespaces.CLONE_NEWUSER)
            )

        if flags & namespaces.CLONE_NEWUSER:
            return birth.clone_through(lambda: namespaces.setns(pidfd, first), run)
        own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        if first:
            namespaces.setns(pidfd, first)
        fork = namespaces.Clone()
        pid = fork.make()
        if pid == 0:
            run()
        if first:
            namespaces.setns(own, namespaces.CLONE_NEWPID)
        os.close(own)
        fork.check(pid)
        return pid

    def _run(
        self, sync: sockets.Socket, pidfd: int, flags: int, *, in_user_namespace: bool
    ) -> NoReturn:
        step = "join"
        process = self._process
        try:
            child.reset_signals()
            wanted = labels.Labels(process)
            processes.set_name(b"berth-init")
            os.setsid()
            if not self._record.get("no_new_keyring"):
                processes.join_session_keyring()
            groups.enter(self._places)
            if flags:
                namespaces.setns(pidfd, flags)
            if in_user_namespace:
                os.setresgid(0, 0, 0)
                os.setresuid(0, 0, 0)
                processes.prctl(processes.PR_SET_DUMPABLE, 0)
            step = "prepare the process"
            if process.get("terminal"):
                os.close(terminals.open_pair(process, self._console, sync))
            stdio.reopen_null()
            who = account(process)
            keep = [sync.fileno(), *wanted.descriptors()]
            if self._filter is not None and self._filter.agent is not None:
                keep.append(self._filter.agent.fileno())
            descriptors.close_all_but(keep)
            attributes.set_processors((process.get("execCPUAffinity") or {}).get("final", ""))
            attributes.apply(process, self._linux)
            wanted.apply()
            step = "become the program"
            child.become(process, who, self._filter, self._state)
            if self._filter is not None and process.get("noNewPrivileges"):
                child.load(self._filter, self._state)
            child.finish(process, who, sync, self._options.preserve_fds)
        except BaseException as error:  # noqa: BLE001 - told to the caller, whatever it is
            child.tell_failure(sync, step, error)
        finally:
            os._exit(child.EXIT_SETUP_FAILED)


def _differing(pid: int) -> int:
    """Return the namespaces of a process that are not those of this one."""
    flags = 0
    for kind in (*JOINED, "pid"):
        flag, name = namespaces.NAMESPACES[kind]
        try:
            theirs, ours = os.stat(f"/proc/{pid}/ns/{name}"), os.stat(f"/proc/self/ns/{name}")
        except FileNotFoundError:  # not in this kernel
            continue
        if not os.path.samestat(theirs, ours):
            flags |= flag
    return flags


def _follow(sync: sockets.Socket) -> int:
    """Follow the process until it became its program; return its terminal, raise what it reports."""
    terminal = -1
    while True:
        data, fds = sockets.receive(sync)
        if not data:
            return terminal
        message = codec.decode(data)
        if "error" in message:
            raise from_record(message["error"])
        terminal = fds[0]
