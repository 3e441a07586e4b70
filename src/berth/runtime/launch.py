"""From a request to a running process: what the monitor does before its event loop.

Makes stdio and cgroup, clones the child (`berth.runtime.init`), passes berthd's handover on to it, hears
how it went, and undoes everything when it went wrong.
"""

from __future__ import annotations

import _signal
import os

from berth.errors import BerthError, Failed, from_record
from berth.kernel import namespaces, processes, sockets
from berth.runtime import codec, init, monitor
from berth.runtime.clients import STDERR, STDOUT, Client, Input
from berth.runtime.jsonlog import LogWriter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.kernel.cgroups import Cgroup, Hierarchies
    from berth.runtime.messages import HandoverMessage, RequestMessage


SIGKILL = 9


class Request:
    """A message from berthd with its descriptors, which are taken in order."""

    def __init__(self, message: RequestMessage, fds: list[int]) -> None:
        self.message = message
        self.fds = fds

    def take(self) -> int:
        """Return the next descriptor."""
        return self.fds.pop(0)


class Launch:
    """A process that is being started, and its monitor.

    Made in the zygote: a fork shares its memory until one side writes, so whatever both need is made before
    the first of them, and the monitor, which lives long, does as little as can be before the second.
    """

    def __init__(
        self, request: Request, control: sockets.Socket, zygote_fd: int, hierarchies: Hierarchies
    ) -> None:
        self.request = request
        self.control = control
        self.zygote_fd = zygote_fd
        self.cgroup = _open_cgroup(request.message, hierarchies)
        self.owns_cgroup = request.message["op"] == "task"
        self.sync, theirs = sockets.pair()
        self.child = _child(request, theirs, self.cgroup)
        self.child.controllers = hierarchies.mount_options()
        self.child.foreign = (zygote_fd, control.fileno(), self.sync.fileno())
        self.group: int | None = None
        self.process = namespaces.Clone()
        self.pid_namespace = _pid_namespace(self.child)
        self.pipes: tuple[int | None, int, int] | None = None
        self.orphans = 0
        self.pid, self.pidfd = 0, -1

    def open(self, null_fd: int) -> None:
        """Open what monitor and process share; :meth:`close` also after a failure."""
        if not self.child.terminal:
            self.pipes = _open_pipes(self.request.message, self.child, null_fd)
        # Not so an exec: a container at its limit of processes still takes one, as it does in runc.
        if self.owns_cgroup:
            self.group = self.cgroup.open_to_clone_into()
        self.child.born_in_group = self.group is not None
        flags = namespaces.CLONE_PIDFD | _clone_flags(self.child)
        self.process = namespaces.Clone(flags, cgroup_fd=self.group)

    def close(self) -> None:
        """Close in the zygote what the fork has taken along."""
        self.control.close()
        self.sync.close()
        _release(self.child)
        for fd in (*(self.pipes or ()), self.group, *self.request.fds):
            if fd is not None:
                os.close(fd)
        self.request.fds = []

    def fail(self, error: BaseException) -> None:
        """Tell berthd why it did not come to a process."""
        if self.owns_cgroup:
            _discard(self.cgroup)
        _report(self.control, error)

    def begin(self) -> None:
        """Make the process and let it prepare itself.

        Nothing that can wait comes before: whatever is written before a fork is copied once more after it.
        """
        _signal.signal(
            _signal.SIGCHLD, _signal.SIG_DFL
        )  # ignored, it would throw the exit status away
        if self.pid_namespace is not None:
            _join_pid_namespace(self.pid_namespace)
        pid = self.process.make()
        if pid == 0:
            init.run(self.child)
        self.pidfd = self.process.check(pid)
        self.pid = pid
        os.close(self.zygote_fd)
        monitor.prepare()
        message = self.request.message
        os.chdir(message["directory"])
        self.served = monitor.Monitor(
            self.control, log=_open_log(message), stdin_once=message.get("stdin_once", False)
        )
        self.served.cgroup = self.cgroup
        self.served.own(self.pid, self.pidfd)
        _release(self.child)
        if self.group is not None:
            os.close(self.group)

    def hand_over(self) -> bool:
        """Wait for berthd's word to go on, and pass on what came with it; False when none comes."""
        data, fds = sockets.receive(self.control)
        if not data:
            return False
        message: HandoverMessage = codec.decode(data)
        count = len(message["trees"]) + message["netns"]
        try:
            sockets.send(self.sync, data, fds[:count])
        except BrokenPipeError:  # it failed already; its report is read next
            pass
        for fd in fds[:count]:
            os.close(fd)
        self.request.fds = fds[count:]
        self.request.message["attachments"] = message["attachments"]
        self.orphans = message["orphans"]
        return True

    def end(self) -> None:
        """Kill the process, wherever it is on its way: entering its groups later, it would keep them."""
        try:
            if self.pid:
                processes.pidfd_send_signal(self.pidfd, SIGKILL)
                os.waitpid(self.pid, 0)
        except (ProcessLookupError, ChildProcessError):  # it has ended
            return

    def complete(self) -> monitor.Monitor:
        """Wait until the process is the user's program, and take its streams over."""
        self.served.master = _hear(self.sync, self.served.pid)
        _connect_stdio(self.served, self.pipes)
        for attachment in self.request.message.get("attachments", []):
            self.served.attach(Client(self.request.take(), attachment))
        for _ in range(self.orphans):
            self.served.orphans.add(self.request.take(), self.control)
        self.served.announce()
        return self.served

    def serve(self) -> None:
        """Run the process from its start to its end, as the monitor. Returns when all is done."""
        try:
            self.begin()
            served = self.complete() if not self.owns_cgroup or self.hand_over() else None
        except BaseException as error:  # noqa: BLE001 - told to berthd, whatever it is
            self.end()
            self.fail(error)
            return
        if served is not None:
            served.run()
            served.finish()
        else:
            self.end()
        if self.owns_cgroup:
            _discard(self.cgroup)
        if served is not None:
            served.leave()


