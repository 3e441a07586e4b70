"""Which limits this kernel has. What a request asks beyond them is discarded, with Docker's warnings."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from berth.errors import InvalidArgument

if TYPE_CHECKING:
    from berth.engine.models import HostConfig
    from berth.kernel.cgroups import Cgroup

# limit → (controller, version 1's file, version 2's or none)
FILES = {
    "memory": ("memory", "memory.limit_in_bytes", "memory.max"),
    "swap": ("memory", "memory.memsw.limit_in_bytes", "memory.swap.max"),
    "reservation": ("memory", "memory.soft_limit_in_bytes", "memory.low"),
    "swappiness": ("memory", "memory.swappiness", ""),
    "oom_kill_disable": ("memory", "memory.oom_control", ""),
    "pids": ("pids", "pids.max", "pids.max"),
    "cfs": ("cpu", "cpu.cfs_quota_us", "cpu.max"),
    "shares": ("cpu", "cpu.shares", "cpu.weight"),
    "realtime": ("cpu", "cpu.rt_period_us", ""),
    "cpuset": ("cpuset", "cpuset.cpus", "cpuset.cpus"),
}
ABSENT = "capabilities or the cgroup is not mounted."


@dataclass(frozen=True, slots=True, kw_only=True)
class Support:
    """The limits there are."""

    memory: bool
    swap: bool
    reservation: bool
    swappiness: bool
    oom_kill_disable: bool
    pids: bool
    cfs: bool
    shares: bool
    realtime: bool
    cpuset: bool

    def warnings(self) -> list[str]:
        """Return what `docker info` says is missing."""
        limits = (
            (self.memory, "memory limit"),
            (self.swap, "swap limit"),
            (self.cfs, "cpu cfs quota"),
            (self.cfs, "cpu cfs period"),
            (self.shares, "cpu shares"),
            (self.cpuset, "cpuset"),
        )
        return [f"WARNING: No {name} support" for is_there, name in limits if not is_there]


def detect(group: Cgroup) -> Support:
    """Ask a group that is not the top of its hierarchy, which has fewer files."""
    unified = group.hierarchies.only_unified
    found = {
        name: bool(files[unified]) and group.has(controller, files[unified])
        for name, (controller, *files) in FILES.items()
    }
    return Support(**found)


def discard(host: HostConfig, support: Support) -> list[str]:
    """Take out of a request what this kernel cannot limit; return warnings."""
    return [
        f"Your kernel does not support {text}"
        for part in (_memory, _swappiness_and_oom, _pids, _cpu, _block_devices)
        for text in part(host, support)
    ]


def _memory(host: HostConfig, support: Support) -> list[str]:
    found = []
    if host.memory > 0 and not support.memory:
        found.append(f"memory limit {ABSENT} Limitation discarded.")
        host.memory, host.memory_swap = 0, -1
    if host.memory > 0 and host.memory_swap != -1 and not support.swap:
        found.append(f"swap limit {ABSENT} Memory limited without swap.")
        host.memory_swap = -1
    if host.memory_reservation > 0 and not support.reservation:
        found.append(f"memory soft limit {ABSENT} Limitation discarded.")
        host.memory_reservation = 0
    return found


def _swappiness_and_oom(host: HostConfig, support: Support) -> list[str]:
    found = []
    if host.memory_swappiness not in (None, -1) and not support.swappiness:
        found.append(f"memory swappiness {ABSENT} Memory swappiness discarded.")
        host.memory_swappiness = None
    if host.oom_kill_disable is not None and not support.oom_kill_disable:
        if host.oom_kill_disable:
            found.append("OomKillDisable. OomKillDisable discarded.")
        host.oom_kill_disable = None
    return found


def _pids(host: HostConfig, support: Support) -> list[str]:
    if host.pids_limit is None or support.pids:
        return []
    limited, host.pids_limit = host.pids_limit > 0, None
    return [f"PIDs limit {ABSENT} PIDs limit discarded."] if limited else []


def _cpu(host: HostConfig, support: Support) -> list[str]:
    found = []
    if (host.cpu_realtime_period or host.cpu_realtime_runtime) and not support.realtime:
        raise InvalidArgument("kernel does not support CPU real-time scheduler")
    if host.nano_cpus > 0 and not support.cfs:
        raise InvalidArgument(
            "NanoCPUs can not be set, as your kernel does not support CPU CFS scheduler or the cgroup"
            " is not mounted"
        )
    if host.cpu_shares > 0 and not support.shares:
        found.append("CPU shares or the cgroup is not mounted. Shares discarded.")
        host.cpu_shares = 0
    if (host.cpu_period or host.cpu_quota) and not support.cfs:
        found.append("CPU CFS scheduler. CPU period/quota discarded.")
        host.cpu_period = host.cpu_quota = 0
    if (host.cpuset_cpus or host.cpuset_mems) and not support.cpuset:
        found.append("cpuset or the cgroup is not mounted. Cpuset discarded.")
        host.cpuset_cpus = host.cpuset_mems = ""
    return found


def _block_devices(host: HostConfig, support: Support) -> list[str]:
    """Leave out the weights of devices whose scheduler does not weigh."""
    del support
    weights = host.blkio_weight_device or []
    kept = [device for device in weights if _weighs(device.path)]
    if len(kept) == len(weights):
        return []
    host.blkio_weight_device = kept
    return ["Block I/O weight_device or the cgroup is not mounted. Weight-device discarded."]


def _weighs(path: str) -> bool:
    number = Path(path).stat().st_rdev
    folder = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
    for scheduler in (
        folder / "queue/scheduler",
        folder / "../queue/scheduler",
    ):  # a disk's, a part's
        if scheduler.exists():
            return "[bfq]" in scheduler.read_text()
    return False
