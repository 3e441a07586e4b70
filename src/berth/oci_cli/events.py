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

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.kernel.cgroup_stats import BlockEntry, CgroupStats
    from berth.kernel.cgroups import Cgroup
    from berth.oci_cli.invocation import Invocation

NS_PER_S = 1_000_000_000
LOOK_EVERY = NS_PER_S
DEFAULT_INTERVAL = 5 * NS_PER_S
NO_LIMIT = (1 << 64) - 1


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
        "cpu": _cpu(found),
        "cpuset": _cpuset(groups),
        "memory": _memory(found),
        "pids": _with_limit(found["pids"]["current"], found["pids"]["limit"]),
        "blkio": {
            "ioServiceBytesRecursive": _entries(found["block"]["bytes"]),
            "ioServicedRecursive": _entries(found["block"]["operations"]),
        },
        "hugetlb": {},
        "intel_rdt": {},
        "network_interfaces": None,
    }


def _cpu(found: CgroupStats) -> dict[str, object]:
    cpu = found["cpu"]
    return {
        "usage": {
            "total": cpu["total_ns"],
            "percpu": cpu["per_cpu_ns"],
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
    }


def _numbers(text: str) -> list[int]:
    found: list[int] = []
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first:
            found += range(int(first), int(last or first) + 1)
    return found


def _memory(found: CgroupStats) -> dict[str, object]:
    memory = found["memory"]
    usage: dict[str, object] = {
        "limit": NO_LIMIT if memory["limit"] is None else memory["limit"],
        "usage": memory["usage"],
        "max": memory["max_usage"],
        "failcnt": memory["failures"],
    }
    cache = memory["detail"].get("cache", memory["detail"].get("file", 0))
    return {"usage": usage, "cache": cache, "raw": memory["detail"]}


def _with_limit(current: int, limit: int | None) -> dict[str, object]:
    return {"current": current, **({} if limit is None else {"limit": limit})}


def _entries(found: list[BlockEntry]) -> list[dict[str, object]]:
    return [
        {"major": e["major"], "minor": e["minor"], "op": e["op"].capitalize(), "value": e["value"]}
        for e in found
    ]
