"""How the kernel schedules the calling process: sched_setattr(2), ioprio_set(2), personality(2)."""

from __future__ import annotations

import ctypes

from berth.kernel.libc import MACHINE, check, libc, syscall

SYS_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}.get(MACHINE, 274)
SYS_IOPRIO_SET = {"x86_64": 251, "aarch64": 30}.get(MACHINE, 30)
IOPRIO_WHO_PROCESS = 1
IOPRIO_CLASS_SHIFT = 13

libc.personality.argtypes = (ctypes.c_ulong,)


class _Attributes(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime", ctypes.c_uint64),
        ("deadline", ctypes.c_uint64),
        ("period", ctypes.c_uint64),
    )


def sched_setattr(policy: int, flags: int, *, nice: int, priority: int, times: list[int]) -> None:
    """sched_setattr(2); ``times`` are runtime, deadline and period in nanoseconds."""
    size = ctypes.sizeof(_Attributes)
    attributes = _Attributes(size, policy, flags, nice, priority, *times)
    result = libc.syscall(
        ctypes.c_long(SYS_SCHED_SETATTR),
        ctypes.c_long(0),
        ctypes.byref(attributes),
        ctypes.c_long(0),
    )
    check(result, f"sched_setattr policy {policy}")


def ioprio_set(class_: int, priority: int) -> None:
    """ioprio_set(2) for the calling process."""
    value = class_ << IOPRIO_CLASS_SHIFT | priority
    check(syscall(SYS_IOPRIO_SET, IOPRIO_WHO_PROCESS, 0, value), f"ioprio_set {class_} {priority}")


def personality(domain: int) -> None:
    """personality(2)."""
    check(libc.personality(domain), f"personality {domain:#x}")
