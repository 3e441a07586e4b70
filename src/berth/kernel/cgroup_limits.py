"""Resource limits: from ``linux.resources`` of a runtime spec to control files, both versions.

Pure functions say which file gets which value, in the order of writing; :func:`apply` writes them.
"""

from __future__ import annotations

import errno

from berth.errors import Failed, InvalidArgument, Unsupported
from berth.kernel import cgroup_devices
from berth.kernel.cgroup_files import is_there, read, write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.kernel.cgroups import Hierarchies, Hierarchy
    from berth.oci.runtime_spec import BlockIO, Cpu, Memory, Resources

    Files = list[tuple[str, str]]

CORE = "cgroup"  # files of version 2 itself
UNLIMITED = -1
PERIOD_US = 100_000
MIN_SHARES, MAX_SHARES = 2, 262_144
MIN_WEIGHT, MAX_WEIGHT = 10, 1_000  # blkio's
# What the kernel answers to a value that it does not like.
REFUSALS = (errno.EINVAL, errno.ERANGE, errno.EBUSY, errno.ENOSPC, errno.ENODEV, errno.E2BIG)


SELDOM = ("berth.kernel.device_programs", "math")  # what few limits need


def load_seldom() -> None:
    """Import that as well, for a process that changes its root before it sets limits."""
    for name in SELDOM:
        __import__(name)


def apply(hierarchies: Hierarchies, path: str, resources: Resources) -> None:
    """Write every limit of ``resources`` that is set. See :meth:`berth.kernel.cgroups.Cgroup.apply`."""
    if memory := resources.get("memory"):
        tree = _tree(hierarchies, "memory")
        if tree.unified:
            if memory.get("checkBeforeUpdate"):
                check_usage(memory, max(0, _current(tree, path, "memory.current")))
            _write(tree, path, memory_files_v2(memory, now=_current(tree, path, "memory.max")))
        else:
            now = _current(tree, path, "memory.limit_in_bytes")
            _write(tree, path, memory_files_v1(memory, now=now))
    if cpu := resources.get("cpu"):
        _apply_cpu(hierarchies, path, cpu)
    if pids := resources.get("pids"):
        limit = pids["limit"]
        tree = _tree(hierarchies, "pids")
        _write(tree, path, [("pids.max", str(limit) if limit > 0 else "max")])
    if block := resources.get("blockIO"):
        tree = _tree(hierarchies, "blkio")
        prefix = "io.bfq" if tree.unified else "blkio.bfq"
        files = block_files_v2 if tree.unified else block_files_v1
        _write(tree, path, files(block, bfq=is_there(tree.fd, f"{path}/{prefix}.weight")))
    _apply_rarer(hierarchies, path, resources)
    _apply_devices(hierarchies, path, resources)
    if unified := resources.get("unified"):
        _apply_unified(hierarchies, path, unified)


def _apply_rarer(hierarchies: Hierarchies, path: str, resources: Resources) -> None:
    """Write the limits of huge pages, of network classes and of RDMA devices."""
    for huge in resources.get("hugepageLimits") or ():
        tree = _tree(hierarchies, "hugetlb")
        suffix = "max" if tree.unified else "limit_in_bytes"
        _write(tree, path, [(f"hugetlb.{huge['pageSize']}.{suffix}", str(huge["limit"]))])
    network = resources.get("network") or {}
    if class_id := network.get("classID"):
        _write(_tree(hierarchies, "net_cls"), path, [("net_cls.classid", str(class_id))])
    for entry in network.get("priorities") or ():
        line = f"{entry['name']} {entry['priority']}"
        _write(_tree(hierarchies, "net_prio"), path, [("net_prio.ifpriomap", line)])
    for device, limits in (resources.get("rdma") or {}).items():
        handles, objects = limits.get("hcaHandles", "max"), limits.get("hcaObjects", "max")
        line = f"{device} hca_handle={handles} hca_object={objects}"
        _write(_tree(hierarchies, "rdma"), path, [("rdma.max", line)])


def _apply_cpu(hierarchies: Hierarchies, path: str, cpu: Cpu) -> None:
    sets = [(f"cpuset.{key}", cpu[key]) for key in ("cpus", "mems") if cpu.get(key)]
    if sets:
        _write(_tree(hierarchies, "cpuset"), path, sets)
    if not cpu.keys() - {"cpus", "mems"}:
        return
    tree = _tree(hierarchies, "cpu")
    if tree.unified:
        # A period alone keeps the quota; the file takes no period without one.
        quota = read(tree.fd, f"{path}/cpu.max").split(" ", 1)[0] if _is_only_period(cpu) else "max"
        _write(tree, path, cpu_files_v2(cpu, quota_now=quota))
        return
    files = cpu_files_v1(cpu)
    try:
        _write(tree, path, files)
    except InvalidArgument:
        # The old quota over the new period may be more than the parent has, so the quota goes first.
        first = ("cpu.cfs_quota_us", "cpu.rt_runtime_us")
        _write(tree, path, sorted(files, key=lambda file: file[0] not in first))


