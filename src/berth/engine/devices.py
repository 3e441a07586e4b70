"""Devices of the host for a container: --device, --device-cgroup-rule and --privileged."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from berth.engine import defaults
from berth.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Sequence

    from berth.engine.models import HostConfig
    from berth.oci.runtime_spec import Device, DeviceRule

RULE = re.compile(r"([acb]) (\d+|\*):(\d+|\*) ([rwm]{1,3})")
GATHER = "error gathering device information while adding custom device"
EVERYTHING: DeviceRule = {"allow": True, "type": "a", "access": "rwm"}
# Mounted or made by the runtime itself, or another's: not taken over from the host's /dev.
OWN = {"pts", "shm", "mqueue", "console", "fd", "stdin", "stdout", "stderr", "ptmx", ".udev"}


def needs_own_rules(host: HostConfig) -> bool:
    """Say whether the rules of the shared parent group are not enough."""
    own = host.privileged or host.devices or host.device_cgroup_rules or host.device_requests
    return bool(own or host.cgroup_parent)


def nodes_and_rules(
    host: HostConfig, described: Sequence[tuple[Device, str]] = ()
) -> tuple[list[Device], list[DeviceRule]]:
    """Return the device nodes, and the rules when the container needs some of its own.

    ``described``: nodes that others know of, with the access to them.
    """
    nodes = defaults.devices()
    if host.privileged:
        nodes = _merged(nodes, host_devices())
        return _merged(nodes, [node for node, _ in described]), [EVERYTHING]
    if not needs_own_rules(host):
        return nodes, []
    rules = defaults.device_rules()
    for mapping in host.devices or []:
        target = mapping.path_in_container or mapping.path_on_host
        found = find(mapping.path_on_host, target)
        nodes = _merged(nodes, found)
        rules += [_rule(node, mapping.cgroup_permissions or "rwm") for node in found]
    for node, access in described:
        nodes = _merged(nodes, [node])
        if access and node["type"] in ("b", "c"):
            rules.append(_rule(node, access))
    rules += [parse_rule(text) for text in host.device_cgroup_rules or []]
    return nodes, rules


def parse_rule(text: str) -> DeviceRule:
    """Parse "c 1:3 rwm"; a star is any number."""
    match = RULE.fullmatch(text)
    if match is None:
        raise InvalidArgument(f"invalid device cgroup rule format: '{text}'")
    rule: DeviceRule = {"allow": True, "type": match[1], "access": match[4]}
    if match[2] != "*":
        rule["major"] = int(match[2])
    if match[3] != "*":
        rule["minor"] = int(match[3])
    return rule


def find(source: str, target: str) -> list[Device]:
    """Return the node ``source``, or all nodes of the directory it is, as they appear at ``target``."""
    path = Path(source)
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:  # ValueError: a zero byte
        raise InvalidArgument(f'{GATHER} "{source}": no such file or directory') from error
    if stat.S_ISDIR(mode):
        return _walk(path, target)
    node = _node(path, target)
    if node is None:
        raise InvalidArgument(f'{GATHER} "{source}": not a device node')
    return [node]


def host_devices() -> list[Device]:
    """Return every node of the host's /dev."""
    return _walk(Path("/dev"), "/dev")


def _walk(folder: Path, target: str) -> list[Device]:
    found: list[Device] = []
    for entry in sorted(folder.iterdir()):
        if entry.is_symlink() or (str(folder) == "/dev" and entry.name in OWN):
            continue
        inside = f"{target}/{entry.name}"
        if entry.is_dir():
            found += _walk(entry, inside)
        elif (node := _node(entry, inside)) is not None:
            found.append(node)
    return found


def _node(path: Path, target: str) -> Device | None:
    status = path.stat()
    kind = "c" if stat.S_ISCHR(status.st_mode) else "b" if stat.S_ISBLK(status.st_mode) else ""
    if not kind:
        return None
    return {
        "path": target,
        "type": kind,
        "major": os.major(status.st_rdev),
        "minor": os.minor(status.st_rdev),
        "fileMode": stat.S_IMODE(status.st_mode),
        "uid": status.st_uid,
        "gid": status.st_gid,
    }


def _rule(node: Device, access: str) -> DeviceRule:
    return {
        "allow": True,
        "type": node["type"],
        "major": node["major"],
        "minor": node["minor"],
        "access": access,
    }


def _merged(first: list[Device], second: list[Device]) -> list[Device]:
    """Return both, with the second's where both have a path."""
    by_path = {node["path"]: node for node in first}
    by_path.update((node["path"], node) for node in second)
    return list(by_path.values())
