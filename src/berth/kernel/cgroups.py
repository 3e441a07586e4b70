"""cgroups: one container's groups in every hierarchy, version 1, hybrid or 2 (cgroups(7)).

Hierarchies are held by directory descriptors, so they work where cgroupfs is not mounted (the
zygote's mount namespace). On version 1 a process enters by writing 0 to ``tasks`` itself, which only a
single-threaded one may: ``cgroup.procs`` would wait for an RCU grace period a hierarchy.
"""

from __future__ import annotations

import errno
import os

from berth.errors import InvalidArgument, Unavailable, Unsupported
from berth.kernel import cgroup_files
from berth.kernel.cgroup_files import read, write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from berth.oci.runtime_spec import DeviceRule, Resources

MOUNTINFO = "/proc/self/mountinfo"
KILL = 9
# Mount options of version 1 that are not controllers.
NOT_CONTROLLERS = ("rw", "ro", "none", "xattr", "noprefix", "clone_children", "cpuset_v2_mode")
# The group for the processes of a container that berth runs in.
NESTED_PROCESSES = "init"
FOREIGN = "0"  # in cgroup.procs: a process that this pid namespace does not see
# Version 1's names by what version 2 calls them. Freezing and killing need no controller there.
RENAMED = {"blkio": "io", "cpuacct": "cpu"}


class Hierarchy:
    """One mounted hierarchy: the controllers it has and its top directory."""

    __slots__ = ("controllers", "fd", "name", "options", "unified")

    def __init__(self, fd: int, name: str, controllers: tuple[str, ...], *, unified: bool) -> None:
        self.fd = fd
        self.name = name  # the last part of its mount point, as containers see it
        self.controllers = controllers
        self.unified = unified
        self.options = ",".join(controllers)

    @property
    def point(self) -> str:
        """Where it is mounted."""
        return os.readlink(f"/proc/self/fd/{self.fd}")


class Hierarchies:
    """Every hierarchy of this host."""

    def __init__(self, found: list[Hierarchy]) -> None:
        self.found = found
        self.only_unified = all(h.unified for h in found)
        self.unified = next((h for h in found if h.unified), None)

    def open_group(self, path: str) -> Cgroup:
        """Name a group by its path from the top of each hierarchy. No I/O."""
        return Cgroup(self, path.strip("/"))

    def mount_options(self) -> list[str]:
        """Return what to mount in a container: ["cgroup2"], or one option string a v1 hierarchy."""
        if self.only_unified:
            return ["cgroup2"]
        return [h.options for h in self.found if not h.unified]

    def of(self, controller: str) -> Hierarchy | None:
        """Return the hierarchy with ``controller``, by version 1's name of it."""
        for hierarchy in self.found:
            name = RENAMED.get(controller, controller) if hierarchy.unified else controller
            if name in hierarchy.controllers:
                return hierarchy
        return None

    def freezer(self) -> Hierarchy | None:
        """Return the hierarchy whose groups can be stopped; version 2's need no controller for it."""
        return self.of("freezer") or self.unified

    def prepare_parent(self, path: str, devices: Sequence[DeviceRule]) -> None:
        """Make a group that containers' groups are made in: inheritance, and device rules once for all.

        Idempotent; containers may be running below it.
        """
        from berth.kernel import cgroup_devices, device_programs

        group = self.open_group(path)
        for hierarchy in self.found:
            _make_parents(hierarchy, f"{group.path}/child")
        if not devices:
            return
        controller = self.of("devices")
        if controller is None:
            device_programs.attach(self._device_tree().fd, group.path, devices)
            return
        # "deny all" is refused once the group has children, and was written before it had any.
        closed = "a *:* rwm" not in read(controller.fd, f"{group.path}/devices.list")
        rules = [rule for rule in devices if rule.get("allow")] if closed else devices
        cgroup_devices.allow(controller.fd, group.path, rules)

    def _device_tree(self) -> Hierarchy:
        if self.unified is None:
            raise Unsupported("set device rules: the devices cgroup controller is not mounted")
        return self.unified


