"""Devices of a spec: the nodes that every container has, those that are asked for, and who may use them."""

from __future__ import annotations

import os
import stat

from berth.bundle.warnings import warn
from berth.kernel import mounts
from berth.runtime import nodes, places

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.oci.runtime_spec import Device, DeviceRule, Spec

# config-linux.md, "Default Devices".
DEFAULTS: tuple[tuple[str, int, int], ...] = (
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
)
ACCESS = "rwm"
CONSOLE, PTMX, PTS = (5, 1), (5, 2), 136
NOTHING: DeviceRule = {"allow": False, "access": "rwm"}


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


def rules(asked: list[DeviceRule]) -> list[DeviceRule]:
    """Return the rules: nothing, what is asked for, and what every container has in the end."""
    numbers = [(major, minor) for _, major, minor in DEFAULTS] + [CONSOLE, PTMX]
    found: list[DeviceRule] = [NOTHING, *map(_known, asked)]
    found += [{"allow": True, "type": kind, "access": "m"} for kind in ("c", "b")]
    found += [
        {"allow": True, "type": "c", "major": major, "minor": minor, "access": "rwm"}
        for major, minor in numbers
    ]
    return [*found, {"allow": True, "type": "c", "major": PTS, "access": "rwm"}]


def _known(rule: DeviceRule) -> DeviceRule:
    """Leave out what is no access, as runc does."""
    access = rule.get("access", "")
    known = "".join(letter for letter in access if letter in ACCESS)
    if known == access:
        return rule
    warn(f"device rule: unknown access in {access!r}")
    return {**rule, "access": known}


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
