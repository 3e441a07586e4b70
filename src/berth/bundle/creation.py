"""`create`: from a bundle to a process that waits for its start. What fails leaves nothing behind."""

from __future__ import annotations

import _socket
import os
import time

from berth.bundle import deputies, descriptors, gathering
from berth.bundle.records import NEW_SOCKET, SOCKET
from berth.bundle.status import start_time, state
from berth.bundle.warnings import warn
from berth.errors import BerthError, Conflict, Failed, from_record
from berth.kernel import cgroup_limits, sockets
from berth.runtime import codec, hooks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from berth.bundle.plan import Plan
    from berth.bundle.records import Folder, Record
    from berth.bundle.systemd import Scope
    from berth.kernel.cgroups import Cgroup
    from berth.oci.runtime_spec import NetDevice, Spec

KILL = 9
BACKLOG = 1
# What keeps it from starting is told in runc's words.
NOT_STARTED = "unable to start container process: "


class Options:
    """How a process is made, as the caller's flags say."""

    def __init__(self) -> None:
        self.console_socket = ""
        self.pid_file = ""
        self.preserve_fds = 0
        self.no_pivot = False
        self.no_new_keyring = False
        self.maker = "self"  # the process, in /proc, that makes the container or has it made
        self.systemd_cgroup = False
        self.network = -1  # made ahead (`berth.bundle.networks`)


class Made:
    """A process that waits for its start; ``terminal`` is there when nobody else asked for it."""

    def __init__(self, pid: int, record: Record, terminal: int, group: Cgroup) -> None:
        self.pid = pid
        self.group = group
        self.record = record
        self.terminal = terminal


def console(path: str) -> _socket.socket:
    """Connect to the socket that a terminal is to be sent to."""
    return gathering.connect(path, f"cannot connect to console socket {path}")


