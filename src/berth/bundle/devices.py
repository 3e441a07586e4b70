"""Devices of a spec: the nodes that every container has, and those that are asked for."""

from __future__ import annotations

import os
import stat

from berth.bundle.device_rules import DEFAULTS
from berth.kernel import mounts
from berth.runtime import nodes, places

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.oci.runtime_spec import Device, Spec


def wanted(spec: Spec) -> list[Device]:
    """Return the devices to make; one that is asked for replaces the default at its path."""
    asked = spec.get("linux", {}).get("devices") or []
    paths = {os.path.normpath(device["path"]) for device in asked}
    found: list[Device] = [
        {"path": path, "type": "c", "major": major, "minor": minor, "fileMode": 0o666}
        for path, major, minor in DEFAULTS
        if path not in paths
    ]
    return found + asked


def has_own_dev(spec: Spec) -> bool:
    """Say whether /dev is the container's: not one of the host's that was bound there."""
    for mount in spec.get("mounts") or ():
        options = mount.get("options") or ()
        if os.path.normpath(mount["destination"]) == "/dev" and {"bind", "rbind"} & set(options):
            return False
    return True


class Nodes:
    """The nodes of one container: made, or bound from the host where a process may make none."""

    def __init__(self, spec: Spec, *, bind: bool) -> None:
        self._devices = wanted(spec) if has_own_dev(spec) else []
        self._has_own_dev = has_own_dev(spec)
        self._trees = [(d, _open(d)) for d in self._devices] if bind else None

    def make(self) -> None:
        """Put them into the root that the process is in."""
        if not self._has_own_dev:
            return
        if self._trees is None:
            nodes.make_devices(self._devices)
        else:
            for device, tree in self._trees:
                _bind(device["path"], tree)
            nodes.make_links()
        _link_multiplexer()


def _open(device: Device) -> int:
    return mounts.open_tree(device["path"], recursive=False)


def _bind(path: str, tree: int) -> None:
    place = places.open_place(path, directory=False, clear=False)
    mounts.move_mount(tree, "", dir_fd=place)
    os.close(place)
    os.close(tree)


def _link_multiplexer() -> None:
    """Let /dev/ptmx be that of the container's own devpts, whatever the root has there."""
    folder = places.open_parent("/dev/ptmx")
    try:
        status = os.stat("ptmx", dir_fd=folder, follow_symlinks=False)
        if not stat.S_ISLNK(status.st_mode):
            os.unlink("ptmx", dir_fd=folder)
            os.symlink("pts/ptmx", "ptmx", dir_fd=folder)
    finally:
        os.close(folder)
