"""Make a container's first process, in new namespaces and in joined ones."""

from __future__ import annotations

import os

from berth.bundle import child
from berth.errors import Failed
from berth.kernel import namespaces, processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from berth.bundle.plan import Plan
    from berth.kernel import sockets

MADE_LATER = ("cgroup", "time")  # by the process in its groups; by its maker, who sets the offsets


def clone(plan: Plan, sync: sockets.Socket, ours: sockets.Socket) -> int:
    """Make the process and let it run :class:`berth.bundle.child.Child`; return its pid."""
    _prepare(plan)
    flags, group = _flags(plan), _open_group(plan)
    restore: list[tuple[int, int]] = []
    try:
        if "user" in plan.joined:
            return clone_through(
                lambda: _enter_user_namespace(plan),
                lambda: _run_child(plan, sync, ours),
                flags=flags,
                group=group,
            )
        restore = _enter_for_children(plan, _open_offsets(plan))
        return _fork(plan, flags, group, lambda: _run_child(plan, sync, ours))
    finally:
        for fd, flag in restore:
            namespaces.setns(fd, flag)
            os.close(fd)
        if group is not None:
            os.close(group)


def clone_for_parent(plan: Plan, sync: sockets.Socket, door: sockets.Socket) -> int:
    """Make it a child of this process's parent. This process ends afterwards: it stays where it enters."""
    _prepare(plan)
    flags, group = _flags(plan) | namespaces.CLONE_PARENT, _open_group(plan)
    if "user" in plan.joined:
        _enter_user_namespace(plan)
        processes.prctl(processes.PR_SET_DUMPABLE, 0)  # entering may have reset it
    else:
        _enter_for_children(plan, _open_offsets(plan))
    return _fork(plan, flags, group, lambda: _run_child(plan, sync, door))


def _prepare(plan: Plan) -> None:
    """Do what the process could not do later."""
    child.load_seldom(plan)
    if "cgroup" not in plan.namespaces:
        plan.points = {h.name: h.point for h in plan.hierarchies.found}
    _leave_no_trace()


def _leave_no_trace() -> None:
    """See to it that nobody can trace what is made from here on, if this is root.

    What its child is before it has its root, a process in a joined pid namespace would trace, and so have the
    host's. Root writes the ids of a process all the same; an ordinary user cannot.
    """
    if os.geteuid() == 0:
        processes.prctl(processes.PR_SET_DUMPABLE, 0)


def _flags(plan: Plan) -> int:
    flags = 0
    for kind in plan.namespaces:
        if plan.makes(kind) and kind not in MADE_LATER:
            flags |= namespaces.NAMESPACES[kind][0]
    return flags


def _open_group(plan: Plan) -> int | None:
    return plan.group.open_to_clone_into() if plan.has_group else None


def _fork(plan: Plan, flags: int, group: int | None, run: Callable[[], NoReturn]) -> int:
    fork = namespaces.Clone(flags, cgroup_fd=group)
    pid = fork.make()
    if pid == 0:
        run()
    _check(fork, pid, plan)
    return pid


def _check(fork: namespaces.Clone, pid: int, plan: Plan) -> None:
    try:
        fork.check(pid)
    except PermissionError as error:
        if os.geteuid() == 0 or not plan.has_group:
            raise
        raise Failed(
            f"no right to make a process in cgroup {plan.group.path}: the caller's own group must be"
            ' below one of its user\'s, too (cgroups(7), "Delegation")'
        ) from error


def _run_child(plan: Plan, sync: sockets.Socket, ours: sockets.Socket) -> NoReturn:
    ours.close()
    if plan.lock >= 0:
        os.close(plan.lock)
    child.Child(plan, sync).run()


def _enter_user_namespace(plan: Plan) -> None:
    offsets = _open_offsets(plan)  # an ordinary user may only while it is dumpable
    # Who has rights in there would trace what has the host's root still (CVE-2016-9962).
    processes.prctl(processes.PR_SET_DUMPABLE, 0)
    namespaces.setns(plan.joined["user"], namespaces.CLONE_NEWUSER)
    _enter_for_children(plan, offsets)


def _enter_for_children(plan: Plan, offsets: int) -> list[tuple[int, int]]:
    """Enter what only children come into: pid and time. Return how to undo it."""
    restore: list[tuple[int, int]] = []
    if "pid" in plan.joined:
        restore.append((_own("pid"), namespaces.CLONE_NEWPID))
        namespaces.setns(plan.joined["pid"], namespaces.CLONE_NEWPID)
    if plan.is_new("time"):
        restore.append((_own("time"), namespaces.CLONE_NEWTIME))
        namespaces.unshare(namespaces.CLONE_NEWTIME)
        _set_offsets(plan, offsets)
    return restore


def _own(kind: str) -> int:
    return os.open(f"/proc/self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)


def _open_offsets(plan: Plan) -> int:
    if not plan.is_new("time") or not plan.linux.get("timeOffsets"):
        return -1
    return os.open("/proc/self/timens_offsets", os.O_WRONLY | os.O_CLOEXEC)


def _set_offsets(plan: Plan, fd: int) -> None:
    for clock, offset in (plan.linux.get("timeOffsets") or {}).items():
        line = f"{clock} {offset.get('secs', 0)} {offset.get('nanosecs', 0)}\n"
        try:
            os.lseek(fd, 0, os.SEEK_SET)  # it takes nothing elsewhere
            os.write(fd, line.encode())
        except OSError as error:
            raise Failed(f"failed to set time offset {line.strip()!r}: {error.strerror}") from error
    if fd >= 0:
        os.close(fd)


def clone_through(
    enter: Callable[[], object],
    run: Callable[[], NoReturn],
    *,
    flags: int = 0,
    group: int | None = None,
) -> int:
    """Make a process from a helper that has entered a user namespace first, and so has rights there.

    The helper stays in this pid namespace: in another one it would learn another pid. It must not be
    dumpable any more when it is called, or ``enter`` sees to that.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    helper = os.fork()
    if helper == 0:
        try:
            enter()
            processes.prctl(processes.PR_SET_DUMPABLE, 0)  # entering may have reset it
            fork = namespaces.Clone(flags | namespaces.CLONE_PARENT, cgroup_fd=group)
            pid = fork.make()
            if pid == 0:
                os.close(reader)
                os.close(writer)
                run()
            fork.check(pid)
            os.write(writer, str(pid).encode())
        except BaseException as error:  # noqa: BLE001 - told to the maker, whatever it is
            os.write(writer, str(error).encode())
        os._exit(0)
    os.close(writer)
    text = os.read(reader, 4096).decode()
    os.close(reader)
    os.waitpid(helper, 0)
    if not text.isdigit():
        raise Failed(f"unable to join user namespace: {text}")
    return int(text)