class Creation:
    """One container that is being made in a folder that was just made, and is removed with it on failure."""

    def __init__(self, folder: Folder, spec: Spec, bundle: str, options: Options) -> None:
        self._folder = folder
        self._options = options
        self._scope = _scope(spec, folder.id) if options.systemd_cgroup else None
        group = self._scope.path() if self._scope is not None else ""
        maker = options.maker
        self._plan = gathering.gather(spec, id_=folder.id, bundle=bundle, maker=maker, group=group)
        self._plan.no_pivot = options.no_pivot
        self._plan.no_new_keyring = options.no_new_keyring
        self._plan.preserved = options.preserve_fds
        if options.console_socket:
            self._plan.console = console(options.console_socket)
        self._pid = 0
        self.record: Record = {
            "id": folder.id,
            "oci_version": spec.get("ociVersion", ""),
            "bundle": bundle,
            "rootfs": self._plan.rootfs,
            "created": _now(),
            "cgroup_path": self._plan.group.path,
            "own_pid_namespace": self._plan.is_new("pid"),
            "no_new_keyring": options.no_new_keyring,
            "owner": "",
            "spec": spec,
        }
        if self._scope is not None:
            self.record["systemd_unit"] = self._scope.place.unit

    def make(self) -> Made:
        """Make it."""
        try:
            return self._make()
        except BaseException:
            self._undo()
            raise

    def _make(self) -> Made:
        plan = self._plan
        self._folder.save(self.record)
        self._add_network()
        self._make_group()
        trees = _mapped_trees(plan)
        descriptors.preserve(plan.preserved)
        plan.listener, plan.lock = self._listen(), self._folder.lock_fd
        ours, theirs = sockets.pair()
        self._pid = _clone(plan, theirs, ours)
        theirs.close()
        plan.listener.close()
        self.record["init_process_pid"] = self._pid
        self.record["init_process_start"] = start_time(self._pid)
        self._folder.save(self.record)
        if plan.is_new("user"):
            _map_ids(plan, self._pid)
        if devices := plan.linux.get("netDevices"):
            _move_devices(plan, self._pid, devices)
        score = plan.process.get("oomScoreAdj")
        if score is not None:
            _set_oom_score(self._pid, score)
        plan.state = state(self.record, "creating")
        _release(plan, ours, trees, _open_sources(plan, self._pid))
        terminal = self._converse(ours)
        ours.close()
        self._folder.finish_making()
        deputies.dismiss()
        if self._options.network >= 0:
            os.close(self._options.network)
        if self._scope is not None:
            self._scope.let_go()
        if self._options.pid_file:
            write_pid(self._options.pid_file, self._pid)
        return Made(self._pid, self.record, terminal, plan.group)

    def _make_group(self) -> None:
        if self._scope is not None:
            self._scope.start()
        if not make_group(self._plan, systemds=self._scope is not None):
            self.record["cgroup_path"] = ""

    def _add_network(self) -> None:
        """Have a new network before the process is made.

        Not for a user namespace, which would not own it; nor for a network that gets devices before that
        process has entered it.
        """
        plan = self._plan
        if not plan.is_new("network") or plan.in_user_namespace:
            return
        deputy = deputies.started()
        if self._options.network >= 0:
            plan.joined["network"] = self._options.network
        elif deputy is not None and not plan.linux.get("netDevices"):
            deputy.make_network()

    def _listen(self) -> sockets.Socket:
        """Listen for the `start` to come; the path through a descriptor, for a socket's is short."""
        listener = sockets.Socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        folder = os.open(self._folder.path, os.O_PATH | os.O_CLOEXEC)
        previous = os.umask(0o077)
        listener.bind(f"/proc/self/fd/{folder}/{NEW_SOCKET}")
        os.umask(previous)
        listener.listen(BACKLOG)
        os.close(folder)
        return listener

    def _converse(self, sync: sockets.Socket) -> int:
        """Answer the process until it is ready; return its terminal, if it came here."""
        terminal = -1
        while True:
            try:
                data, fds = sockets.receive(sync)
            except (
                ConnectionResetError
            ):  # once: it left something unread; its report is still there
                continue
            if not data:
                raise Failed("the container's first process died while it was set up")
            message = codec.decode(data)
            if "ready" in message:
                return terminal
            if "error" in message:
                raise from_record(message["error"])
            if "warning" in message:
                warn(message["warning"])
            elif "terminal" in message:
                terminal = fds[0]
            else:
                for kind in ("prestart", "createRuntime"):
                    hooks.run(self._plan.spec, kind, state(self.record, "creating"))
                sockets.send(sync, b'{"go": true}')

    def _undo(self) -> None:
        if self._pid:
            try:
                os.kill(self._pid, KILL)
                os.waitpid(self._pid, 0)
            except (ProcessLookupError, ChildProcessError):
                pass
        if self._scope is not None:
            self._scope.let_go()
        if self._plan.has_own_group:
            try:
                self._plan.group.kill()
                self._plan.group.remove()
            except OSError:  # what is left is empty, or somebody else's
                pass
        if self._scope is not None:
            try:
                self._scope.stop()
            except BerthError as error:
                warn(f"unit {self._scope.place.unit} may be left: {error.message}")
        self._folder.remove()


def _scope(spec: Spec, id_: str) -> Scope:
    from berth.bundle import systemd

    return systemd.Scope(systemd.Place(spec, id_), spec, id_)


def make_group(plan: Plan, *, systemds: bool) -> bool:
    """Make the groups; say whether there are any: an ordinary user may have no right to, and no limits.

    ``systemds``: systemd has made some of them, for this container.
    """
    shared = plan.group.exists() and not systemds
    try:
        plan.group.create_alone()
        if not systemds:
            _check_group(plan.group)
        cgroup_limits.apply(plan.hierarchies, plan.group.path, gathering.resources(plan))
    except PermissionError:
        limits = (plan.linux.get("resources") or {}).keys() - {"devices"}
        if os.geteuid() == 0 or limits:
            raise
        warn("no right to make cgroups: the container has none of its own, and cannot be paused")
        plan.has_group = False
        return False
    except BaseException:
        if not shared:
            plan.group.remove()
        raise
    plan.has_own_group = not shared
    return True


