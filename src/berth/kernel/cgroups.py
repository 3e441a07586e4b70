"""cgroups: one container's groups in every hierarchy, version 1, hybrid or 2 (cgroups(7)).

Hierarchies are held by directory descriptors, so they work where cgroupfs is not mounted (the
zygote's mount namespace). On version 1 a process enters by writing 0 to ``tasks`` itself, which only a
single-threaded one may: ``cgroup.procs`` would wait for an RCU grace period a hierarchy.
"""

from __future__ import annotations

import os
import select

from berth.errors import InvalidArgument, Unsupported
from berth.kernel import cgroup_limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.oci.runtime_spec import DeviceRule, Resources

MOUNTINFO = "/proc/self/mountinfo"
BUSY = 16
REMOVE_TRIES = 500
REMOVE_WAIT_S = 0.01
KILL = 9


class Hierarchy:
    """One mounted hierarchy: the controllers it has and its top directory."""

    __slots__ = ("controllers", "fd", "name", "options", "unified")

    def __init__(self, fd: int, name: str, controllers: tuple[str, ...], *, unified: bool) -> None:
        self.fd = fd
        self.name = name  # the last part of its mount point, as containers see it
        self.controllers = controllers
        self.unified = unified
        self.options = ",".join(controllers)


class Hierarchies:
    """Every hierarchy of this host."""

    def __init__(self, found: list[Hierarchy]) -> None:
        self.found = found
        self.only_unified = all(h.unified for h in found)

    def open_group(self, path: str) -> Cgroup:
        """Name a group by its path from the top of each hierarchy. No I/O."""
        return Cgroup(self, path.strip("/"))

    def mount_options(self) -> list[str]:
        """Return what to mount in a container: ["cgroup2"], or one option string a v1 hierarchy."""
        if self.only_unified:
            return ["cgroup2"]
        return [h.options for h in self.found if not h.unified]

    def of(self, controller: str) -> Hierarchy | None:
        """Return the hierarchy with ``controller``."""
        return next((h for h in self.found if controller in h.controllers), None)

    def prepare_parent(self, path: str, devices: list[DeviceRule]) -> None:
        """Make a group that containers' groups are made in: inheritance, and device rules once for all."""
        group = self.open_group(path)
        for hierarchy in self.found:
            parts = group.path.split("/")
            for depth in range(len(parts)):
                folder = "/".join(parts[: depth + 1])
                fresh = _make(hierarchy.fd, folder)
                if "cpuset" in hierarchy.controllers and not hierarchy.unified and fresh:
                    _inherit_cpuset(hierarchy.fd, folder)
                if self.only_unified:
                    _delegate(hierarchy.fd, folder)
        device = self.of("devices")
        # A group with children takes no new denials; one that allows everything has not been set yet.
        if (
            devices
            and device is not None
            and self.open_group(path).read("devices", "devices.list").startswith("a")
        ):
            cgroup_limits.allow_devices(device.fd, group.path, devices)


