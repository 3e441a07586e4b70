"""Containers that use others: their namespaces, and what of them has to run first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from berth.engine import identities, spec, status
from berth.errors import Conflict, NotFound

if TYPE_CHECKING:
    from berth.engine.models import ContainerRecord
    from berth.engine.records import Records

FILES = {"pid": "pid", "ipc": "ipc", "network": "net"}
FAILURES = {
    "pid": "failed to join PID namespace",
    "ipc": "failed to join IPC namespace",
    "network": "joining network namespace of container",
}
NOT_SHARED_IPC = ("private", "none")


def needs_others(record: ContainerRecord) -> bool:
    """Say whether it cannot be prepared before the others that it names are known to run."""
    return bool(record.host_config.links) or any(
        map(spec.shared_container, _modes(record).values())
    )


def namespace_paths(record: ContainerRecord, records: Records) -> dict[str, str]:
    """Return the namespace files of containers whose namespaces this one joins, by kind."""
    paths, others = {}, []
    for kind, mode in _modes(record).items():
        ref = spec.shared_container(mode)
        if ref is None:
            continue
        other = _find(kind, ref, records)
        _check(kind, other)
        paths[kind] = f"/proc/{other.pid}/ns/{FILES[kind]}"
        others.append(other)
    if user := identities.shared_namespace(record, others):
        paths["user"] = user
    return paths


def _find(kind: str, ref: str, records: Records) -> ContainerRecord:
    try:
        return records.find(ref)
    except NotFound as error:
        words = FAILURES[kind]
        raise NotFound(f"{words}: {error}") from error


def _modes(record: ContainerRecord) -> dict[str, str]:
    host = record.host_config
    return {"pid": host.pid_mode, "ipc": host.ipc_mode, "network": host.network_mode}


def _check(kind: str, other: ContainerRecord) -> None:
    if other.status not in status.ALIVE:
        what = "network" if kind == "network" else f"{kind} namespace"
        raise Conflict(f"cannot join {what} of a non running container: {other.id}")
    if kind == "ipc" and other.host_config.ipc_mode in NOT_SHARED_IPC:
        raise Conflict(
            f"failed to join IPC namespace: container {other.id}: non-shareable IPC (hint: use"
            " IpcMode:shareable for the donor container)"
        )
