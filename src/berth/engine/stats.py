"""`docker stats`: what a container uses, from its cgroups (version 1 and 2) and its /proc."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from berth.engine import times
from berth.kernel.cgroup_files import fields

if TYPE_CHECKING:
    from berth.engine.models import ContainerRecord
    from berth.kernel.cgroups import Cgroup

Document = dict[str, object]

TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
NO_LIMIT = 1 << 62  # version 1 shows "no limit" as a number near the largest
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
    pids = group.pids()
    alive = bool(record.pid)
    document: Document = {
        "name": f"/{record.name}",
        "id": record.id,
        "read": times.rfc3339(time.time_ns()),
        "preread": previous["read"] if previous else times.NEVER,
        "num_procs": 0,
        "pids_stats": _pids(group, len(pids)) if alive else {},
        "cpu_stats": cpu(group) if alive else EMPTY_CPU,
        "precpu_stats": previous["cpu_stats"] if previous else EMPTY_CPU,
        "memory_stats": memory(group) if alive else {},
        "blkio_stats": block_io(group),
        "storage_stats": {},
    }
    if alive and record.host_config.network_mode not in ("host", "none"):
        document["networks"] = networks(record.pid)
    return document


def _integer(text: str) -> int:
    text = text.strip()
    return int(text) if text.isdigit() else 0


def _pids(group: Cgroup, current: int) -> Document:
    found: Document = {"current": _integer(group.read("pids", "pids.current")) or current}
    limit = group.read("pids", "pids.max").strip()
    return {**found, "limit": int(limit)} if limit.isdigit() else found


def cpu(group: Cgroup) -> Document:
    """Return the processor time used, in nanoseconds, and that of the whole machine."""
    if text := group.read("cpuacct", "cpuacct.usage"):
        ticks = fields(group.read("cpuacct", "cpuacct.stat"))
        usage: Document = {
            "total_usage": _integer(text),
            "percpu_usage": [int(n) for n in group.read("cpuacct", "cpuacct.usage_percpu").split()],
            "usage_in_kernelmode": _integer(ticks.get("system", "0")) * TICK_NS,
            "usage_in_usermode": _integer(ticks.get("user", "0")) * TICK_NS,
        }
        stat, unit, throttled = fields(group.read("cpu", "cpu.stat")), 1, "throttled_time"
    else:
        stat, unit, throttled = fields(group.read("cpu", "cpu.stat")), 1000, "throttled_usec"
        usage = {
            "total_usage": _integer(stat.get("usage_usec", "0")) * unit,
            "usage_in_kernelmode": _integer(stat.get("system_usec", "0")) * unit,
            "usage_in_usermode": _integer(stat.get("user_usec", "0")) * unit,
        }
    return {
        "cpu_usage": usage,
        "system_cpu_usage": _system_ns(),
        "online_cpus": os.cpu_count() or 1,
        "throttling_data": {
            "periods": _integer(stat.get("nr_periods", "0")),
            "throttled_periods": _integer(stat.get("nr_throttled", "0")),
            "throttled_time": _integer(stat.get(throttled, "0")) * unit,
        },
    }


def _system_ns() -> int:
    """Return the time all processors have spent, without guests', as Docker counts it."""
    first = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:8]
    return sum(map(int, first)) * TICK_NS


def memory(group: Cgroup) -> Document:
    """Return the memory used, in bytes; ``stats`` holds the cache that clients subtract."""
    if text := group.read("memory", "memory.usage_in_bytes"):
        stat = fields(group.read("memory", "memory.stat"))
        limit = group.read("memory", "memory.limit_in_bytes")
        maximum = group.read("memory", "memory.max_usage_in_bytes")
        failures = group.read("memory", "memory.failcnt")
    else:
        text = group.read("memory", "memory.current")
        stat = fields(group.read("memory", "memory.stat"))
        limit = group.read("memory", "memory.max")
        maximum = group.read("memory", "memory.peak")
        failures = fields(group.read("memory", "memory.events")).get("max", "0")
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limited = _integer(limit)
    return {
        "usage": _integer(text),
        "max_usage": _integer(maximum),
        "failcnt": _integer(failures),
        "limit": limited if 0 < limited < min(NO_LIMIT, total) else total,
        "stats": {name: _integer(value) for name, value in stat.items()},
    }


def block_io(group: Cgroup) -> Document:
    """Return bytes and operations by device; from version 2's io.stat or version 1's throttling."""
    bytes_, operations = _throttle(group, "io_service_bytes"), _throttle(group, "io_serviced")
    for line in group.read("io", "io.stat").splitlines():
        device, *pairs = line.split()
        values = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
        for kind, name in (("read", "r"), ("write", "w")):
            bytes_.append(_entry(device, kind, values.get(f"{name}bytes", "0")))
            operations.append(_entry(device, kind, values.get(f"{name}ios", "0")))
    return {
        "io_service_bytes_recursive": bytes_ or None,
        "io_serviced_recursive": operations or None,
        "io_queue_recursive": None,
        "io_service_time_recursive": None,
        "io_wait_time_recursive": None,
        "io_merged_recursive": None,
        "io_time_recursive": None,
        "sectors_recursive": None,
    }


def _throttle(group: Cgroup, name: str) -> list[Document]:
    found = []
    for line in group.read("blkio", f"blkio.throttle.{name}").splitlines():
        words = line.split()
        if len(words) == 3:
            found.append(_entry(words[0], words[1].lower(), words[2]))
    return found


def _entry(device: str, kind: str, value: str) -> Document:
    major, _, minor = device.partition(":")
    return {"major": int(major), "minor": int(minor), "op": kind, "value": _integer(value)}


def networks(pid: int) -> Document:
    """Return the counters of each interface that the process sees, but loopback."""
    try:
        lines = Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]
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
