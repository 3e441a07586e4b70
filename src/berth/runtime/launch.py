"""From a request to a running process: what the monitor does before its event loop.

Makes stdio and cgroup, clones the child (`berth.runtime.init`), passes berthd's handover on to it, hears
how it went, and undoes everything when it went wrong.
"""

from __future__ import annotations

import _signal
import os

from berth.errors import BerthError, Failed, from_record
from berth.kernel import namespaces, processes, sockets
from berth.runtime import codec, imports, init, monitor, payload
from berth.runtime.birth import Birth
from berth.runtime.clients import STDERR, STDOUT, Client, Input
from berth.runtime.jsonlog import LogWriter
from berth.runtime.locallog import LocalWriter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.kernel.cgroups import Hierarchies
    from berth.oci.runtime_spec import Spec
    from berth.runtime.hooking import Hooking
    from berth.runtime.messages import (
        HandoverMessage,
        RemoteLogMessage,
        RequestMessage,
    )
    from berth.runtime.restoring import Restoring


class Request:
    """A message from berthd with its descriptors, which are taken in order."""

    def __init__(self, data: bytes, fds: list[int]) -> None:
        self._data, self.fds = data, fds
        first, _, self.plan = data.partition(b"\n")
        self.message: RequestMessage = codec.decode(first)

    def take(self) -> int:
        """Return the next descriptor."""
        return self.fds.pop(0)

    def close(self) -> None:
        """Close the descriptors that nobody took, and wipe the plan: the next fork is somebody else's."""
        while self.fds:
            os.close(self.fds.pop())
        processes.wipe(self._data, self.plan)


class Here:
    """What the zygote opens once, for itself and all its forks."""

    def __init__(self, hierarchies: Hierarchies, default_spec: Spec) -> None:
        self.hierarchies = hierarchies
        self.default_spec = default_spec
        self.controllers = hierarchies.mount_options()
        self.null_fd = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        self.host_mounts_fd = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)


