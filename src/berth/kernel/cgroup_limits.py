"""Resource limits: from ``linux.resources`` of a runtime spec to control files, both versions."""

from __future__ import annotations

import os

from berth.errors import InvalidArgument, Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.kernel.cgroups import Cgroup
    from berth.oci.runtime_spec import BlockIO, Cpu, DeviceRule, Memory, Resources

UNLIMITED = -1
MAX_DEVICES = "a *:* rwm"


def apply(group: Cgroup, resources: Resources) -> None:
    """Write every limit of ``resources`` that is set."""
    if memory := resources.get("memory"):
        _set(group, "memory", memory_files(memory, unified=_is_unified(group, "memory")))
    if cpu := resources.get("cpu"):
        _set(group, "cpu", cpu_files(cpu, unified=_is_unified(group, "cpu")))
        sets = [(f"cpuset.{key}", str(cpu[key])) for key in ("cpus", "mems") if cpu.get(key)]
        _set(group, "cpuset", sets)
    if pids := resources.get("pids"):
        limit = pids["limit"]
        _set(group, "pids", [("pids.max", str(limit) if limit > 0 else "max")])
    if block := resources.get("blockIO"):
        _set(group, "blkio", block_files(block))
    if devices := resources.get("devices"):
        hierarchy = group.hierarchies.of("devices")
        if hierarchy is not None:
            allow_devices(hierarchy.fd, group.path, devices)


def _is_unified(group: Cgroup, controller: str) -> bool:
    hierarchy = group.hierarchies.of(controller)
    if hierarchy is None:
        raise Unsupported(f"set {controller} limits: no cgroup hierarchy has the controller")
    return hierarchy.unified


def _set(group: Cgroup, controller: str, files: list[tuple[str, str]]) -> None:
    if not files:
        return
    hierarchy = group.hierarchies.of(controller)
    if hierarchy is None:
        raise Unsupported(f"set {controller} limits: no cgroup hierarchy has the controller")
    for name, value in files:
        path = f"{group.path}/{name}"
        try:
            file = os.open(path, os.O_WRONLY | os.O_CLOEXEC, dir_fd=hierarchy.fd)
        except FileNotFoundError:
            raise Unsupported(f"set {name}: this kernel has no such limit") from None
        try:
            os.write(file, value.encode())
        except OSError as error:
            raise InvalidArgument(f"set {name} to {value}: {error.strerror}") from error
        finally:
            os.close(file)


def memory_files(memory: Memory, *, unified: bool) -> list[tuple[str, str]]:
    """Return (file, value) in the order of writing. Version 2 counts swap without memory."""
    limit, swap = memory.get("limit", 0), memory.get("swap", 0)
    reservation = memory.get("reservation", 0)
    files: list[tuple[str, str]] = []
    if unified:
        if limit:
            files.append(("memory.max", _or_max(limit)))
        if swap:
            files.append(("memory.swap.max", _or_max(swap if swap < 0 else max(swap - limit, 0))))
        if reservation:
            files.append(("memory.low", _or_max(reservation)))
        return files
    if limit:
        files.append(("memory.limit_in_bytes", str(limit)))
    if swap:
        files.append(("memory.memsw.limit_in_bytes", str(swap)))
    if reservation:
        files.append(("memory.soft_limit_in_bytes", str(reservation)))
    if (swappiness := memory.get("swappiness", -1)) >= 0:
        files.append(("memory.swappiness", str(swappiness)))
    if memory.get("disableOOMKiller"):
        files.append(("memory.oom_control", "1"))
    return files


def _or_max(value: int) -> str:
    return "max" if value < 0 else str(value)


def cpu_files(cpu: Cpu, *, unified: bool) -> list[tuple[str, str]]:
    """Return (file, value): shares become a weight on version 2."""
    shares, quota, period = cpu.get("shares", 0), cpu.get("quota", 0), cpu.get("period", 0)
    if unified:
        files = [("cpu.weight", str(weight(shares)))] if shares else []
        if quota or period:
            amount = str(quota) if quota > 0 else "max"
            files.append(("cpu.max", f"{amount} {period or 100_000}"))
        return files
    files = [("cpu.shares", str(shares))] if shares else []
    if period:
        files.append(("cpu.cfs_period_us", str(period)))
    if quota:
        files.append(("cpu.cfs_quota_us", str(quota)))
    return files


def weight(shares: int) -> int:
    """Map version 1's 2…262144 to version 2's 1…10000, linearly as runc does."""
    return 1 + ((max(2, min(shares, 262_144)) - 2) * 9_999) // 262_142


def block_files(block: BlockIO) -> list[tuple[str, str]]:
    """Return (file, value) for version 1's blkio."""
    files = []
    if value := block.get("weight", 0):
        files.append(("blkio.bfq.weight", str(value)))
    throttles = (
        ("blkio.throttle.read_bps_device", block.get("throttleReadBpsDevice", [])),
        ("blkio.throttle.write_bps_device", block.get("throttleWriteBpsDevice", [])),
        ("blkio.throttle.read_iops_device", block.get("throttleReadIOPSDevice", [])),
        ("blkio.throttle.write_iops_device", block.get("throttleWriteIOPSDevice", [])),
    )
    for name, devices in throttles:
        files += [(name, f"{d['major']}:{d['minor']} {d['rate']}") for d in devices]
    return files


def allow_devices(fd: int, path: str, rules: list[DeviceRule]) -> None:
    """Write version 1's device rules in order."""
    for rule in rules:
        name = "devices.allow" if rule.get("allow") else "devices.deny"
        file = os.open(f"{path}/{name}", os.O_WRONLY | os.O_CLOEXEC, dir_fd=fd)
        try:
            os.write(file, device_rule(rule).encode())
        finally:
            os.close(file)


def device_rule(rule: DeviceRule) -> str:
    """Return a rule as the control file takes it: "c 1:3 rwm", "a" for everything."""
    kind = rule.get("type", "a") or "a"
    if kind == "a":
        return MAX_DEVICES
    numbers = [rule.get("major", -1), rule.get("minor", -1)]
    major, minor = ("*" if n < 0 else str(n) for n in numbers)
    return f"{kind} {major}:{minor} {rule.get('access') or 'rwm'}"