def _is_only_period(cpu: Cpu) -> bool:
    return bool(cpu.get("period")) and not cpu.get("quota")


def _apply_devices(hierarchies: Hierarchies, path: str, resources: Resources) -> None:
    rules = resources.get("devices")
    if not rules:
        return
    tree = hierarchies.of("devices")
    if tree is not None:
        cgroup_devices.allow(tree.fd, path, rules)
    elif hierarchies.unified is not None:
        from berth.kernel import device_programs

        device_programs.attach(hierarchies.unified.fd, path, rules)
    else:
        raise Unsupported("set device rules: the devices cgroup controller is not mounted")


def _apply_unified(hierarchies: Hierarchies, path: str, files: dict[str, str]) -> None:
    if hierarchies.unified is None:
        raise Unsupported("set unified limits: cgroup version 2 is not mounted")
    for name, value in files.items():
        if "/" in name:
            raise InvalidArgument(f"invalid cgroup file {name!r}")
        controller = name.partition(".")[0]
        if controller not in (*hierarchies.unified.controllers, CORE):
            raise Unsupported(
                f"invalid configuration: unified limit {name}: version 2 of cgroups has no"
                f" {controller} controller here"
            )
        _write(hierarchies.unified, path, [(name, value)])


def _tree(hierarchies: Hierarchies, controller: str) -> Hierarchy:
    tree = hierarchies.of(controller)
    if tree is None:
        raise Unsupported(f"set {controller} limits: no cgroup hierarchy has the controller")
    return tree


def _current(tree: Hierarchy, path: str, name: str) -> int:
    """Return the limit a group has now; unlimited when it cannot be read."""
    try:
        text = read(tree.fd, f"{path}/{name}").strip()
    except OSError:
        return UNLIMITED
    return int(text) if text.isdigit() else UNLIMITED


def _write(tree: Hierarchy, path: str, files: Files) -> None:
    for name, value in files:
        try:
            write(tree.fd, f"{path}/{name}", value)
        except FileNotFoundError:
            if is_there(tree.fd, path):
                if value in ("-1", "max"):  # without the limit nothing is limited
                    continue
                raise Unsupported(f"set {name}: this kernel has no such limit") from None
            raise Failed(f"set {name}: group {path!r} does not exist") from None
        except OSError as error:
            kind = InvalidArgument if error.errno in REFUSALS else Failed
            raise kind(f"set {name} to {value}: {_reason(error)}") from error


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).rpartition(": ")[2].lower()


def check_usage(memory: Memory, usage: int) -> None:
    """Refuse limits below what is in use: version 2 would kill for them, version 1 refuses them itself."""
    for key, name in (("swap", "memory+swap"), ("limit", "memory")):
        limit: int = memory.get(key, 0)  # type: ignore[assignment]
        if 0 < limit <= usage:
            raise InvalidArgument(f"rejecting {name} limit {limit} <= usage {usage}")


def memory_files_v1(memory: Memory, *, now: int = UNLIMITED) -> Files:
    """Return (file, value). Memory may never be above memory plus swap, so what grows goes first.

    ``now`` is the memory limit that the group has.
    """
    limit, swap = memory.get("limit", 0), memory.get("swap", 0)
    if limit == UNLIMITED and not swap:
        swap = UNLIMITED
    files: Files = []
    if limit:
        files.append(("memory.limit_in_bytes", str(limit)))
    if swap:
        grows = now != UNLIMITED and (swap == UNLIMITED or swap > now)
        files.insert(0 if grows else len(files), ("memory.memsw.limit_in_bytes", str(swap)))
    if reservation := memory.get("reservation", 0):
        files.append(("memory.soft_limit_in_bytes", str(reservation)))
    if (swappiness := memory.get("swappiness", -1)) >= 0:
        files.append(("memory.swappiness", str(swappiness)))
    if memory.get("disableOOMKiller"):
        files.append(("memory.oom_control", "1"))
    return files


def memory_files_v2(memory: Memory, *, now: int = UNLIMITED) -> Files:
    """Return (file, value). Swap is counted without memory; swappiness and the OOM switch are not there."""
    limit, swap = memory.get("limit", 0), memory.get("swap", 0)
    if limit == UNLIMITED and not swap:
        swap = UNLIMITED
    files: Files = []
    if swap:
        files.append(("memory.swap.max", _only_swap(swap, limit or now)))
    if limit:
        files.append(("memory.max", _or_max(limit)))
    if reservation := memory.get("reservation", 0):
        files.append(("memory.low", _or_max(reservation)))
    return files


def _only_swap(total: int, memory: int) -> str:
    if total < 0:
        return "max"
    if memory < 0:
        raise InvalidArgument("set swap limit: it needs a memory limit")
    if total < memory:
        raise InvalidArgument("set swap limit: memory plus swap is less than memory")
    return str(total - memory)


def _or_max(value: int) -> str:
    return "max" if value < 0 else str(value)


