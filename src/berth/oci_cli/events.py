"""`events`: what a container uses, once or again and again, in runc's document."""

from __future__ import annotations

import json
import os
import select
import sys
import time

from berth.bundle.status import STOPPED, group, status
from berth.errors import Conflict, InvalidArgument, Unsupported
from berth.kernel import cgroup_stats
from berth.kernel.cgroup_files import fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.kernel.cgroup_stats import BlockEntry, CgroupStats
    from berth.kernel.cgroups import Cgroup
    from berth.oci_cli.invocation import Invocation

NS_PER_S = 1_000_000_000
LOOK_EVERY = NS_PER_S
DEFAULT_INTERVAL = 5 * NS_PER_S
NO_LIMIT = (1 << 64) - 1
MEMORY = {
    "usage": "memory",
    "swap": "memory.memsw",
    "kernel": "memory.kmem",
    "kernelTCP": "memory.kmem.tcp",
}
CPUSET = (
    *("cpu_exclusive", "mem_hardwall", "mem_exclusive", "memory_migrate", "memory_spread_page"),
    *("memory_spread_slab", "memory_pressure", "sched_load_balance", "sched_relax_domain_level"),
)
HUGE_PAGES = "/sys/kernel/mm/hugepages"
STEP = 1024


def do_events(call: Invocation) -> int:
    """Print a line of JSON an event."""
    folder, record = call.look()
    if status(folder, record) == STOPPED:
        raise Conflict(f"container with id {call.id} is not running")
    groups = group(record)
    if groups is None:
        raise Unsupported("the container has no cgroup of its own")
    if call.options.on("stats"):
        _print("stats", call.id, document(groups))
        return 0
    interval = call.options.number("interval", DEFAULT_INTERVAL)
    if interval <= 0:
        raise InvalidArgument("duration interval must be greater than 0")
    _follow(call.id, groups, os.pidfd_open(record.get("init_process_pid", 0)), interval)
    return 0


def _follow(id_: str, groups: Cgroup, pidfd: int, interval_ns: int) -> None:
    """Print what is used every interval, and at once that memory ran out, until the container ends."""
    kills, due, ended = groups.oom_kills(), 0, False
    while not ended:
        now = time.monotonic_ns()
        if now >= due:
            _print("stats", id_, document(groups))
            due = now + interval_ns
        pause = min(due - now, LOOK_EVERY)
        ended = bool(select.select([pidfd], (), (), pause / NS_PER_S)[0])
        if groups.oom_kills() > kills:
            kills = groups.oom_kills()
            _print("oom", id_, None)


def _print(kind: str, id_: str, data: dict[str, object] | None) -> None:
    event: dict[str, object] = {"type": kind, "id": id_}
    if data is not None:
        event["data"] = data
    print(json.dumps(event, separators=(",", ":")))
    sys.stdout.flush()


def document(groups: Cgroup) -> dict[str, object]:
    """Return what runc's `events --stats` has under "data"."""
    found = cgroup_stats.collect(groups)
    return {
        "cpu": _cpu(groups, found),
        "cpuset": _cpuset(groups),
        "memory": _memory(groups, found),
        "pids": _with_limit(found["pids"]["current"], found["pids"]["limit"]),
        "blkio": {
            "ioServiceBytesRecursive": _entries(found["block"]["bytes"]),
            "ioServicedRecursive": _entries(found["block"]["operations"]),
        },
        "hugetlb": _huge_pages(groups),
        "intel_rdt": {},
        "network_interfaces": None,
    }


def _cpu(groups: Cgroup, found: CgroupStats) -> dict[str, object]:
    cpu = found["cpu"]
    rows = [line.split() for line in groups.read("cpuacct", "cpuacct.usage_all").splitlines()[1:]]
    return {
        "usage": {
            "total": cpu["total_ns"],
            "percpu": cpu["per_cpu_ns"],
            "percpu_kernel": [int(system) for _, _, system in rows],
            "percpu_user": [int(user) for _, user, _ in rows],
            "kernel": cpu["kernel_ns"],
            "user": cpu["user_ns"],
        },
        "throttling": {
            "periods": cpu["periods"],
            "throttledPeriods": cpu["throttled_periods"],
            "throttledTime": cpu["throttled_ns"],
        },
    }


