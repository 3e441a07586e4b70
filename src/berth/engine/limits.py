"""`docker update`: new limits over old ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from berth.engine import resources
from berth.errors import Conflict

if TYPE_CHECKING:
    from berth.engine.models import HostConfig, UpdateRequest
    from berth.oci.runtime_spec import Resources

POLICY = "restart_policy"


def changed_limits(host: HostConfig, update: UpdateRequest) -> tuple[HostConfig, Resources]:
    """Return the host configuration after an update, and the limits to write."""
    said = {name: value for name, value in msgspec.structs.asdict(update).items() if value}
    if POLICY in said and not said[POLICY].name:
        del said[POLICY]
    if update.memory and not update.memory_swap and 0 < host.memory_swap < update.memory:
        raise Conflict(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap"
            " at the same time"
        )
    if update.nano_cpus:
        said |= {"cpu_period": 0, "cpu_quota": 0}
    elif update.cpu_period or update.cpu_quota:
        said["nano_cpus"] = 0
    changed = msgspec.structs.replace(host, **said)
    limits = resources.common_resources(changed)
    named = {
        "memory": ("memory", "memory_swap", "memory_reservation"),
        "cpu": ("nano_cpus", "cpu_shares", "cpu_period", "cpu_quota", "cpuset_cpus", "cpuset_mems"),
        "pids": ("pids_limit",),
    }
    for key, names in named.items():
        if not any(name in said for name in names):
            limits.pop(key, None)  # type: ignore[misc]  # a key of the TypedDict
    return changed, limits