def cpu_files_v1(cpu: Cpu) -> Files:
    """Return (file, value) for shares, bandwidth and real time. Shares are for who is not idle."""
    shares, idle = cpu.get("shares", 0), cpu.get("idle")
    if shares and not MIN_SHARES <= shares <= MAX_SHARES:
        bound, limit = ("minimum", MIN_SHARES) if shares < MIN_SHARES else ("maximum", MAX_SHARES)
        raise InvalidArgument(f"the {bound} allowed cpu-shares is {limit}")
    names = (
        ("shares", "cpu.shares"),
        ("period", "cpu.cfs_period_us"),
        ("quota", "cpu.cfs_quota_us"),
        ("burst", "cpu.cfs_burst_us"),
        ("realtimePeriod", "cpu.rt_period_us"),
        ("realtimeRuntime", "cpu.rt_runtime_us"),
    )
    files = [(file, str(cpu[key])) for key, file in names if cpu.get(key)]  # type: ignore[literal-required]
    if idle is not None:
        files.insert(len(files) if idle else 0, ("cpu.idle", str(idle)))
    return files


def cpu_files_v2(cpu: Cpu, *, quota_now: str = "max") -> Files:
    """Return (file, value): shares become a weight. ``quota_now`` goes with a period that comes alone."""
    files: Files = []
    if shares := cpu.get("shares", 0):
        files.append(("cpu.weight", str(cpu_weight(shares))))
    quota, period = cpu.get("quota", 0), cpu.get("period", 0)
    if quota or period:
        amount = str(quota) if quota > 0 else "max" if quota else quota_now
        files.append(("cpu.max", f"{amount} {period}" if period else amount))
    if burst := cpu.get("burst", 0):
        files.append(("cpu.max.burst", str(burst)))
    if (idle := cpu.get("idle")) is not None:
        files.append(("cpu.idle", str(idle)))
    return files


def cpu_weight(shares: int) -> int:
    """Map version 1's 2 to 262144 on version 2's 1 to 10000, so that 1024 becomes 100: both are the default.

    The curve that runc and crun agreed on: 10 to the power of (l*l + 125*l)/612 - 7/34, l = log2(shares).
    """
    if shares <= MIN_SHARES:
        return 1
    if shares >= MAX_SHARES:
        return 10_000
    import math

    log = math.log2(shares)
    return math.ceil(10 ** ((log * log + 125 * log) / 612 - 7 / 34))


def block_files_v1(block: BlockIO, *, bfq: bool) -> Files:
    """Return (file, value) for blkio; ``bfq``: weights are the BFQ scheduler's."""
    weight = "blkio.bfq.weight" if bfq else "blkio.weight"
    files: Files = []
    if value := block.get("weight", 0):
        files.append((weight, str(value)))
    if value := block.get("leafWeight", 0):
        files.append(("blkio.leaf_weight", str(value)))
    for device in block.get("weightDevice", []):
        number = f"{device['major']}:{device['minor']}"
        for key, file in (("weight", weight), ("leafWeight", "blkio.leaf_weight")):
            if value := device.get(key, 0):  # type: ignore[assignment]
                files.append((f"{file}_device", f"{number} {value}"))
    throttles = (
        ("blkio.throttle.read_bps_device", block.get("throttleReadBpsDevice", [])),
        ("blkio.throttle.write_bps_device", block.get("throttleWriteBpsDevice", [])),
        ("blkio.throttle.read_iops_device", block.get("throttleReadIOPSDevice", [])),
        ("blkio.throttle.write_iops_device", block.get("throttleWriteIOPSDevice", [])),
    )
    for name, devices in throttles:
        files += [(name, f"{d['major']}:{d['minor']} {d['rate']}") for d in devices]
    return files


def block_files_v2(block: BlockIO, *, bfq: bool) -> Files:
    """Return (file, value) for io. Without BFQ weights go from 1 to 10000 (io.weight)."""
    if any(one.get("leafWeight") for one in (block, *block.get("weightDevice", []))):
        raise Unsupported("set leafWeight: version 2 of cgroups has no such limit")
    name = "io.bfq.weight" if bfq else "io.weight"
    files: Files = []
    if value := block.get("weight", 0):
        files.append((name, str(value if bfq else io_weight(value))))
    for device in block.get("weightDevice", []):
        if value := device.get("weight", 0):
            number = f"{device['major']}:{device['minor']}"
            files.append((name, f"{number} {value if bfq else io_weight(value)}"))
    throttles = (
        ("rbps", block.get("throttleReadBpsDevice", [])),
        ("wbps", block.get("throttleWriteBpsDevice", [])),
        ("riops", block.get("throttleReadIOPSDevice", [])),
        ("wiops", block.get("throttleWriteIOPSDevice", [])),
    )
    for key, devices in throttles:
        files += [("io.max", f"{d['major']}:{d['minor']} {key}={d['rate']}") for d in devices]
    return files


def io_weight(weight: int) -> int:
    """Map blkio's 10 to 1000 linearly on io's 1 to 10000."""
    within = max(MIN_WEIGHT, min(weight, MAX_WEIGHT))
    return 1 + (within - MIN_WEIGHT) * 9_999 // (MAX_WEIGHT - MIN_WEIGHT)
