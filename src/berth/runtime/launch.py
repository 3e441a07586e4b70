"""From a request to a running process: what the monitor does before its event loop.

Makes stdio and cgroup, clones the child (`berth.runtime.init`), hears how it went, and undoes
everything when it went wrong.
"""

from __future__ import annotations

import json
import os

from berth.errors import BerthError, Failed, from_record
from berth.kernel import namespaces, sockets
from berth.runtime import init, monitor, rootfs
from berth.runtime.clients import STDERR, STDOUT, Client, Input
from berth.runtime.jsonlog import LogWriter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.kernel.cgroups import Cgroup, Hierarchies


class Request:
    """A message from berthd, with its descriptors in the order of :mod:`berth.runtime.client`."""

    def __init__(self, document: dict[str, object], fds: list[int]) -> None:
        self.document = document
        self.fds = fds

    def text(self, key: str) -> str:
        """Return a string, empty when missing."""
        value = self.document.get(key)
        return value if isinstance(value, str) else ""

    def flag(self, key: str) -> bool:
        """Return a boolean."""
        return bool(self.document.get(key))

    def items(self, key: str) -> list[dict[str, object]]:
        """Return a list of objects."""
        value = self.document.get(key) or []
        assert isinstance(value, list)
        return value

    def take(self) -> int:
        """Return the next descriptor."""
        return self.fds.pop(0)


def serve(request: Request, hierarchies: Hierarchies, null_fd: int) -> None:
    """Run one process from its start to its end, as the monitor. Returns when all is done."""
    monitor.prepare()
    control = sockets.adopt(request.take())
    os.chdir(request.text("directory"))
    try:
        served = _start(request, control, hierarchies, null_fd)
    except BaseException as error:
        kind = error if isinstance(error, BerthError) else Failed(str(error) or repr(error))
        data = json.dumps({"event": "failed", "error": kind.record()}).encode()
        sockets.send(control, data)
        return
    served.run()
    served.finish()
    if served.cgroup is not None and request.text("op") == "task":
        served.cgroup.kill()
        served.cgroup.remove()


def _start(
    request: Request, control: sockets.Socket, hierarchies: Hierarchies, null_fd: int
) -> monitor.Monitor:
    document = request.document
    joins = request.text("op") == "exec"
    spec = document.get("spec") or {}
    process = document.get("process") or (spec.get("process") if isinstance(spec, dict) else None)
    path = request.text("cgroups_path") or spec.get("linux", {}).get("cgroupsPath", "")  # type: ignore[union-attr,attr-defined]
    cgroup = hierarchies.open_group(path)
    ours, theirs = sockets.pair()
    child = init.Child(theirs, process, cgroup)  # type: ignore[arg-type]
    child.spec = spec  # type: ignore[assignment]
    child.rootfs = document.get("rootfs") or {}  # type: ignore[assignment]
    child.user = request.text("user")
    child.groups = document.get("groups") or []  # type: ignore[assignment]
    seccomp = request.text("seccomp")
    child.filter = bytes.fromhex(seccomp) if seccomp else None
    child.init = request.flag("init")
    child.terminal = request.flag("terminal")
    child.size = tuple(document.get("size") or (0, 0))  # type: ignore[arg-type,assignment]
    child.controllers = hierarchies.mount_options()
    if joins:
        child.pidfd = request.take()
    elif request.flag("netns"):
        child.netns_fd = request.take()
    for tree in request.items("trees"):
        child.trees.append(
            rootfs.Tree(request.take(), str(tree["target"]), bool(tree["read_only"]), str(tree["propagation"]))
        )
    served = monitor.Monitor(control, log=_open_log(request), stdin_once=request.flag("stdin_once"))
    served.cgroup = cgroup
    pipes = _open_stdio(request, child, null_fd)
    if not joins:
        cgroup.create()
    try:
        if not joins:
            cgroup.apply(spec.get("linux", {}).get("resources", {}))  # type: ignore[union-attr,attr-defined]
        pid, pidfd = _clone(child, joins=joins)
        served.hold_mounts(pid)
        _release(child, joins=joins)
        _hear(served, ours, pid)
    except BaseException:
        if not joins:
            cgroup.kill()
            cgroup.remove()
        raise
    _connect_stdio(served, pipes)
    for attachment in request.items("attachments"):
        served.attach(Client(request.take(), attachment))
    served.watch_process(pid, pidfd)
    monitor.announce(served, pid, pidfd)
    return served


def _open_log(request: Request) -> LogWriter | None:
    target = request.document.get("log")
    if not isinstance(target, dict):
        return None
    return LogWriter(target["path"], target["max_size"], target["max_files"])


def _open_stdio(
    request: Request, child: init.Child, null_fd: int
) -> tuple[int | None, int, int] | None:
    """Make the pipes; their far ends go to the child. None with a terminal."""
    if child.terminal:
        return None
    if request.flag("stdin"):
        stdin, to_stdin = os.pipe2(os.O_CLOEXEC)
    else:
        stdin, to_stdin = os.dup(null_fd), None
    from_stdout, stdout = os.pipe2(os.O_CLOEXEC)
    from_stderr, stderr = os.pipe2(os.O_CLOEXEC)
    child.stdio = (stdin, stdout, stderr)
    return to_stdin, from_stdout, from_stderr


def _clone(child: init.Child, *, joins: bool) -> tuple[int, int]:
    flags = 0
    if joins:
        assert child.pidfd is not None
        # Only children of the caller enter the pid namespace; the monitor stays outside.
        namespaces.setns(child.pidfd, namespaces.CLONE_NEWPID)
    else:
        for entry in child.spec.get("linux", {}).get("namespaces", []):
            kind, path = entry["type"], entry.get("path")
            if kind == "pid" and path:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                namespaces.setns(fd, namespaces.CLONE_NEWPID)
                os.close(fd)
            # The cgroup namespace's root is the group of whoever makes it, so the child does.
            elif not path and kind != "cgroup" and not (kind == "network" and child.netns_fd is not None):
                flags |= namespaces.NAMESPACES[kind][0]
    pid, pidfd = namespaces.clone3(flags)
    if pid == 0:
        init.run(child)
    return pid, pidfd


def _release(child: init.Child, *, joins: bool) -> None:
    """Close in the monitor what only the child needs."""
    child.sync.close()
    for fd in child.stdio or ():
        os.close(fd)
    for tree in child.trees:
        os.close(tree.fd)
    if child.netns_fd is not None:
        os.close(child.netns_fd)
    if joins and child.pidfd is not None:
        os.close(child.pidfd)


def _hear(served: monitor.Monitor, sync: sockets.Socket, pid: int) -> None:
    """Follow the child until it became the program; raise what it reports."""
    while True:
        data, fds = sockets.receive(sync)
        if not data:
            sync.close()
            return
        report = json.loads(data)
        if "terminal" in report:
            served.master = fds[0]
            continue
        os.waitpid(pid, 0)
        raise from_record(report["error"])


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
