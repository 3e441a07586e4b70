"""What berthd asks of the runtime, as the documents that travel (`berth.runtime.messages`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from berth.errors import Unsupported
from berth.kernel import namespaces

if TYPE_CHECKING:
    from berth.oci.runtime_spec import Spec
    from berth.runtime.channel import Message
    from berth.runtime.requests import (
        Attachment,
        DefaultSpec,
        ExecRequest,
        Handover,
        RemoteLog,
        TaskRequest,
    )


MADE_LATER = ("cgroup", "user")
# By these a spec says which of a container's mounts do not come from the host.
MOUNTS_IN_LINUX = ("devices", "maskedPaths", "readonlyPaths")


def of_task(request: TaskRequest, defaults: DefaultSpec, search: str) -> tuple[Message, Message]:
    """Return what the zygote and the monitor read, and the plan, which the process itself reads.

    ``search``: the path on which hooks find programs.
    """
    linux = request.spec.get("linux", {})
    log, remapped = request.log, is_remapped(request.spec)
    flags = _clone_flags(request.spec, netns=request.netns and not remapped)
    document: Message = {
        "op": "task",
        "directory": str(request.directory),
        "cgroups_path": linux.get("cgroupsPath", ""),
        "flags": namespaces.CLONE_NEWNS if remapped else flags,
        "remapped": remapped,
        "shows_network": remapped and request.netns,
        "default_namespaces": _namespaces(request.spec) == _namespaces(defaults.spec),
        "pid_namespace": None if remapped else _paths(request.spec).get("pid"),
        "terminal": request.terminal,
        "stdin": request.stdin,
        "stdin_once": request.stdin_once,
        "log": log
        and {
            "driver": log.driver,
            "path": str(log.path),
            "max_size": log.max_size_bytes,
            "max_files": log.max_files,
            "compress": log.compress,
            "attributes": log.attributes,
            "max_buffer": log.max_buffer_bytes,
        },
    }
    if _has_hooks(request.spec):
        document.update(hooks=True, search=search, default_namespaces=False)
    plan: Message = {
        "spec": request.spec,
        "process": request.spec.get("process"),
        "rootfs": request.rootfs.document(),
        "netns": request.netns and not remapped,
        "clone_flags": flags,
        "user": request.user,
        "groups": list(request.groups),
        "size": list(request.terminal_size),
        "seccomp": request.seccomp.hex() if request.seccomp else None,
        "init": request.init,
        "default_mounts": _has_default_mounts(request.spec, defaults.spec),
    }
    return document, plan


def _has_hooks(spec: Spec) -> bool:
    """Say whether a container is one for `berth.runtime.hooking`."""
    return bool(spec.get("hooks") or spec.get("linux", {}).get("netDevices"))


def is_remapped(spec: Spec) -> bool:
    """Say whether a container is in a user namespace."""
    return any(e["type"] == "user" for e in spec.get("linux", {}).get("namespaces", []))


def of_restore(request: TaskRequest, defaults: DefaultSpec, search: str) -> tuple[Message, Message]:
    """Return the same of a process that is made of a checkpoint, by the criu that is on the path ``search``.

    What is cloned is criu, in the host's namespaces; it makes the container's.
    """
    if _has_hooks(request.spec):
        raise Unsupported("containers with hooks or network devices cannot be restored")
    document, plan = of_task(request, defaults, search)
    document.update(op="restore", flags=namespaces.CLONE_NEWNS, search=search)
    document.update(default_namespaces=False, pid_namespace=None)
    return document, plan


def of_spare(defaults: DefaultSpec, id_: str) -> Message:
    """Return what a free monitor is asked, to clone a process ahead; its network comes later."""
    flags = _clone_flags(defaults.spec, netns=True)
    return {"op": "spare", "cgroups_path": f"{defaults.group}/{id_}", "flags": flags}


def of_exec(request: ExecRequest) -> tuple[Message, Message]:
    """Return the same of one more process in a container."""
    document: Message = {
        "op": "exec",
        "directory": str(request.directory),
        "cgroups_path": request.cgroups_path,
        "flags": 0,
        "remapped": request.remapped,
        "shows_network": False,
        "default_namespaces": False,
        "pid_namespace": None,
        "terminal": request.terminal,
        "stdin": request.stdin,
        "stdin_once": True,
        "log": None,
        "attachments": [of_attachment(a) for a in request.attachments],
    }
    plan: Message = {
        "spec": {"linux": request.linux},
        "process": request.process,
        "rootfs": {},
        "netns": False,
        "clone_flags": 0,
        "user": request.user,
        "groups": list(request.groups),
        "size": list(request.terminal_size),
        "seccomp": request.seccomp.hex() if request.seccomp else None,
        "init": False,
        "default_mounts": False,
    }
    return document, plan


def of_handover(handover: Handover) -> tuple[Message, list[int]]:
    """Put a handover into a message; the order of the descriptors is part of the protocol.

    Those to be kept come after all of these.
    """
    document: Message = {
        "netns": handover.netns_fd is not None,
        "trees": [tree.document() for tree in handover.trees],
        "attachments": [of_attachment(a) for a in handover.attachments],
        "orphans": len(handover.orphans),
        "log": handover.log and _remote_log(handover.log),
    }
    fds = [handover.netns_fd] if handover.netns_fd is not None else []
    fds += [tree.fd for tree in handover.trees]
    if handover.log is not None and handover.log.fd is not None:
        fds.append(handover.log.fd)
    fds += [attachment.fd for attachment in handover.attachments]
    fds += handover.orphans
    return document, fds


def of_attachment(attachment: Attachment) -> Message:
    """Return a client's connection, without its descriptor."""
    return {
        "stdin": attachment.stdin,
        "stdout": attachment.stdout,
        "stderr": attachment.stderr,
        "multiplexed": attachment.multiplexed,
        "detach_keys": attachment.detach_keys.hex(),
        "early": attachment.early.hex(),
    }