def detect() -> Hierarchies:
    """Find the mounted hierarchies; Unsupported when there are none."""
    found: list[Hierarchy] = []
    # Places of mounts are named by whoever may mount, a user with FUSE as well: bytes of any kind.
    with open(MOUNTINFO, errors="surrogateescape", newline="\n") as file:
        lines = file.read().split("\n")
    for line in lines:
        before, _, after = line.partition(" - ")
        fstype, _, rest = after.partition(" ")
        if fstype not in ("cgroup", "cgroup2"):
            continue
        controllers = _controllers(rest.rpartition(" ")[2]) if fstype == "cgroup" else ()
        if any(h.unified == (fstype == "cgroup2") and h.controllers == controllers for h in found):
            continue
        point = before.split(" ")[4]
        fd = os.open(point, cgroup_files.DIRECTORY)
        name = point.rsplit("/", 1)[-1]
        found.append(Hierarchy(fd, name, controllers, unified=fstype == "cgroup2"))
    for hierarchy in found:
        if hierarchy.unified:
            hierarchy.controllers = tuple(read(hierarchy.fd, "cgroup.controllers").split())
    if not found:
        raise Unsupported("find cgroups: no hierarchy is mounted; mount cgroup2 on /sys/fs/cgroup")
    return Hierarchies(found)


def _controllers(options: str) -> tuple[str, ...]:
    """Return the controllers, or "name=…", among a version 1 mount's super options."""
    return tuple(
        option
        for option in options.split(",")
        if option not in NOT_CONTROLLERS and not option.startswith("release_agent=")
    )


