"""What of a container is not its own, for criu: mounts of the host's, joined namespaces, pipes.

A checkpoint names them, and a restore says what has the name then. The name of a mount is its destination as
the spec has it.
"""

from __future__ import annotations

import os

from berth.bundle import devices, mounting, names
from berth.errors import Unsupported
from berth.kernel import namespaces
from berth.runtime.mountpoints import points, resolved

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.kernel.cgroups import Cgroup
    from berth.oci.runtime_spec import Spec

NULL = "/dev/null"
STREAMS = (0, 1, 2)
# Those that criu takes as they are; the others are joined.
KEPT = ("network", "pid")


def namespace_key(kind: str) -> str:
    """Return the name of a joined namespace, as runc's checkpoints have it."""
    return f"extRoot{namespaces.NAMESPACES[kind][1].title()}NS"


def streams(pid: int) -> list[str]:
    """Return what a process has as its streams, in criu's words for pipes: "pipe:[NUMBER]"."""
    return [os.readlink(f"/proc/{pid}/fd/{number}") for number in STREAMS]


class Externals:
    """What one container has of others."""

    def __init__(self, spec: Spec, bundle: str, group: Cgroup | None) -> None:
        self._spec = spec
        self._bundle = bundle
        self._group = group
        self._linux = spec.get("linux") or {}
        self._entries = mounting.entries(spec)
        self.namespaces = names.namespace_paths(self._linux)

    def left_namespaces(self) -> list[str]:
        """Return criu's words for the namespaces that a checkpoint leaves out."""
        return [
            f"{namespaces.NAMESPACES[kind][1]}[{os.stat(path).st_ino}]:{namespace_key(kind)}"
            for kind, path in self.namespaces.items()
            if path and kind in KEPT
        ]

    def joined_namespaces(self) -> list[dict[str, str]]:
        """Return those that a restored container joins."""
        found = []
        for kind, path in self.namespaces.items():
            if not path or kind in KEPT:
                continue
            if kind == "cgroup":
                raise Unsupported("cannot restore into a cgroup namespace that is there already")
            found.append({"ns": namespaces.NAMESPACES[kind][1], "ns_file": path})
        return found

    def dumped_mounts(self, pid: int) -> list[dict[str, str]]:
        """Return criu's table for a checkpoint: mount points in the container, and their names."""
        found = points(pid)
        root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_CLOEXEC)
        try:
            places = [(entry, resolved(root, entry.target)) for entry in self._entries]
            named = {resolved(root, target): target for target, _ in self._groups()}
        finally:
            os.close(root)
        own = {place for _, place in places}
        for entry, place in places:
            if not entry.is_bind:
                continue
            named[place] = entry.target
            for point in found if entry.options.is_recursive else ():
                if point.path.startswith(f"{place}/") and point.path not in own:
                    named[point.path] = entry.target + point.path[len(place) :]
        masked = set(self._linux.get("maskedPaths") or ())
        named.update({p.path: NULL for p in found if p.path in masked and p.shown == "/null"})
        named.update({path: path for path in self._devices()})
        return [{"key": point, "val": name} for point, name in named.items()]

    def restored_mounts(self) -> list[dict[str, str]]:
        """Return criu's table for a restore: the names, and what of the host's has each now."""
        named = dict(self._groups())
        here = points("self")
        for entry in self._entries:
            if not entry.is_bind:
                continue
            place = os.path.normpath(os.path.join(self._bundle, entry.spec.get("source", "")))
            named[entry.target] = place
            for point in here if entry.options.is_recursive else ():
                if point.path.startswith(f"{place}/"):
                    named[entry.target + point.path[len(place) :]] = point.path
        if self._linux.get("maskedPaths"):
            named[NULL] = NULL
        named.update({path: path for path in self._devices()})
        return [{"key": name, "val": source} for name, source in named.items()]

    def _groups(self) -> list[tuple[str, str]]:
        """Return (destination, source) of the container's groups that are bound into it."""
        if self._group is None or "cgroup" in self.namespaces:
            return []
        trees = self._group.hierarchies
        wanted = [tree for tree in trees.found if not tree.unified or trees.only_unified]
        found = []
        for entry in self._entries:
            for tree in wanted if entry.fstype in mounting.GROUPS else ():
                target = entry.target if len(wanted) == 1 else f"{entry.target}/{tree.name}"
                found.append((target, f"{tree.point}/{self._group.path}"))
        return found

    def _devices(self) -> list[str]:
        """Return the devices that are the host's nodes: those of a container that may make none."""
        if "user" not in self.namespaces or not devices.has_own_dev(self._spec):
            return []
        return [device["path"] for device in devices.wanted(self._spec)]
