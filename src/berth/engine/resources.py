"""Limits: from what clients ask for to ``linux.resources``. Pure but for the numbers of block devices."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from berth.engine import defaults
from berth.errors import InvalidArgument

if TYPE_CHECKING:
    from berth.engine.models import HostConfig, ThrottleDevice
    from berth.engine.models import WeightDevice as WeightRequest
    from berth.oci.runtime_spec import (
        BlockIO,
        Cpu,
        Memory,
        Resources,
        Rlimit,
        WeightDevice,
    )
    from berth.oci.runtime_spec import ThrottleDevice as Throttle

PERIOD_US = 100_000
NANO_CPUS = 1_000_000_000
MIN_CPU_PERIOD_US, MAX_CPU_PERIOD_US = 1_000, 1_000_000
MIN_CPU_QUOTA_US = 1_000
MIN_WEIGHT, MAX_WEIGHT = 10, 1000
MAX_CPUS = 8192
UNLIMITED = (1 << 64) - 1


def resources(host: HostConfig) -> Resources:
    """Return the limits; InvalidArgument in Docker's words when they make no sense."""
    found = common_resources(host)
    swappiness = host.memory_swappiness
    if swappiness is not None and swappiness != -1:
        if not 0 <= swappiness <= 100:
            raise InvalidArgument(
                f"Invalid value: {swappiness}, valid memory swappiness range is 0-100"
            )
        found.setdefault("memory", {})["swappiness"] = swappiness
    if host.oom_kill_disable:
        found.setdefault("memory", {})["disableOOMKiller"] = True
    if host.cpu_realtime_period:
        found.setdefault("cpu", {})["realtimePeriod"] = host.cpu_realtime_period
    if host.cpu_realtime_runtime:
        found.setdefault("cpu", {})["realtimeRuntime"] = host.cpu_realtime_runtime
    if block := block_io(host):
        found["blockIO"] = block
    return found


def common_resources(limits: HostConfig) -> Resources:
    """Return the limits that can be changed while a container runs."""
    found: Resources = {}
    if found_memory := memory(limits):
        found["memory"] = found_memory
    if found_cpu := cpu(limits):
        found["cpu"] = found_cpu
    if limits.pids_limit:
        found["pids"] = {"limit": limits.pids_limit}
    return found


def memory(limits: HostConfig) -> Memory:
    """Return the memory limits; without a swap limit a container swaps as much again."""
    limit, swap, reservation = limits.memory, limits.memory_swap, limits.memory_reservation
    if limit and limit < defaults.MIN_MEMORY_BYTES:
        raise InvalidArgument("Minimum memory limit allowed is 6MB")
    if swap > 0 and not limit:
        raise InvalidArgument(
            "You should always set the Memory limit when using Memoryswap limit, see usage"
        )
    if 0 < swap < limit:
        raise InvalidArgument(
            "Minimum memoryswap limit should be larger than memory limit, see usage"
        )
    if 0 < reservation < defaults.MIN_MEMORY_BYTES:
        raise InvalidArgument("Minimum memory reservation allowed is 6MB")
    if 0 < limit < reservation:
        raise InvalidArgument(
            "Minimum memory limit can not be less than memory reservation limit, see usage"
        )
    found: Memory = {}
    if limit > 0:
        found["limit"] = limit
        found["swap"] = swap or limit * 2
    if reservation:
        found["reservation"] = reservation
    return found


def cpu(limits: HostConfig) -> Cpu:
    """Return shares, quota and sets."""
    _check_cpu(limits)
    found: Cpu = {}
    if limits.nano_cpus:
        found["period"] = PERIOD_US
        found["quota"] = limits.nano_cpus * PERIOD_US // NANO_CPUS
    if limits.cpu_period:
        found["period"] = limits.cpu_period
    if limits.cpu_quota:
        found["quota"] = limits.cpu_quota
    if limits.cpu_shares:
        found["shares"] = limits.cpu_shares
    if limits.cpuset_cpus:
        found["cpus"] = limits.cpuset_cpus
    if limits.cpuset_mems:
        found["mems"] = limits.cpuset_mems
    return found


def _check_cpu(limits: HostConfig) -> None:
    if limits.nano_cpus and (limits.cpu_period or limits.cpu_quota):
        other = "Period" if limits.cpu_period else "Quota"
        raise InvalidArgument(f"Conflicting options: Nano CPUs and CPU {other} cannot both be set")
    if limits.nano_cpus:  # only then: counting reads a file of sysfs
        count = os.cpu_count() or 1
        if not 0 < limits.nano_cpus <= count * NANO_CPUS:
            raise InvalidArgument(
                f"range of CPUs is from 0.01 to {count:.2f}, as there are only {count} CPUs available"
            )
    if limits.cpu_period and not MIN_CPU_PERIOD_US <= limits.cpu_period <= MAX_CPU_PERIOD_US:
        raise InvalidArgument(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"
        )
    if 0 < limits.cpu_quota < MIN_CPU_QUOTA_US:
        raise InvalidArgument("CPU cfs quota can not be less than 1ms (i.e. 1000)")


def block_io(host: HostConfig) -> BlockIO:
    """Return the limits of block devices."""
    found: BlockIO = {}
    if host.blkio_weight:
        if not MIN_WEIGHT <= host.blkio_weight <= MAX_WEIGHT:
            raise InvalidArgument("Range of blkio weight is from 10 to 1000")
        found["weight"] = host.blkio_weight
    if host.blkio_weight_device:
        found["weightDevice"] = [_weight(device) for device in host.blkio_weight_device]
    if host.blkio_device_read_bps:
        found["throttleReadBpsDevice"] = _throttles(host.blkio_device_read_bps)
    if host.blkio_device_write_bps:
        found["throttleWriteBpsDevice"] = _throttles(host.blkio_device_write_bps)
    if host.blkio_device_read_iops:
        found["throttleReadIOPSDevice"] = _throttles(host.blkio_device_read_iops)
    if host.blkio_device_write_iops:
        found["throttleWriteIOPSDevice"] = _throttles(host.blkio_device_write_iops)
    return found


def _weight(device: WeightRequest) -> WeightDevice:
    major, minor = _block_number(device.path)
    return {"major": major, "minor": minor, "weight": device.weight}


def _throttles(devices: list[ThrottleDevice]) -> list[Throttle]:
    found: list[Throttle] = []
    for device in devices:
        major, minor = _block_number(device.path)
        found.append({"major": major, "minor": minor, "rate": device.rate})
    return found


def _block_number(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)  # noqa: PTH116 - the numbers of a node are what is wanted
    except OSError as error:
        raise InvalidArgument(f"stat {path}: {(error.strerror or '').lower()}") from error
    if not stat.S_ISBLK(status.st_mode):
        raise InvalidArgument(f"{path}: not a block device")
    return os.major(status.st_rdev), os.minor(status.st_rdev)


def rlimits(host: HostConfig) -> list[Rlimit]:
    """Return --ulimit; -1 is unlimited."""
    found: list[Rlimit] = []
    for limit in host.ulimits or []:
        name = f"RLIMIT_{limit.name.upper()}"
        if limit.hard != -1 and (limit.soft == -1 or limit.soft > limit.hard):
            raise InvalidArgument(
                f"ulimit soft limit must be less than or equal to hard limit: {limit.soft} > {limit.hard}"
            )
        soft, hard = (UNLIMITED if value < 0 else value for value in (limit.soft, limit.hard))
        found.append({"type": name, "soft": soft, "hard": hard})
    return found
