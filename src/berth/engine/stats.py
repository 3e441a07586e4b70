"""`docker stats`: what a container uses, as the Engine API words it on cgroup version 1 and 2."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from berth.kernel import cgroup_stats
from berth.oci import times

if TYPE_CHECKING:
    from berth.engine.models import ContainerRecord
    from berth.kernel.cgroup_stats import (
        BlockEntry,
        BlockStats,
        CpuStats,
        MemoryStats,
        PidsStats,
    )
    from berth.kernel.cgroups import Cgroup

Document = dict[str, object]

VERSION_1 = 1
TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
NET_COUNTERS = (
    ("rx_bytes", 0),
    ("rx_packets", 1),
    ("rx_errors", 2),
    ("rx_dropped", 3),
    ("tx_bytes", 8),
    ("tx_packets", 9),
    ("tx_errors", 10),
    ("tx_dropped", 11),
)
EMPTY_CPU: Document = {
    "cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0},
    "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
}


def sample(record: ContainerRecord, group: Cgroup, previous: Document | None) -> Document:
    """Return one document of stats; ``previous`` is the one before, for rates."""
    document: Document = {
        "name": f"/{record.name}",
        "id": record.id,
        "os_type": "linux",
        "read": times.rfc3339(time.time_ns()),
        "preread": previous["read"] if previous else times.NEVER,
        "num_procs": 0,
        "pids_stats": {},
        "cpu_stats": EMPTY_CPU,
        "precpu_stats": previous["cpu_stats"] if previous else EMPTY_CPU,
        "memory_stats": {},
        "blkio_stats": block_io({"bytes": [], "operations": []}),
        "storage_stats": {},
    }
    if not record.pid:
        return document
    used = cgroup_stats.collect(group)
    document |= {
        "pids_stats": pids(used["pids"], otherwise=group),
        "cpu_stats": cpu(used["cpu"]),
        "memory_stats": memory(used["memory"], version=used["version"]),
        "blkio_stats": block_io(used["block"]),
    }
    if "none" not in record.networks and not _is_in_hosts_network(record.pid):
        document["networks"] = networks(record.pid)
    return document


def pids(used: PidsStats, *, otherwise: Cgroup) -> Document:
    """Return the number of processes, counted here where the kernel has no controller for it."""
    found: Document = {"current": used["current"] or len(otherwise.pids())}
    return found if used["limit"] is None else {**found, "limit": used["limit"]}


def cpu(used: CpuStats) -> Document:
    """Return the processor time used, in nanoseconds, and that of the whole machine."""
    usage: Document = {
        "total_usage": used["total_ns"],
        "usage_in_kernelmode": used["kernel_ns"],
        "usage_in_usermode": used["user_ns"],
    }
    if used["per_cpu_ns"]:
        usage["percpu_usage"] = used["per_cpu_ns"]
    return {
        "cpu_usage": usage,
        "system_cpu_usage": _system_ns(),
        "online_cpus": os.cpu_count() or 1,
        "throttling_data": {
            "periods": used["periods"],
            "throttled_periods": used["throttled_periods"],
            "throttled_time": used["throttled_ns"],
        },
    }


def _system_ns() -> int:
    """Return the time all processors have spent, without guests', as Docker counts it."""
    first = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:8]
    return sum(map(int, first)) * TICK_NS


def memory(used: MemoryStats, *, version: int) -> Document:
    """Return the memory used, in bytes; ``stats`` holds the cache that clients subtract."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    found: Document = {
        "usage": used["usage"],
        "limit": min(used["limit"] or total, total),
        "stats": used["detail"],
    }
    if version == VERSION_1:
        found |= {"max_usage": used["max_usage"], "failcnt": used["failures"]}
    return found


def block_io(used: BlockStats) -> Document:
    """Return bytes and operations by device."""
    return {
        "io_service_bytes_recursive": _entries(used["bytes"]),
        "io_serviced_recursive": _entries(used["operations"]),
        "io_queue_recursive": None,
        "io_service_time_recursive": None,
        "io_wait_time_recursive": None,
        "io_merged_recursive": None,
        "io_time_recursive": None,
        "sectors_recursive": None,
    }


def _entries(found: list[BlockEntry]) -> list[BlockEntry] | None:
    return found or None


def _is_in_hosts_network(pid: int) -> bool:
    """Say so of a process, whether it was asked for or came with another container's."""
    try:
        return Path(f"/proc/{pid}/ns/net").samefile("/proc/self/ns/net")
    except OSError:  # it has ended
        return False


def networks(pid: int) -> Document:
    """Return the counters of each interface that the process sees, but loopback."""
    try:
        lines = Path(f"/proc/{pid}/net/dev").read_text(errors="replace").splitlines()[2:]
    except OSError:
        return {}
    return parse_counters(lines)


def parse_counters(lines: list[str]) -> Document:
    """Parse lines of /proc/PID/net/dev (proc_pid_net(5))."""
    found: Document = {}
    for line in lines:
        name, _, rest = line.partition(":")
        numbers = rest.split()
        if name.strip() != "lo" and len(numbers) >= 12:
            found[name.strip()] = {key: int(numbers[index]) for key, index in NET_COUNTERS}
    return found