def _remote_log(log: RemoteLog) -> Message:
    return {
        "driver": log.driver,
        "network": log.network,
        "family": log.family,
        "address": list(log.address),
        "shown": log.shown,
        "has_fd": log.fd is not None,
        "blocking": log.blocking,
        "max_buffer": log.max_buffer_bytes,
        "tag": log.tag,
        "format": log.format,
        "facility": log.facility,
        "hostname": log.hostname,
        "fields": log.fields,
    }


def _clone_flags(spec: Spec, *, netns: bool) -> int:
    """Return the namespaces that are made with the process.

    Not those that have a path, nor the network's when the handover brings one. A cgroup namespace's root is
    the group of whoever makes it, so the process does, in its group; a user namespace is there before it.
    """
    flags = 0
    for entry in spec.get("linux", {}).get("namespaces", []):
        kind = entry["type"]
        if not entry.get("path") and kind not in MADE_LATER and not (kind == "network" and netns):
            flags |= namespaces.NAMESPACES[kind][0]
    return flags


def _namespaces(spec: Spec) -> dict[str, str | None]:
    """Return the namespaces' paths by kind, but for the network's, which a spare enters or makes later."""
    entries = spec.get("linux", {}).get("namespaces", [])
    return {entry["type"]: entry.get("path") for entry in entries if entry["type"] != "network"}


def _has_default_mounts(spec: Spec, defaults: Spec) -> bool:
    """Say whether a spare has mounted what this container needs."""
    linux, usual = spec.get("linux", {}), defaults["linux"]
    return spec.get("mounts") == defaults["mounts"] and all(
        linux.get(key) == usual.get(key) for key in MOUNTS_IN_LINUX
    )


def _paths(spec: Spec) -> dict[str, str]:
    entries = spec.get("linux", {}).get("namespaces", [])
    return {entry["type"]: entry["path"] for entry in entries if entry.get("path")}
