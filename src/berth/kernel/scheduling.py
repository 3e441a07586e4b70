"""How the kernel treats the calling process: sched_setattr(2), ioprio_set(2), personality(2).

And set_mempolicy(2).
"""

from __future__ import annotations

from berth.kernel import c
from berth.kernel.libc import MACHINE, check, libc, syscall

SYS_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}.get(MACHINE, 274)
SYS_IOPRIO_SET = {"x86_64": 251, "aarch64": 30}.get(MACHINE, 30)
SYS_SET_MEMPOLICY = {"x86_64": 238, "aarch64": 237}.get(MACHINE, 237)
SYS_IOPRIO_GET = {"x86_64": 252, "aarch64": 31}.get(MACHINE, 31)
IOPRIO_WHO_PROCESS = 1
IOPRIO_CLASS_SHIFT = 13

libc.personality.argtypes = (c.c_ulong,)


class _Attributes(c.Structure):
    _fields_ = (
        ("size", c.c_uint32),
        ("policy", c.c_uint32),
        ("flags", c.c_uint64),
        ("nice", c.c_int32),
        ("priority", c.c_uint32),
        ("runtime", c.c_uint64),
        ("deadline", c.c_uint64),
        ("period", c.c_uint64),
    )


def sched_setattr(policy: int, flags: int, *, nice: int, priority: int, times: list[int]) -> None:
    """sched_setattr(2); ``times`` are runtime, deadline and period in nanoseconds."""
    size = c.sizeof(_Attributes)
    attributes = _Attributes(size, policy, flags, nice, priority, *times)
    result = libc.syscall(
        c.c_long(SYS_SCHED_SETATTR),
        c.c_long(0),
        c.byref(attributes),
        c.c_long(0),
    )
    check(result, f"sched_setattr policy {policy}")


def ioprio_set(class_: int, priority: int) -> None:
    """ioprio_set(2) for the calling process."""
    value = class_ << IOPRIO_CLASS_SHIFT | priority
    check(syscall(SYS_IOPRIO_SET, IOPRIO_WHO_PROCESS, 0, value), f"ioprio_set {class_} {priority}")


def ioprio_get(pid: int) -> int:
    """ioprio_get(2) for a process: class and priority in one number, 0 for none."""
    return check(syscall(SYS_IOPRIO_GET, IOPRIO_WHO_PROCESS, pid), f"ioprio_get {pid}")


def personality(domain: int) -> None:
    """personality(2)."""
    check(libc.personality(domain), f"personality {domain:#x}")


def set_mempolicy(mode: int, nodes: set[int]) -> None:
    """set_mempolicy(2): the NUMA nodes that memory comes from; flags are in ``mode``."""
    mask = sum(1 << node for node in nodes)
    words = mask.bit_length() // 64 + 1
    table = (c.c_uint64 * words)(*(mask >> 64 * i & (1 << 64) - 1 for i in range(words)))
    result = libc.syscall(
        c.c_long(SYS_SET_MEMPOLICY),
        c.c_long(mode),
        c.byref(table) if nodes else None,
        c.c_ulong(64 * words + 1 if nodes else 0),  # it takes one bit fewer than it is told
    )
    check(result, f"set_mempolicy {mode:#x}")