def detect() -> Hierarchies:
    """Find the mounted hierarchies; Unsupported when there are none."""
    found = []
    with open(MOUNTINFO) as file:
        lines = file.read().splitlines()
    for line in lines:
        before, _, after = line.partition(" - ")
        fstype, _, options = after.partition(" ")
        if fstype not in ("cgroup", "cgroup2"):
            continue
        point = before.split(" ")[4]
        fd = os.open(point, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        name = point.rsplit("/", 1)[-1]
        if fstype == "cgroup2":
            found.append(Hierarchy(fd, name, _unified_controllers(fd), unified=True))
            continue
        known = (
            o for o in options.split(" ", 1)[-1].split(",") if o not in ("rw", "ro", "relatime")
        )
        controllers = tuple(o for o in known if o != "xattr" and not o.startswith("release_agent"))
        if not any(h.controllers == controllers for h in found):
            found.append(Hierarchy(fd, name, controllers, unified=False))
    if not found:
        raise Unsupported("find cgroups: no hierarchy is mounted; mount cgroup2 on /sys/fs/cgroup")
    return Hierarchies(found)


def _unified_controllers(fd: int) -> tuple[str, ...]:
    return tuple(_read(fd, "cgroup.controllers").split())


class Cgroup:
    """The groups of one container, at the same path in every hierarchy."""

    __slots__ = ("hierarchies", "path")

    def __init__(self, hierarchies: Hierarchies, path: str) -> None:
        if not path or ".." in path.split("/"):
            raise InvalidArgument(f"invalid cgroups path {path!r}")
        self.hierarchies = hierarchies
        self.path = path

    def create(self) -> None:
        """Make the groups; their parents exist."""
        for hierarchy in self.hierarchies.found:
            _make(hierarchy.fd, self.path)

    def apply(self, resources: Resources) -> None:
        """Set limits. Unsupported names a controller that is missing for what was asked."""
        cgroup_limits.apply(self, resources)

    def enter(self) -> None:
        """Move the calling, single-threaded process into the groups."""
        for hierarchy in self.hierarchies.found:
            file = "cgroup.procs" if hierarchy.unified else "tasks"
            write(hierarchy.fd, f"{self.path}/{file}", "0")

    def pids(self) -> list[int]:
        """Return the ids of the processes in the groups."""
        hierarchy = self.hierarchies.of("pids") or self.hierarchies.found[0]
        try:
            return [int(line) for line in _read(hierarchy.fd, f"{self.path}/cgroup.procs").split()]
        except FileNotFoundError:
            return []

    def freeze(self) -> None:
        """Stop all processes (docker pause)."""
        self._set_frozen(frozen=True)

    def thaw(self) -> None:
        """Let them go on."""
        self._set_frozen(frozen=False)

    def _set_frozen(self, *, frozen: bool) -> None:
        freezer = self.hierarchies.of("freezer")
        if freezer is not None and not freezer.unified:
            state = "FROZEN" if frozen else "THAWED"
            write(freezer.fd, f"{self.path}/freezer.state", state)
            return
        unified = next((h for h in self.hierarchies.found if h.unified), None)
        if unified is None:
            raise Unsupported("pause: the freezer cgroup controller is not mounted")
        write(unified.fd, f"{self.path}/cgroup.freeze", str(int(frozen)))

    def kill(self) -> None:
        """Kill every process in the groups, now."""
        for hierarchy in self.hierarchies.found:
            if hierarchy.unified:
                try:
                    write(hierarchy.fd, f"{self.path}/cgroup.kill", "1")
                except OSError:
                    continue
        for pid in self.pids():
            try:
                os.kill(pid, KILL)
            except ProcessLookupError:
                continue

    def remove(self) -> None:
        """Remove the groups; processes that are just ending are waited for, bounded."""
        for hierarchy in self.hierarchies.found:
            _remove(hierarchy.fd, self.path)

    def oom_kills(self) -> int:
        """Return how many processes the kernel killed for want of memory."""
        memory = self.hierarchies.of("memory")
        if memory is None:
            return 0
        name = "memory.events" if memory.unified else "memory.oom_control"
        try:
            text = _read(memory.fd, f"{self.path}/{name}")
        except OSError:
            return 0
        return int(fields(text).get("oom_kill", "0"))

    def read(self, controller: str, name: str) -> str:
        """Return a file of the group that has ``controller``, empty when it is not there."""
        hierarchy = self.hierarchies.of(controller)
        if hierarchy is None:
            return ""
        try:
            return _read(hierarchy.fd, f"{self.path}/{name}")
        except OSError:
            return ""


def fields(text: str) -> dict[str, str]:
    """Parse a flat keyed file: "name value" a line."""
    return dict(line.split(" ", 1) for line in text.splitlines() if " " in line)


def _make(fd: int, path: str) -> bool:
    try:
        os.mkdir(path, 0o755, dir_fd=fd)
    except FileExistsError:
        return False
    return True


def _remove(fd: int, path: str) -> None:
    for _ in range(REMOVE_TRIES):
        try:
            os.rmdir(path, dir_fd=fd)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != BUSY:
                raise
            _remove_children(fd, path)
            select.select((), (), (), REMOVE_WAIT_S)  # the last process is just ending
        else:
            return
    os.rmdir(path, dir_fd=fd)


def _remove_children(fd: int, path: str) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    finally:
        os.close(folder)
    for name in names:
        _remove(fd, f"{path}/{name}")


def _inherit_cpuset(fd: int, path: str) -> None:
    """Give a new v1 cpuset its parent's values, and its children theirs, else nothing may enter."""
    parent = path.rpartition("/")[0]
    for name in ("cpuset.cpus", "cpuset.mems"):
        value = _read(fd, f"{parent}/{name}" if parent else name).strip()
        write(fd, f"{path}/{name}", value)
    write(fd, f"{path}/cgroup.clone_children", "1")


def _delegate(fd: int, path: str) -> None:
    available = _read(fd, f"{path}/cgroup.controllers").split()
    write(fd, f"{path}/cgroup.subtree_control", " ".join(f"+{name}" for name in available))


def write(fd: int, path: str, value: str) -> None:
    """Write a control file below the hierarchy ``fd``."""
    file = os.open(path, os.O_WRONLY | os.O_CLOEXEC, dir_fd=fd)
    try:
        os.write(file, value.encode())
    except OSError as error:
        raise OSError(error.errno, f"write {value!r}: {error.strerror}", path) from error
    finally:
        os.close(file)


def _read(fd: int, path: str) -> str:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=fd)
    with open(file) as stream:
        return stream.read()