def _cpuset(groups: Cgroup) -> dict[str, object]:
    suffix = "" if groups.read("cpuset", "cpuset.cpus").strip() else ".effective"
    return {
        "cpus": _numbers(groups.read("cpuset", f"cpuset.cpus{suffix}")),
        "mems": _numbers(groups.read("cpuset", f"cpuset.mems{suffix}")),
        **{name: _number(groups.read("cpuset", f"cpuset.{name}")) for name in CPUSET},
    }


def _numbers(text: str) -> list[int]:
    found: list[int] = []
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first:
            found += range(int(first), int(last or first) + 1)
    return found


def _number(text: str) -> int:
    """Return the number in a control file; version 1 has negative ones."""
    text = text.strip()
    return int(text) if text.lstrip("-").isdigit() else 0


def _memory(groups: Cgroup, found: CgroupStats) -> dict[str, object]:
    detail = found["memory"]["detail"]
    hierarchy = groups.hierarchies.of("memory")
    kinds = (
        _memory_v2(groups, found)
        if hierarchy is not None and hierarchy.unified
        else {name: _memory_v1(groups, prefix) for name, prefix in MEMORY.items()}
    )
    return {"cache": detail.get("cache", detail.get("file", 0)), **kinds, "raw": detail}


def _memory_v1(groups: Cgroup, prefix: str) -> dict[str, int]:
    return {
        name: _number(groups.read("memory", f"{prefix}.{file}"))
        for name, file in (
            ("limit", "limit_in_bytes"),
            ("usage", "usage_in_bytes"),
            ("max", "max_usage_in_bytes"),
            ("failcnt", "failcnt"),
        )
    }


def _memory_v2(groups: Cgroup, found: CgroupStats) -> dict[str, dict[str, int]]:
    """Return it in the terms of version 1, where swap is counted with memory."""
    memory = found["memory"]
    limit = NO_LIMIT if memory["limit"] is None else memory["limit"]
    swap_limit = groups.read("memory", "memory.swap.max").strip()
    both = limit + int(swap_limit) if swap_limit.isdigit() else NO_LIMIT
    swap = memory["usage"] + _number(groups.read("memory", "memory.swap.current"))
    return {
        "usage": {
            "limit": limit,
            "usage": memory["usage"],
            "max": memory["max_usage"],
            "failcnt": memory["failures"],
        },
        "swap": {"limit": min(both, NO_LIMIT), "usage": swap, "failcnt": 0},
        "kernel": {"limit": 0, "failcnt": 0},
        "kernelTCP": {"limit": 0, "failcnt": 0},
    }


def _huge_pages(groups: Cgroup) -> dict[str, dict[str, int]]:
    """Return what is used of pages of each size that the kernel has."""
    found: dict[str, dict[str, int]] = {}
    for folder in sorted(os.listdir(HUGE_PAGES)) if os.path.isdir(HUGE_PAGES) else ():
        size = _size(int(folder.removeprefix("hugepages-").removesuffix("kB")))
        name = f"hugetlb.{size}"
        if groups.has("hugetlb", f"{name}.current"):
            failures = fields(groups.read("hugetlb", f"{name}.events")).get("max", "0")
            usage, most = groups.read("hugetlb", f"{name}.current"), ""
        elif groups.has("hugetlb", f"{name}.usage_in_bytes"):
            failures = groups.read("hugetlb", f"{name}.failcnt")
            usage = groups.read("hugetlb", f"{name}.usage_in_bytes")
            most = groups.read("hugetlb", f"{name}.max_usage_in_bytes")
        else:
            continue
        found[size] = {"usage": _number(usage), "failcnt": _number(failures)}
        if most:
            found[size]["max"] = _number(most)
    return found


def _size(kib: int) -> str:
    """Return a size as control files have it: 64KB, 2MB, 1GB."""
    for unit in ("KB", "MB"):
        if kib < STEP:
            return f"{kib}{unit}"
        kib //= STEP
    return f"{kib}GB"


def _with_limit(current: int, limit: int | None) -> dict[str, object]:
    return {"current": current, **({} if limit is None else {"limit": limit})}


def _entries(found: list[BlockEntry]) -> list[dict[str, object]]:
    return [
        {"major": e["major"], "minor": e["minor"], "op": e["op"].capitalize(), "value": e["value"]}
        for e in found
    ]
