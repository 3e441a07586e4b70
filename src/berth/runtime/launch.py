"""From a request to a running process: what the monitor does before its event loop.

Makes stdio and cgroup, clones the child (`berth.runtime.init`), passes berthd's handover on to it, hears
how it went, and undoes everything when it went wrong.
"""

from __future__ import annotations

import json
import os

from berth.errors import BerthError, Failed, from_record
from berth.kernel import namespaces, sockets
from berth.runtime import init, monitor
from berth.runtime.clients import STDERR, STDOUT, Client, Input
from berth.runtime.jsonlog import LogWriter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.kernel.cgroups import Cgroup, Hierarchies
    from berth.runtime.messages import HandoverMessage, RequestMessage


class Request:
    """A message from berthd with its descriptors, which are taken in order."""

    def __init__(self, message: RequestMessage, fds: list[int]) -> None:
        self.message = message
        self.fds = fds

    def take(self) -> int:
        """Return the next descriptor."""
        return self.fds.pop(0)


class _Surroundings:
    """What the zygote opened before it left the host's mounts."""

    def __init__(self, hierarchies: Hierarchies, null_fd: int) -> None:
        self.hierarchies = hierarchies
        self.null_fd = null_fd


class _Launch:
    """A process that is being started, and its monitor."""

    def __init__(self, request: Request, control: sockets.Socket, cgroup: Cgroup) -> None:
        self.request = request
        self.control = control
        self.cgroup = cgroup
        self.sync, theirs = sockets.pair()
        self.child = _child(request, theirs, cgroup)
        self.pipes: tuple[int | None, int, int] | None = None

    def begin(self, around: _Surroundings) -> None:
        """Make the process and let it prepare itself.

        As little as can be comes before the clone: each page that was written to is then copied twice.
        """
        message = self.request.message
        self.child.controllers = around.hierarchies.mount_options()
        if not self.child.terminal:
            self.pipes = _open_pipes(message, self.child, around.null_fd)
        pid, pidfd = _clone(self.child)
        monitor.prepare()
        self.served = monitor.Monitor(
            self.control, log=_open_log(message), stdin_once=message.get("stdin_once", False)
        )
        self.served.cgroup = self.cgroup
        self.served.own(pid, pidfd)
        _release(self.child)

    def hand_over(self) -> bool:
        """Wait for berthd's word to go on, and pass on what came with it; False when none comes."""
        data, fds = sockets.receive(self.control)
        if not data:
            return False
        message: HandoverMessage = json.loads(data)
        count = len(message["trees"]) + message["netns"]
        try:
            sockets.send(self.sync, data, fds[:count])
        except BrokenPipeError:
            pass  # it failed already; complete() hears why
        for fd in fds[:count]:
            os.close(fd)
        self.request.fds = fds[count:]
        self.request.message["attachments"] = message["attachments"]
        return True

    def complete(self) -> monitor.Monitor:
        """Wait until the process is the user's program, and take its streams over."""
        self.served.master = _hear(self.sync, self.served.pid)
        _connect_stdio(self.served, self.pipes)
        for attachment in self.request.message.get("attachments", []):
            self.served.attach(Client(self.request.take(), attachment))
        self.served.announce()
        return self.served


def serve(request: Request, hierarchies: Hierarchies, null_fd: int) -> None:
    """Run one process from its start to its end, as the monitor. Returns when all is done."""
    control = sockets.adopt(request.take())
    os.chdir(request.message["directory"])
    cgroup = _open_cgroup(request.message, hierarchies)
    owned = request.message["op"] == "task"
    try:
        launch = _Launch(request, control, cgroup)
        launch.begin(_Surroundings(hierarchies, null_fd))
        served = launch.complete() if not owned or launch.hand_over() else None
    except BaseException as error:  # noqa: BLE001 - told to berthd, whatever it is
        if owned:
            _discard(cgroup)
        kind = error if isinstance(error, BerthError) else Failed(str(error) or repr(error))
        sockets.send(control, json.dumps({"event": "failed", "error": kind.record()}).encode())
        return
    if served is not None:
        served.run()
        served.finish()
    if owned:
        _discard(cgroup)


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


def _clone(child: init.Child) -> tuple[int, int]:
    flags = 0
    if child.pidfd is not None:
        # Only children of the caller enter the pid namespace; the monitor stays outside.
        namespaces.setns(child.pidfd, namespaces.CLONE_NEWPID)
    for entry in child.spec.get("linux", {}).get("namespaces", []):
        kind, path = entry["type"], entry.get("path")
        if kind == "pid" and path:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            namespaces.setns(fd, namespaces.CLONE_NEWPID)
            os.close(fd)
        elif not path and not _is_made_later(kind, child):
            flags |= namespaces.NAMESPACES[kind][0]
    # Not so an exec: a container at its limit of processes still takes one, as it does in runc.
    group = child.cgroup.open_to_clone_into() if child.pidfd is None else None
    child.born_in_group = group is not None
    pid, pidfd = namespaces.clone3(flags, cgroup_fd=group)
    if pid == 0:
        init.run(child)
    if group is not None:
        os.close(group)
    return pid, pidfd


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
        except ConnectionResetError:  # it ended without reading everything; what it said comes next
            continue
        if not data:
            sync.close()
            return master
        report = json.loads(data)
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
