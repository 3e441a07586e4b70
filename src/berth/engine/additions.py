"""What described devices add to a container, as parts of its spec and as mounts."""

from __future__ import annotations

import os
import posixpath
import stat
from typing import TYPE_CHECKING

from berth.engine import failures
from berth.errors import Failed
from berth.kernel import mounts
from berth.runtime.mountoptions import PROPAGATIONS
from berth.runtime.requests import Tree

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from berth.engine.cdifiles import Bind, Edits, Node
    from berth.oci.runtime_spec import Device, Hook, Mount, NetDevice

FAILED = "CDI device injection failed: failed to inject devices: "
NO_ACCESS = "none"
KINDS = {stat.S_IFBLK: "b", stat.S_IFCHR: "c", stat.S_IFIFO: "p"}
ATTRIBUTES = {
    "ro": mounts.MOUNT_ATTR_RDONLY,
    "nosuid": mounts.MOUNT_ATTR_NOSUID,
    "nodev": mounts.MOUNT_ATTR_NODEV,
    "noexec": mounts.MOUNT_ATTR_NOEXEC,
    "noatime": mounts.MOUNT_ATTR_NOATIME,
    "nodiratime": mounts.MOUNT_ATTR_NODIRATIME,
    "nosymfollow": mounts.MOUNT_ATTR_NOSYMFOLLOW,
}


def hooks(edits: Edits) -> dict[str, list[Hook]]:
    """Return the hooks, by their kinds."""
    found: dict[str, list[Hook]] = {}
    for entry in edits.hooks:
        hook: Hook = {"path": entry.path}
        if entry.args:
            hook["args"] = entry.args
        if entry.env:
            hook["env"] = entry.env
        if entry.timeout is not None:
            hook["timeout"] = entry.timeout
        found.setdefault(entry.hook_name, []).append(hook)
    return found


def network_devices(edits: Edits) -> dict[str, NetDevice]:
    """Return the network devices of the host's that the container gets."""
    return {device.host_interface_name: {"name": device.name} for device in edits.net_devices}


def nodes(edits: Edits, user: str) -> list[tuple[Device, str]]:
    """Return the device nodes with the access to them; they are the ``user``'s where nothing else is said."""
    uid, _, gid = user.partition(":")
    owner = tuple(int(text) if text.isdecimal() else 0 for text in (uid, gid))
    found = []
    for wanted in edits.device_nodes:
        node = _node(wanted)
        node["uid"] = owner[0] if wanted.uid is None else wanted.uid
        node["gid"] = owner[1] if wanted.gid is None else wanted.gid
        access = "" if wanted.permissions == NO_ACCESS else wanted.permissions or "rwm"
        found.append((node, access))
    return found


def _node(wanted: Node) -> Device:
    node: Device = {
        "path": wanted.path,
        "type": wanted.type,
        "major": wanted.major,
        "minor": wanted.minor,
    }
    place = wanted.host_path or wanted.path
    try:
        status = os.lstat(place)
        kind = KINDS.get(stat.S_IFMT(status.st_mode))
        if kind is None:
            raise OSError(0, "not a device node")
    except OSError as error:
        if not wanted.is_complete:
            why = (error.strerror or str(error)).lower()
            raise Failed(f'{FAILED}failed to stat CDI host device "{place}": {why}') from error
    else:
        node["fileMode"] = stat.S_IMODE(status.st_mode)
        if not wanted.is_complete:
            if wanted.type not in ("", kind):
                names, types = f'"{wanted.path}", "{place}"', f"{wanted.type}, {kind}"
                raise Failed(f"{FAILED}CDI device ({names}), host type mismatch ({types})")
            node["type"] = kind
            node["major"], node["minor"] = os.major(status.st_rdev), os.minor(status.st_rdev)
    if wanted.file_mode is not None:
        node["fileMode"] = wanted.file_mode
    return node


def file_systems(edits: Edits, taken: Collection[str]) -> list[Mount]:
    """Return the mounts that do not come from the host, less those whose places are ``taken``."""
    return [
        {
            "destination": _clean(entry.container_path),
            "type": entry.type,
            "source": entry.host_path,
            "options": entry.options,
        }
        for entry in edits.mounts
        if not entry.is_bind and _clean(entry.container_path) not in taken
    ]


def targets(edits: Edits, taken: Collection[str]) -> list[str]:
    """Return where :func:`open_binds` puts what it opens."""
    return [target for _, target in _binds(edits, taken)]


def open_binds(edits: Edits, taken: Collection[str], trees: list[Tree]) -> None:
    """Open what comes from the host; each is added to ``trees``, whose owner closes them."""
    for bind, target in _binds(edits, taken):
        words = set(bind.options)
        try:
            recursive = "rbind" in words or "bind" not in words
            fd = mounts.open_tree(bind.host_path, recursive=recursive)
        except OSError as error:
            why = f"stat {bind.host_path}: {os.strerror(error.errno or 0).lower()}"
            text = f'error mounting "{bind.host_path}" to rootfs at "{target}": {why}'
            raise failures.of_runtime(Failed(f"error during container init: {text}")) from error
        propagation = next((word for word in bind.options if word in PROPAGATIONS), "rprivate")
        trees.append(Tree(fd=fd, target=target, source=bind.host_path, propagation=propagation))
        _set_attributes(fd, words)


def _set_attributes(fd: int, words: set[str]) -> None:
    """Set what the options say; with an "r" before it, of the mounts below as well."""
    for prefix, recursive in (("", False), ("r", True)):
        chosen = 0
        for name, attribute in ATTRIBUTES.items():
            chosen |= attribute if prefix + name in words else 0
        if chosen:
            atime = mounts.MOUNT_ATTR_ATIME if chosen & mounts.MOUNT_ATTR_NOATIME else 0
            mounts.mount_setattr(fd, attr_set=chosen, attr_clr=atime, recursive=recursive)


def _binds(edits: Edits, taken: Collection[str]) -> Iterator[tuple[Bind, str]]:
    """Yield what comes from the host with its place; the client's own mounts replace it, as in Docker."""
    for bind in edits.mounts:
        target = _clean(bind.container_path)
        if bind.is_bind and target not in taken:
            yield bind, target


def _clean(path: str) -> str:
    return "/" + posixpath.normpath(path).lstrip("/")