def _clone(plan: Plan, sync: sockets.Socket, ours: sockets.Socket) -> int:
    """Make the process, by the deputy unless this process is sealed itself."""
    deputy = deputies.started()
    if deputy is not None:
        return deputy.make(plan, sync)
    from berth.bundle import birth

    return birth.clone(plan, sync, ours)


def _mapped_trees(plan: Plan) -> list[int]:
    words = (word for mount in plan.spec.get("mounts") or () for word in mount.get("options") or ())
    if {"idmap", "ridmap"}.isdisjoint(words):
        return []
    from berth.bundle import mapping

    return mapping.open_trees(plan)


def _map_ids(plan: Plan, pid: int) -> None:
    from berth.bundle import ids

    ids.give(plan, pid)


def _open_sources(plan: Plan, pid: int) -> list[int]:
    if os.geteuid() or not plan.in_user_namespace or not plan.is_new("mount"):
        return []
    from berth.bundle import sources

    return sources.open_all(plan, pid)


def _release(plan: Plan, sync: sockets.Socket, trees: list[int], sources: list[int]) -> None:
    """Let the process go on, with id-mapped trees and what else was opened for it."""
    message = {"go": True, "state": plan.state, "trees": len(trees)}
    try:
        sockets.send(sync, codec.encode(message), [*trees, *sources])
    except BrokenPipeError:  # it failed already; its report is read next
        pass


def _check_group(group: Cgroup) -> None:
    """Refuse groups in which nothing would ever go on; say of others that they are shared."""
    if group.pids():
        warn("container's cgroup is not empty: what limits or kills one limits or kills all in it")
    if group.is_frozen():
        raise Conflict("container's cgroup unexpectedly frozen")


def _move_devices(plan: Plan, pid: int, devices: Mapping[str, NetDevice]) -> None:
    from berth.runtime import netdevices

    fd = plan.joined.get("network", -1)
    if fd < 0:
        fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    netdevices.move(devices, fd)


def _set_oom_score(pid: int, score: int) -> None:
    try:
        with open(f"/proc/{pid}/oom_score_adj", "w") as file:
            file.write(str(score))
    except OSError as error:
        raise Failed(f"failed to set oom_score_adj to {score}: {error.strerror}") from error


def write_pid(path: str, pid: int) -> None:
    """Write a pid file, whole or not at all."""
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        fd = os.open(temporary, flags, 0o644)
    except FileExistsError:  # one that was killed has left it; or it is a link of somebody else's
        os.unlink(temporary)
        fd = os.open(temporary, flags, 0o644)
    os.write(fd, str(pid).encode())
    os.close(fd)
    os.replace(temporary, path)


def _now() -> str:
    whole, part = divmod(time.time_ns(), 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{part:09d}Z"


def start(folder: Folder, record: Record) -> None:
    """Start the process that waits; raises what kept it from becoming its program."""
    sock = sockets.Socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    directory = os.open(folder.path, os.O_PATH | os.O_CLOEXEC)
    try:
        sock.connect(f"/proc/self/fd/{directory}/{SOCKET}")
    except ConnectionRefusedError:  # one that was killed before it could note that has started it
        folder.forget_start()
        raise Conflict("cannot start an already running container") from None
    except OSError as error:
        raise Failed(f"cannot start an already running container: {error.strerror}") from error
    finally:
        os.close(directory)
    folder.forget_start()
    try:
        data, _ = sockets.receive(sock)
    except ConnectionResetError:
        data = b""
    sock.close()
    if data:
        raise from_record(codec.decode(data)["error"])
    hooks.run(record.get("spec", {}), "poststart", state(record, "running"))