class Cgroup:
    """The groups of one container, at the same path in every hierarchy."""

    __slots__ = ("hierarchies", "path")

    def __init__(self, hierarchies: Hierarchies, path: str) -> None:
        if not path or ".." in path.split("/"):
            raise InvalidArgument(f"invalid cgroups path {path!r}")
        self.hierarchies = hierarchies
        self.path = path

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]

    def children(self) -> list[Cgroup]:
        """Return the groups right below, in whatever hierarchies they are."""
        found = [
            path for h in self.hierarchies.found for path in cgroup_files.children(h.fd, self.path)
        ]
        return [Cgroup(self.hierarchies, path) for path in sorted(set(found))]

    def exists(self) -> bool:
        """Say whether any of the groups is there."""
        return any(cgroup_files.is_there(h.fd, self.path) for h in self.hierarchies.found)

    def create(self) -> None:
        """Make the groups, and the parents that are missing."""
        for hierarchy in self.hierarchies.found:
            self._create_in(hierarchy)

    def create_alone(self) -> None:
        """Make the groups where nobody has prepared a parent: version 2's are given its controllers first.

        A parent that has processes of its own cannot give any; then limits are refused by name.
        """
        for hierarchy in self.hierarchies.found:
            try:
                _make_parents(hierarchy, self.path)
            except Unsupported:
                pass
        self.create()

    def _create_in(self, hierarchy: Hierarchy) -> None:
        try:
            cgroup_files.make(hierarchy.fd, self.path)
        except FileNotFoundError:
            _make_parents(hierarchy, self.path)
            cgroup_files.make(hierarchy.fd, self.path)

    def apply(self, resources: Resources) -> None:
        """Set limits, at first or anew; what ``resources`` leaves out stays as it is.

        Raises Unsupported naming a controller or file that is missing for what was asked, InvalidArgument
        for a value that the kernel refuses.
        """
        from berth.kernel import cgroup_limits

        cgroup_limits.apply(self.hierarchies, self.path, resources)

    def open_to_clone_into(self) -> int | None:
        """Make version 2's group and return a descriptor for CLONE_INTO_CGROUP; None without version 2.

        To be born in a group is free. To enter one waits for an RCU grace period, 20 ms on many kernels.
        """
        unified = self.hierarchies.unified
        if unified is None:
            return None
        self._create_in(unified)
        return os.open(self.path, cgroup_files.DIRECTORY, dir_fd=unified.fd)

    def enter(self, *, born_in_unified: bool = False) -> None:
        """Move the calling, single-threaded process into the groups: all, or those of version 1."""
        for hierarchy in self.hierarchies.found:
            if hierarchy.unified and born_in_unified:
                continue
            name = "cgroup.procs" if hierarchy.unified else "tasks"
            try:
                write(hierarchy.fd, f"{self.path}/{name}", "0")
            except OSError as error:
                self._enter_otherwise(hierarchy, error)

    def _enter_otherwise(self, hierarchy: Hierarchy, error: OSError) -> None:
        """Enter where it was refused: a cpuset without processors, a group with controllers below it."""
        if error.errno == errno.ENOSPC and "cpuset" in hierarchy.controllers:
            _inherit_cpuset(hierarchy.fd, self.path)
            write(hierarchy.fd, f"{self.path}/tasks", "0")
            return
        if error.errno == errno.EBUSY and hierarchy.unified:
            for child in cgroup_files.children(hierarchy.fd, self.path):
                if cgroup_files.processes(hierarchy.fd, child):
                    Cgroup(Hierarchies([hierarchy]), child).enter()
                    return
        raise error

    def add(self, pid: int) -> None:
        """Move another process into the groups; slower than its own :meth:`enter` on version 1."""
        for hierarchy in self.hierarchies.found:
            path = f"{self.path}/cgroup.procs"
            try:
                write(hierarchy.fd, path, str(pid))
            except OSError as error:
                if error.errno != errno.ENOSPC or "cpuset" not in hierarchy.controllers:
                    raise
                _inherit_cpuset(hierarchy.fd, self.path)
                write(hierarchy.fd, path, str(pid))

    def pids(self) -> list[int]:
        """Return the ids of the processes in the groups and in groups that the container made below them.

        Those that this pid namespace does not see have none: to signal 0 is to signal oneself (kill(2)).
        """
        hierarchy = self.hierarchies.of("pids") or self.hierarchies.found[0]
        found = cgroup_files.processes(hierarchy.fd, self.path)
        return [pid for pid in found if pid != int(FOREIGN)]

    def freeze(self) -> None:
        """Stop all processes (docker pause); returns when they have stopped. Unavailable when they do not."""
        fd, path, frozen = self._set_frozen(frozen=True)
        if not cgroup_files.wait_until(lambda: frozen in read(fd, path)):
            self.thaw()
            raise Unavailable("pause: processes did not stop within a second")

    def is_frozen(self) -> bool:
        """Say whether processes are stopped, or are just being stopped."""
        if self.hierarchies.of("freezer") is not None:
            return self.read("freezer", "freezer.state").strip() in ("FROZEN", "FREEZING")
        unified = self.hierarchies.unified
        if unified is None or not cgroup_files.is_there(unified.fd, f"{self.path}/cgroup.freeze"):
            return False
        return "1" in read(unified.fd, f"{self.path}/cgroup.freeze")

    def thaw(self) -> None:
        """Let them go on."""
        self._set_frozen(frozen=False)

    def _set_frozen(self, *, frozen: bool) -> tuple[int, str, str]:
        """Return the file that tells when it is done, and the word in it."""
        freezer = self.hierarchies.of("freezer")
        if freezer is not None:
            path = f"{self.path}/freezer.state"
            write(freezer.fd, path, "FROZEN" if frozen else "THAWED")
            return freezer.fd, path, "FROZEN"
        unified = self.hierarchies.unified
        if unified is None:
            raise Unsupported("pause: the freezer cgroup controller is not mounted")
        write(unified.fd, f"{self.path}/cgroup.freeze", str(int(frozen)))
        return unified.fd, f"{self.path}/cgroup.events", "frozen 1"

    def kill(self) -> None:
        """Kill every process in the groups, frozen ones too. They may still be ending on return."""
        unified = self.hierarchies.unified
        try:
            if unified is None:
                raise FileNotFoundError
            write(unified.fd, f"{self.path}/cgroup.kill", "1")
        except FileNotFoundError:  # before Linux 5.14, or the group is gone
            cgroup_files.wait_until(self._kill_each)
        self._thaw_dying()

    def _kill_each(self) -> bool:
        """Signal what is there; False when there was something, which may have forked meanwhile."""
        pids = self.pids()
        for pid in pids:
            try:
                os.kill(pid, KILL)
            except ProcessLookupError:
                continue
        if pids:
            self._thaw_dying()
        return not pids

    def _thaw_dying(self) -> None:
        """Version 1's frozen processes do not die before they are thawed."""
        freezer = self.hierarchies.of("freezer")
        if freezer is None:
            return
        try:
            write(freezer.fd, f"{self.path}/freezer.state", "THAWED")
        except FileNotFoundError:
            return

    def remove(self) -> None:
        """Remove the groups; processes that are just ending are waited for, bounded. Idempotent."""
        for hierarchy in self.hierarchies.found:
            cgroup_files.remove(hierarchy.fd, self.path)

    def oom_kills(self) -> int:
        """Return how many processes the kernel killed for want of memory."""
        memory = self.hierarchies.of("memory")
        if memory is None:
            return 0
        name = "memory.events" if memory.unified else "memory.oom_control"
        return int(cgroup_files.fields(self.read("memory", name)).get("oom_kill", "0"))

    def read(self, controller: str, name: str) -> str:
        """Return a file of the group that has ``controller``, empty when it is not there."""
        hierarchy = self.hierarchies.of(controller)
        if hierarchy is None:
            return ""
        try:
            return read(hierarchy.fd, f"{self.path}/{name}")
        except OSError:
            return ""

    def has(self, controller: str, name: str) -> bool:
        """Say whether the group has a control file: whether this kernel has the limit."""
        hierarchy = self.hierarchies.of(controller)
        return hierarchy is not None and cgroup_files.is_there(hierarchy.fd, f"{self.path}/{name}")