class Launch:
    """A process that is being started, and its monitor.

    Made in the zygote, the monitor's event loop included: a fork shares its memory until one side writes, and
    a monitor, which lives long, keeps what it has written to itself. One that is free makes its next run's.
    """

    def __init__(
        self,
        request: Request,
        control: sockets.Socket,
        zygote_fd: int | None,
        here: Here,
        spare: Birth | None = None,
    ) -> None:
        self.request = request
        self.control = control
        self.zygote_fd = zygote_fd
        self.here = here
        self.owns_cgroup = request.message["op"] != "exec"
        self.terminal = request.message["terminal"]
        self.birth = spare or self._plan_birth()
        self.orphans = 0
        self.restoring: Restoring | None = None
        self.hooking: Hooking | None = None
        self.served = monitor.Monitor(control, stdin_once=request.message["stdin_once"])
        self.served.cgroup = self.birth.cgroup

    def _plan_birth(self) -> Birth:
        cgroup = self.here.hierarchies.open_group(self.request.message["cgroups_path"])
        steps = init.TASK_STEPS if self.owns_cgroup else init.EXEC_STEPS
        if self.request.message["remapped"]:
            steps = ()  # see `begin`
        birth = Birth(cgroup, steps, self.request.plan)
        birth.child.controllers = self.here.controllers
        birth.child.terminal = self.terminal
        if not self.owns_cgroup:
            birth.child.pidfd = self.request.take()
        return birth

    def open(self) -> None:
        """Open what monitor and process need; :meth:`close` also after a failure."""
        message = self.request.message
        # The monitor's, too, which calls its files by their names alone.
        os.chdir(message["directory"])
        self.served.log = _open_log(message)
        self.served.listen()
        if not self.terminal:
            _open_pipes(message, self.served, self.birth.child.stdio, self.here.null_fd)
        if self.birth.pid:
            return
        foreign = self.served.callers()
        if self.zygote_fd is not None:
            foreign.append(self.zygote_fd)
        self.birth.open(message["flags"], own_group=self.owns_cgroup, foreign=foreign)

    def close(self) -> None:
        """Close in the zygote what the fork has taken along."""
        os.chdir("/")
        self.birth.close()
        self.request.close()
        self.served.close()

    def fail(self, error: BaseException) -> None:
        """Tell berthd why it did not come to a process."""
        self._clear()
        _report(self.control, error)

    def _clear(self) -> None:
        """Leave no groups; hooks may follow then."""
        if self.owns_cgroup:
            self.birth.discard_groups()
        if self.hooking is not None:
            self.hooking.ended()

    def begin(self) -> None:
        """Make the process and let it prepare itself.

        Nothing that can wait comes before: whatever is written before a fork is copied once more after it.
        """
        # Ignored, as in the zygote, it would throw the exit status away.
        _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
        if self.request.message["op"] == "restore":
            restoring = imports.from_host("berth.runtime.restoring")
            self.restoring = restoring.Restoring(self.request, self.birth, self.here)
        remapped = self.request.message["remapped"]
        if remapped:
            remapping = imports.from_host("berth.runtime.remapping")
            of_task = self.owns_cgroup
            self.birth.child.steps = remapping.TASK_STEPS if of_task else remapping.EXEC_STEPS
        if self.request.message.get("hooks"):
            hooking = imports.from_host("berth.runtime.hooking")
            self.hooking = hooking.Hooking(self.request, self.birth, self.here)
        self._give_birth()
        if remapped and self.owns_cgroup:
            self.birth.follow()
        if self.zygote_fd is not None:
            os.close(self.zygote_fd)
        if self.restoring is None:
            self.served.own(self.birth.pid, self.birth.pidfd)
        if self.request.message["shows_network"]:
            network = os.open(f"/proc/{self.birth.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            sockets.send(self.control, b'{"event": "network"}', [network])
            os.close(network)

    def _give_birth(self) -> None:
        if self.joins_pid_namespace:
            path, pidfd = self.request.message["pid_namespace"], self.birth.child.pidfd
            _join_pid_namespace(path, pidfd)
        if self.birth.pid:
            self.birth.tell(self.request.plan)
        else:
            self.birth.make()
        if (
            self.joins_pid_namespace
        ):  # other children, hooks of the host among them, are not in there
            own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
            namespaces.setns(own, namespaces.CLONE_NEWPID)
            os.close(own)

    def hand_over(self) -> bool:
        """Wait for berthd's word to go on, and pass on what came with it; False when none comes."""
        data, fds = sockets.receive(self.control)
        if not data:
            return False
        message: HandoverMessage = codec.decode(data)
        count = len(message["trees"]) + message["netns"]
        self.request.fds = fds[count:]
        if message["log"]:
            self._ship(message["log"])
        if self.request.message["remapped"]:
            remapping = imports.from_host("berth.runtime.remapping")
            remapping.map_stored(self.birth.pid, fds[message["netns"] : count], message["trees"])
        if self.restoring is not None:
            self.restoring.trees = message["trees"]
        if self.hooking is not None:
            self.hooking.make_bundle(message["trees"])
        try:
            sockets.send(self.birth.sync, data, fds[:count])
        except BrokenPipeError:  # it failed already; its report is read next
            pass
        for fd in fds[:count]:
            os.close(fd)
        self.request.message["attachments"] = message["attachments"]
        self.orphans = message["orphans"]
        return True

    def _ship(self, log: RemoteLogMessage) -> None:
        """Connect to the log's server: a container whose log nobody gets does not start."""
        fd = self.request.take() if log["has_fd"] else None
        shipping = imports.from_host("berth.runtime.shipping")
        self.served.ship(shipping.open_shipper(log, fd))

    def _buffer_log(self) -> None:
        target, log = self.request.message["log"], self.served.log
        if target and target["max_buffer"] and isinstance(log, LogWriter | LocalWriter):
            ringlog = imports.from_host("berth.runtime.ringlog")
            self.served.ring = ringlog.RingLog(log, target["max_buffer"])
            self.served.log = self.served.ring

    def complete(self) -> monitor.Monitor:
        """Wait until the process is the user's program, and take its streams over."""
        master = _hear(self.birth.sync, self.birth.pid, self.hooking)
        if self.restoring is not None:
            master = self.restoring.finish()
            self.served.own(self.birth.pid, self.birth.pidfd)
        if self.hooking is not None:
            self.hooking.started()
        if master is not None:
            self.served.use_terminal(master)
        self._buffer_log()
        for attachment in self.request.message.get("attachments", []):
            self.served.attach(Client(self.request.take(), attachment))
        for _ in range(self.orphans):
            self.served.orphans.add(self.request.take(), self.control)
        self.served.kept, self.request.fds = self.request.fds, []
        self.served.announce()
        return self.served

    def serve(self) -> Launch | None:
        """Run the process from its start to its end, as the monitor; return the next one, if there is one."""
        try:
            self.begin()
            if self.zygote_fd is not None:
                monitor.prepare()
            served = self.complete() if not self.owns_cgroup or self.hand_over() else None
        except BaseException as error:  # noqa: BLE001 - told to berthd, whatever it is
            self.birth.kill()
            self.fail(error)
            return None
        if served is not None:
            served.run()
            served.finish()
        else:
            self.birth.kill()
        self._clear()
        if served is None:
            return None
        control = served.release()
        if control is None:
            served.leave()
            return None
        self.forget()
        return _next(control, self.here)

    def forget(self) -> None:
        """Leave nothing of this run to the next one."""
        os.chdir("/")
        os.close(self.birth.pidfd)
        self.request.close()

    @property
    def joins_pid_namespace(self) -> bool:
        """Say whether the process is in another pid namespace than one of its own or the monitor's."""
        return (
            self.request.message["pid_namespace"] is not None
            or self.request.message["op"] == "exec"
        )


def serve(launch: Launch | None) -> None:
    """Be a monitor: for one run, and for those that berthd asks for when it is over."""
    while launch is not None:
        launch = launch.serve()


def _next(control: sockets.Socket, here: Here) -> Launch | None:
    """Say that this monitor is free, and wait for the next run; None when there is none."""
    spare = None
    try:
        sockets.send(control, b'{"event": "free"}')
        while (received := sockets.receive(control))[0]:
            request = Request(*received)
            if request.message["op"] != "spare":
                return plan(request, control, None, here, spare)
            spare = _make_spare(request.message, control, here)
    except OSError:  # berthd is gone
        pass
    if spare is not None:
        spare.undo()
    return None


def _make_spare(message: RequestMessage, control: sockets.Socket, here: Here) -> Birth | None:
    """Clone a process ahead; None when that is not possible now."""
    spare = Birth(here.hierarchies.open_group(message["cgroups_path"]), init.SPARE_STEPS)
    child = spare.child
    child.spec, child.controllers, child.ahead = here.default_spec, here.controllers, True
    try:
        spare.open(message["flags"], own_group=True, foreign=[control.fileno()])
        spare.make()
    except (BerthError, OSError):
        spare.undo()
        return None
    return spare


def _fitting(spare: Birth | None, message: RequestMessage) -> Birth | None:
    """Return the spare if it is alive and of use; else nothing is left of it."""
    if spare is None:
        return None
    in_groups = spare.cgroup.path == message["cgroups_path"].strip("/")
    if in_groups and message["default_namespaces"] and not spare.is_gone():
        return spare
    spare.undo()
    return None


def plan(
    request: Request,
    control: sockets.Socket,
    zygote_fd: int | None,
    here: Here,
    spare: Birth | None = None,
) -> Launch | None:
    """Make what can be made before a fork; None when it failed, which berthd was told then.

    ``control``: the connection to berthd. ``zygote_fd``: the zygote's own, which no fork may hold open.
    ``spare``: a process that it may become.
    """
    spare = _fitting(spare, request.message)
    try:
        launch = Launch(request, control, zygote_fd, here, spare)
    except BaseException as error:  # noqa: BLE001 - told to berthd, whatever it is
        if spare is not None:
            spare.undo()
        _report(control, error)
        control.close()
        request.close()
        return None
    try:
        launch.open()
    except BaseException as error:  # noqa: BLE001 - the same
        launch.birth.kill()
        launch.fail(error)
        launch.close()
        return None
    return launch


def _report(control: sockets.Socket, error: BaseException) -> None:
    if isinstance(error, BerthError):
        kind = error
    elif isinstance(error, OSError) and not error.filename:
        kind = Failed(payload.reason(error))
    else:
        kind = Failed(str(error) or repr(error))
    try:
        sockets.send(control, codec.encode({"event": "failed", "error": kind.record()}))
    except OSError:  # berthd does not care any more
        return


def _open_log(message: RequestMessage) -> LogWriter | LocalWriter | None:
    target = message["log"]
    if not target:
        return None
    path, size, files = target["path"], target["max_size"], target["max_files"]
    compress, attributes = target["compress"], target["attributes"]
    if target["driver"] == "local":
        return LocalWriter(path, max_size_bytes=size, max_files=files, compress=compress)
    return LogWriter(path, size, files, compress=compress, attributes=attributes)


def _open_pipes(
    message: RequestMessage, served: monitor.Monitor, stdio: list[int], null_fd: int
) -> None:
    """Make stdin, stdout and stderr: one end for the monitor, the far ends for the child."""
    if message["stdin"]:
        stdin, to_stdin = os.pipe2(os.O_CLOEXEC)
        served.input = Input(to_stdin, terminal=False)
    else:
        stdin = os.dup(null_fd)
    stdio.append(stdin)
    for stream in (STDOUT, STDERR):
        ours, theirs = os.pipe2(os.O_CLOEXEC)
        served.add_output(ours, stream)
        stdio.append(theirs)


def _join_pid_namespace(path: str | None, pidfd: int | None) -> None:
    """Let the next child be in another pid namespace; the caller itself stays outside."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC) if path is not None else pidfd
    assert fd is not None
    namespaces.setns(fd, namespaces.CLONE_NEWPID)
    if path is not None:
        os.close(fd)


def _hear(sync: sockets.Socket, pid: int, hooking: Hooking | None) -> int | None:
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
        if "error" in report:
            os.waitpid(pid, 0)
            raise from_record(report["error"])
        if hooking is not None and not fds:
            hooking.answer(sync)
        else:
            master = fds[0]
