"""Containers that use others: their namespaces, and what of them has to run first."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from berth.engine import identities, spec, status
from berth.errors import Conflict, Failed, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable

    from berth.engine.models import ContainerRecord
    from berth.engine.records import Records
    from berth.runtime.tasks import Task

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


def network_of(record: ContainerRecord) -> str | None:
    """Return the id of the container whose network, hosts and resolv.conf it has; None for its own.

    Before its first start what it was created with, which may be a name.
    """
    return record.network_of or spec.shared_container(record.host_config.network_mode)


def note_network(record: ContainerRecord, records: Records) -> None:
    """Record whose network a container gets that starts: what another has may in turn be a third one's."""
    ref = spec.shared_container(record.host_config.network_mode)
    if ref is not None:
        other = records.find(ref)
        record.network_of = network_of(other) or other.id
        records.put(record)


class Joined:
    """What proc(5) has of containers whose namespaces are joined, held open: ids of processes come again."""

    def __init__(self, task_of: Callable[[ContainerRecord], Task | None]) -> None:
        self._task_of = task_of
        self._fds: list[int] = []

    def folder(self, kind: str, other: ContainerRecord) -> str:
        """Return its folder, which is so until :meth:`close`; Conflict when it has ended."""
        try:
            if (task := self._task_of(other)) is None:
                raise ProcessLookupError
            self._fds.append(task.open_file(""))
        except OSError as error:
            raise _not_running(kind, other) from error
        return f"/proc/{os.getpid()}/fd/{self._fds[-1]}"

    def close(self) -> None:
        """Let go of them."""
        while self._fds:
            os.close(self._fds.pop())


def namespace_paths(
    record: ContainerRecord, records: Records, joined: Joined | None
) -> dict[str, str]:
    """Return the namespace files of containers whose namespaces this one joins, by kind.

    Without ``joined`` by the id of the other's first process: that is what criu can compare. In a user
    namespace nobody sees what berthd has open; from there the kernel lets nobody join what is the host's.
    """
    paths, others = {}, []
    if record.id_maps is not None:
        joined = None
    for kind, mode in _modes(record).items():
        ref = spec.shared_container(mode)
        if ref is None:
            continue
        other = _find(kind, ref, records)
        if kind == "network" and other is record:
            raise Failed("cannot join own network")
        _check(kind, other)
        folder = f"/proc/{other.pid}" if joined is None else joined.folder(kind, other)
        paths[kind] = f"{folder}/ns/{FILES[kind]}"
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
        raise _not_running(kind, other)
    if kind == "ipc" and other.host_config.ipc_mode in NOT_SHARED_IPC:
        raise Conflict(
            f"failed to join IPC namespace: container {other.id}: non-shareable IPC (hint: use"
            " IpcMode:shareable for the donor container)"
        )


def _not_running(kind: str, other: ContainerRecord) -> Conflict:
    what = "network" if kind == "network" else f"{kind} namespace"
    return Conflict(f"cannot join {what} of a non running container: {other.id}")
