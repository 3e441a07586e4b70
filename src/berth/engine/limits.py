"""`docker update`: new limits over old ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from berth.engine import resources
from berth.errors import Conflict

if TYPE_CHECKING:
    from berth.engine.models import ContainerRecord, HostConfig, UpdateRequest
    from berth.oci.runtime_spec import Resources

BLOCK_IO = (
    *("blkio_weight", "blkio_weight_device", "blkio_device_read_bps", "blkio_device_write_bps"),
    *("blkio_device_read_iops", "blkio_device_write_iops"),
)
CPU = (
    *("nano_cpus", "cpu_shares", "cpu_period", "cpu_quota", "cpuset_cpus", "cpuset_mems"),
    *("cpu_realtime_period", "cpu_realtime_runtime"),
)
MEMORY = ("memory", "memory_swap", "memory_reservation")


def changed_limits(record: ContainerRecord, update: UpdateRequest) -> tuple[HostConfig, Resources]:
    """Return the host configuration after an update, and the limits to write."""
    host = record.host_config
    if conflict := _conflict(host, update):
        raise Conflict(f"Cannot update container {record.id}: {conflict}")
    names = (*BLOCK_IO, *CPU, *MEMORY)
    said = {name: value for name in names if (value := getattr(update, name))}
    changed = msgspec.structs.replace(host, **said)
    if update.pids_limit is not None:
        changed.pids_limit = update.pids_limit
    if update.restart_policy.name:
        changed.restart_policy = update.restart_policy
    every = resources.resources(changed)
    limits: Resources = {}
    if said.keys() & set(MEMORY):
        limits["memory"] = every.get("memory", {})
    if said.keys() & set(CPU):
        limits["cpu"] = every.get("cpu", {})
    if said.keys() & set(BLOCK_IO):
        limits["blockIO"] = every.get("blockIO", {})
    if update.pids_limit is not None:
        limits["pids"] = {"limit": update.pids_limit or -1}
    return changed, limits


def _conflict(host: HostConfig, update: UpdateRequest) -> str:
    """Return why an update does not go with what there is, in Docker's words; empty when it does."""
    if update.nano_cpus and (host.cpu_period or host.cpu_quota):
        other = "CPU Period" if host.cpu_period else "CPU Quota"
        return f"Conflicting options: Nano CPUs cannot be updated as {other} has already been set"
    if host.nano_cpus and (update.cpu_period or update.cpu_quota):
        name = "CPU Period" if update.cpu_period else "CPU Quota"
        return f"Conflicting options: {name} cannot be updated as NanoCPUs has already been set"
    if update.memory > host.memory_swap and not update.memory_swap:
        return (
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at"
            " the same time"
        )
    if host.auto_remove and update.restart_policy.name not in ("", "no"):
        return "Restart policy cannot be updated because AutoRemove is enabled for the container"
    return ""
