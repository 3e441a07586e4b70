"""What the kernel keeps of a process besides privileges: scheduler, priorities, personality, memory.

A process that joins a container gets its personality and its memory policy as well.
"""

from __future__ import annotations

import os

from berth.errors import Failed, InvalidArgument
from berth.kernel import scheduling

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.oci.runtime_spec import IOPriority, Linux, MemoryPolicy, Process, Scheduler

POLICIES = {
    "SCHED_OTHER": 0,
    "SCHED_FIFO": 1,
    "SCHED_RR": 2,
    "SCHED_BATCH": 3,
    "SCHED_ISO": 4,
    "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}
SCHEDULER_FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01,
    "SCHED_FLAG_RECLAIM": 0x02,
    "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08,
    "SCHED_FLAG_KEEP_PARAMS": 0x10,
    "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}
IO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
DOMAINS = {"LINUX": 0x0000, "LINUX32": 0x0008}
MEMORY_MODES = {
    "MPOL_DEFAULT": 0,
    "MPOL_PREFERRED": 1,
    "MPOL_BIND": 2,
    "MPOL_INTERLEAVE": 3,
    "MPOL_LOCAL": 4,
    "MPOL_PREFERRED_MANY": 5,
    "MPOL_WEIGHTED_INTERLEAVE": 6,
}
MEMORY_FLAGS = {
    "MPOL_F_NUMA_BALANCING": 1 << 13,
    "MPOL_F_RELATIVE_NODES": 1 << 14,
    "MPOL_F_STATIC_NODES": 1 << 15,
}
MAX_NUMBER = 0xFFFF  # of a processor or a node


def check(process: Process, linux: Linux) -> None:
    """Refuse words that are not known."""
    personality = linux.get("personality")
    if policy := linux.get("memoryPolicy"):
        _check_policy(policy)
    scheduler = process.get("scheduler")
    if scheduler and scheduler.get("policy") not in POLICIES:
        raise InvalidArgument(f"invalid scheduler policy: {scheduler.get('policy')!r}")
    for flag in (scheduler or {}).get("flags") or ():
        if flag not in SCHEDULER_FLAGS:
            raise InvalidArgument(f"invalid scheduler flag: {flag!r}")
    priority = process.get("ioPriority")
    if priority and priority.get("class") not in IO_CLASSES:
        raise InvalidArgument(f"invalid ioPriority.class: {priority.get('class')!r}")
    if priority and not 0 <= priority.get("priority", 0) <= 7:
        raise InvalidArgument(f"invalid ioPriority.priority: {priority.get('priority')}")
    if personality and personality.get("domain") not in DOMAINS:
        raise InvalidArgument(f"invalid personality domain {personality.get('domain')!r}")
    if personality and personality.get("flags"):
        raise InvalidArgument("unsupported personality flags")


def _check_policy(policy: MemoryPolicy) -> None:
    if policy.get("mode") not in MEMORY_MODES:
        raise InvalidArgument(f"invalid memoryPolicy.mode: {policy.get('mode')!r}")
    for flag in policy.get("flags") or ():
        if flag not in MEMORY_FLAGS:
            raise InvalidArgument(f"invalid memoryPolicy flag: {flag!r}")
    numbers(policy.get("nodes") or "")


def apply(process: Process, linux: Linux) -> None:
    """Set them for the calling process."""
    try:
        if scheduler := process.get("scheduler"):
            _schedule(scheduler)
        if priority := process.get("ioPriority"):
            _prioritise(priority)
        if personality := linux.get("personality"):
            scheduling.personality(DOMAINS[personality["domain"]])
        if policy := linux.get("memoryPolicy"):
            flags = sum(MEMORY_FLAGS[flag] for flag in set(policy.get("flags") or ()))
            nodes = numbers(policy.get("nodes") or "")
            scheduling.set_mempolicy(MEMORY_MODES[policy["mode"]] | flags, nodes)
    except OSError as error:
        raise Failed(f"error setting process attributes: {error}") from error


def _schedule(wanted: Scheduler) -> None:
    flags = 0
    for name in wanted.get("flags") or ():
        flags |= SCHEDULER_FLAGS[name]
    times = [wanted.get("runtime", 0), wanted.get("deadline", 0), wanted.get("period", 0)]
    scheduling.sched_setattr(
        POLICIES[wanted["policy"]],
        flags,
        nice=wanted.get("nice", 0),
        priority=wanted.get("priority", 0),
        times=times,
    )


def _prioritise(wanted: IOPriority) -> None:
    scheduling.ioprio_set(IO_CLASSES[wanted["class"]], wanted.get("priority", 0))


def set_processors(text: str) -> None:
    """Let the calling process run on the processors of a list as "0-3,7"."""
    if text:
        os.sched_setaffinity(0, numbers(text))


def numbers(text: str) -> set[int]:
    """Parse a list of processors or nodes, as "0-3,7"."""
    found: set[int] = set()
    for part in text.split(",") if text else ():
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise InvalidArgument(f"invalid list of numbers {text!r}")
        if int(last or first) > MAX_NUMBER:
            raise InvalidArgument(f"invalid list of numbers {text!r}: no machine has so many")
        found.update(range(int(first), int(last or first) + 1))
    return found