def _make_parents(hierarchy: Hierarchy, path: str) -> None:
    """Make all groups above ``path``, so that processes may enter it and limits be set in it."""
    parts = path.split("/")[:-1]
    if hierarchy.unified:
        _delegate(hierarchy, "")
    for depth in range(len(parts)):
        folder = "/".join(parts[: depth + 1])
        fresh = cgroup_files.make(hierarchy.fd, folder)
        if hierarchy.unified:
            _delegate(hierarchy, f"{folder}/")
        elif fresh and "cpuset" in hierarchy.controllers:
            _inherit_cpuset(hierarchy.fd, folder)


def _inherit_cpuset(fd: int, path: str) -> None:
    """Give a v1 cpuset its parent's values, and its children theirs, else nothing may enter."""
    parent = path.rpartition("/")[0]
    for name in ("cpuset.cpus", "cpuset.mems"):
        value = read(fd, f"{parent}/{name}" if parent else name).strip()
        if not value and parent:  # made by somebody who did not give it any
            _inherit_cpuset(fd, parent)
            value = read(fd, f"{parent}/{name}").strip()
        if not read(fd, f"{path}/{name}").strip():
            write(fd, f"{path}/{name}", value)
    write(fd, f"{path}/cgroup.clone_children", "1")


def _delegate(hierarchy: Hierarchy, prefix: str) -> None:
    """Give the children of a v2 group every controller that it has.

    A controller that cannot be given (cpu, while the group has real-time processes) is missed when a
    limit needs it.
    """
    given = read(hierarchy.fd, f"{prefix}cgroup.subtree_control").split()
    offered = read(hierarchy.fd, f"{prefix}cgroup.controllers").split()
    missing = [f"+{name}" for name in offered if name not in given]
    if not missing:
        return
    path = f"{prefix}cgroup.subtree_control"
    try:
        # At once: one that allows threaded groups, given alone, would rule the others out.
        write(hierarchy.fd, path, " ".join(missing))
    except OSError as error:
        if error.errno in (errno.EBUSY, errno.EOPNOTSUPP):
            _make_room(hierarchy.fd, prefix)
        for word in missing:
            try:
                write(hierarchy.fd, path, word)
            except OSError:
                continue


def _make_room(fd: int, prefix: str) -> None:
    """Move the processes of a group that is to have children, which may not have both.

    So it is at the top of a container that berth runs in: its processes, berth too, go to a group of their
    own below it. Only there: the machine's real top may have both.
    """
    if prefix:
        raise Unsupported(
            f"enable cgroup controllers in /{prefix}: it has processes of its own",
            hint="move them to a group below it",
        )
    cgroup_files.make(fd, NESTED_PROCESSES)
    while pids := read(fd, "cgroup.procs").split():
        for pid in pids:
            if pid == FOREIGN:
                raise Unsupported(
                    "enable cgroup controllers: the top group has processes of another pid namespace",
                    hint="start the container that berth runs in with a cgroup namespace of its own",
                )
            try:
                write(fd, f"{NESTED_PROCESSES}/cgroup.procs", pid)
            except ProcessLookupError:
                continue
