"""What a container uses, read from its groups: version 1 and 2 in the same shape."""

from __future__ import annotations

from berth.kernel.cgroup_files import fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypedDict

    from berth.kernel.cgroups import Cgroup

    class CpuStats(TypedDict):
        """Times in nanoseconds; ``per_cpu`` is empty on version 2."""

        total_ns: int
        user_ns: int
        kernel_ns: int
        per_cpu_ns: list[int]
        periods: int
        throttled_periods: int
        throttled_ns: int

    class MemoryStats(TypedDict):
        """Bytes; ``limit`` is None when there is none; ``detail`` is memory.stat as the kernel has it.

        The page cache that could be dropped is ``inactive_file`` on version 2, ``total_inactive_file`` on 1.
        """

        usage: int
        max_usage: int
        limit: int | None
        failures: int
        detail: dict[str, int]

    class PidsStats(TypedDict):
        """Processes and threads; ``limit`` is None when there is none."""

        current: int
        limit: int | None

    class BlockEntry(TypedDict):
        """A counter of one block device; ``op`` is read, write, sync, async, discard or total."""

        major: int
        minor: int
        op: str
        value: int

    class BlockStats(TypedDict):
        """Bytes and operations, of the group and all below it."""

        bytes: list[BlockEntry]
        operations: list[BlockEntry]

    class CgroupStats(TypedDict):
        """All of it."""

        version: int
        cpu: CpuStats
        memory: MemoryStats
        pids: PidsStats
        block: BlockStats


NS_PER_US = 1_000
# Version 1 has no word for "no limit" but the highest page-aligned number.
NO_LIMIT = (1 << 63) - (1 << 20)
IO_BYTES = {"rbytes": "read", "wbytes": "write", "dbytes": "discard"}
IO_OPERATIONS = {"rios": "read", "wios": "write", "dios": "discard"}


def collect(group: Cgroup) -> CgroupStats:
    """Read everything; zeros and empty lists for what is not there."""
    return {
        "version": 2 if group.hierarchies.only_unified else 1,
        "cpu": _cpu_v2(group) if _is_unified(group, "cpu") else _cpu_v1(group),
        "memory": _memory_v2(group) if _is_unified(group, "memory") else _memory_v1(group),
        "pids": _pids(group),
        "block": _block_v2(group) if _is_unified(group, "blkio") else _block_v1(group),
    }


def _is_unified(group: Cgroup, controller: str) -> bool:
    hierarchy = group.hierarchies.of(controller)
    return hierarchy is not None and hierarchy.unified


def _number(text: str) -> int:
    text = text.strip()
    return int(text) if text.isdigit() else 0


def _limit(text: str) -> int | None:
    number = _number(text)
    return number if text.strip().isdigit() and number < NO_LIMIT else None


def _numbers(text: str) -> dict[str, int]:
    return {name: _number(value) for name, value in fields(text).items()}


def _cpu_v1(group: Cgroup) -> CpuStats:
    bandwidth = _numbers(group.read("cpu", "cpu.stat"))
    return {
        "total_ns": _number(group.read("cpuacct", "cpuacct.usage")),
        "user_ns": _number(group.read("cpuacct", "cpuacct.usage_user")),
        "kernel_ns": _number(group.read("cpuacct", "cpuacct.usage_sys")),
        "per_cpu_ns": [int(n) for n in group.read("cpuacct", "cpuacct.usage_percpu").split()],
        "periods": bandwidth.get("nr_periods", 0),
        "throttled_periods": bandwidth.get("nr_throttled", 0),
        "throttled_ns": bandwidth.get("throttled_time", 0),
    }


def _cpu_v2(group: Cgroup) -> CpuStats:
    found = _numbers(group.read("cpu", "cpu.stat"))
    return {
        "total_ns": found.get("usage_usec", 0) * NS_PER_US,
        "user_ns": found.get("user_usec", 0) * NS_PER_US,
        "kernel_ns": found.get("system_usec", 0) * NS_PER_US,
        "per_cpu_ns": [],
        "periods": found.get("nr_periods", 0),
        "throttled_periods": found.get("nr_throttled", 0),
        "throttled_ns": found.get("throttled_usec", 0) * NS_PER_US,
    }


def _memory_v1(group: Cgroup) -> MemoryStats:
    return {
        "usage": _number(group.read("memory", "memory.usage_in_bytes")),
        "max_usage": _number(group.read("memory", "memory.max_usage_in_bytes")),
        "limit": _limit(group.read("memory", "memory.limit_in_bytes")),
        "failures": _number(group.read("memory", "memory.failcnt")),
        "detail": _numbers(group.read("memory", "memory.stat")),
    }


def _memory_v2(group: Cgroup) -> MemoryStats:
    return {
        "usage": _number(group.read("memory", "memory.current")),
        "max_usage": _number(group.read("memory", "memory.peak")),
        "limit": _limit(group.read("memory", "memory.max")),
        "failures": _numbers(group.read("memory", "memory.events")).get("max", 0),
        "detail": _numbers(group.read("memory", "memory.stat")),
    }


def _pids(group: Cgroup) -> PidsStats:
    return {
        "current": _number(group.read("pids", "pids.current")),
        "limit": _limit(group.read("pids", "pids.max")),
    }


def _block_v1(group: Cgroup) -> BlockStats:
    """Read what the BFQ scheduler counted, or the throttling layer where that counted nothing."""
    found: list[list[BlockEntry]] = []
    for name in ("io_service_bytes_recursive", "io_serviced_recursive"):
        entries = block_entries(group.read("blkio", f"blkio.bfq.{name}"))
        found.append(entries or block_entries(group.read("blkio", f"blkio.throttle.{name}")))
    return {"bytes": found[0], "operations": found[1]}


def block_entries(text: str) -> list[BlockEntry]:
    """Parse version 1's "8:0 Read 4096" a line; the total over all devices has no number and is left out."""
    found: list[BlockEntry] = []
    for line in text.splitlines():
        words = line.split()
        if len(words) == 3:
            found.append(_entry(words[0], words[1].lower(), int(words[2])))
    return found


def _block_v2(group: Cgroup) -> BlockStats:
    text = group.read("blkio", "io.stat")
    return {"bytes": io_entries(text, IO_BYTES), "operations": io_entries(text, IO_OPERATIONS)}


def io_entries(text: str, keys: dict[str, str]) -> list[BlockEntry]:
    """Parse version 2's "8:0 rbytes=4096 wbytes=0 …" a line, as far as ``keys`` say."""
    found: list[BlockEntry] = []
    for line in text.splitlines():
        number, *pairs = line.split()
        for key, _, value in (pair.partition("=") for pair in pairs):
            if key in keys:
                found.append(_entry(number, keys[key], int(value)))
    return found


def _entry(number: str, op: str, value: int) -> BlockEntry:
    major, minor = (int(part) for part in number.split(":"))
    return {"major": major, "minor": minor, "op": op, "value": value}