def plan(request: Request, zygote_fd: int, hierarchies: Hierarchies, null_fd: int) -> Launch | None:
    """Make in the zygote what can be made there; None when it failed, which berthd was told then.

    ``zygote_fd``: its socket to berthd, which no fork may hold open.
    """
    control = sockets.adopt(request.take())
    try:
        launch = Launch(request, control, zygote_fd, hierarchies)
    except BaseException as error:  # noqa: BLE001 - told to berthd, whatever it is
        _report(control, error)
        control.close()
        return None
    try:
        launch.open(null_fd)
    except BaseException as error:  # noqa: BLE001 - the same
        launch.fail(error)
        launch.close()
        return None
    return launch


def _report(control: sockets.Socket, error: BaseException) -> None:
    kind = error if isinstance(error, BerthError) else Failed(str(error) or repr(error))
    try:
        sockets.send(control, codec.encode({"event": "failed", "error": kind.record()}))
    except OSError:  # berthd does not care any more
        return


def _open_cgroup(message: RequestMessage, hierarchies: Hierarchies) -> Cgroup:
    if message["op"] == "exec":
        return hierarchies.open_group(message["cgroups_path"])
    return hierarchies.open_group(message["spec"].get("linux", {}).get("cgroupsPath", ""))


def _discard(cgroup: Cgroup) -> None:
    try:
        cgroup.kill()
        cgroup.remove()
    except OSError:  # berthd sees what is left, at the latest when it starts again
        return


def _child(request: Request, sync: sockets.Socket, cgroup: Cgroup) -> init.Child:
    """Gather what the child needs."""
    message = request.message
    spec = message.get("spec", {})
    process = message["process"] if message["op"] == "exec" else spec["process"]
    child = init.Child(sync, process, cgroup)
    child.spec = spec
    child.rootfs = message.get("rootfs", {})
    child.user = message.get("user", "")
    child.groups = message.get("groups", [])
    child.filter = bytes.fromhex(message.get("seccomp") or "") or None
    child.init = message.get("init", False)
    child.terminal = message.get("terminal", False)
    rows, columns = message.get("size", (0, 0))
    child.size = (rows, columns)
    child.netns = message.get("netns", False)
    if message["op"] == "exec":
        child.pidfd = request.take()
    return child


def _open_log(message: RequestMessage) -> LogWriter | None:
    target = message.get("log")
    return LogWriter(target["path"], target["max_size"], target["max_files"]) if target else None


def _open_pipes(
    message: RequestMessage, child: init.Child, null_fd: int
) -> tuple[int | None, int, int]:
    """Make stdin, stdout and stderr; their far ends go to the child."""
    to_stdin = None
    if message.get("stdin"):
        stdin, to_stdin = os.pipe2(os.O_CLOEXEC)
    else:
        stdin = os.dup(null_fd)
    from_stdout, stdout = os.pipe2(os.O_CLOEXEC)
    from_stderr, stderr = os.pipe2(os.O_CLOEXEC)
    child.stdio = (stdin, stdout, stderr)
    return to_stdin, from_stdout, from_stderr


def _clone_flags(child: init.Child) -> int:
    flags = 0
    for entry in child.spec.get("linux", {}).get("namespaces", []):
        kind = entry["type"]
        if not entry.get("path") and not _is_made_later(kind, child):
            flags |= namespaces.NAMESPACES[kind][0]
    return flags


def _pid_namespace(child: init.Child) -> int | str | None:
    """Return the pid namespace that the process is to be in: a pidfd or a path; None for one of its own."""
    for entry in child.spec.get("linux", {}).get("namespaces", []):
        if entry["type"] == "pid" and entry.get("path"):
            return entry["path"]
    return child.pidfd


def _join_pid_namespace(namespace: int | str) -> None:
    """Let the next child be in another pid namespace; the caller itself stays outside."""
    if isinstance(namespace, int):
        namespaces.setns(namespace, namespaces.CLONE_NEWPID)
        return
    fd = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    namespaces.setns(fd, namespaces.CLONE_NEWPID)
    os.close(fd)


def _is_made_later(kind: str, child: init.Child) -> bool:
    # A cgroup namespace's root is the group of whoever makes it, so the child does, in its group.
    return kind == "cgroup" or (kind == "network" and child.netns)


def _release(child: init.Child) -> None:
    """Close in the monitor what only the child needs."""
    child.sync.close()
    for fd in (*(child.stdio or ()), child.pidfd):
        if fd is not None:
            os.close(fd)


def _hear(sync: sockets.Socket, pid: int) -> int | None:
    """Follow the child until it became the program; return its terminal, raise what it reports."""
    master = None
    while True:
        try:
            data, fds = sockets.receive(sync)
        except ConnectionResetError:  # once: it left the handover unread; its report is still there
            continue
        if not data:
            sync.close()
            return master
        report = codec.decode(data)
        if "terminal" not in report:
            os.waitpid(pid, 0)
            raise from_record(report["error"])
        master = fds[0]


def _connect_stdio(served: monitor.Monitor, pipes: tuple[int | None, int, int] | None) -> None:
    if served.master is not None:
        served.input = Input(served.master, terminal=True)
        served.add_output(served.master, STDOUT)
    elif pipes is not None:
        to_stdin, from_stdout, from_stderr = pipes
        if to_stdin is not None:
            served.input = Input(to_stdin, terminal=False)
        served.add_output(from_stdout, STDOUT)
        served.add_output(from_stderr, STDERR)
