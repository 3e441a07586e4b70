"""Make a container's first process, in new namespaces and in joined ones, with its ids mapped."""

from __future__ import annotations

import os

from berth.bundle import child, mounting
from berth.errors import Failed, Unsupported
from berth.kernel import namespaces, processes, sockets
from berth.runtime import codec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from berth.bundle.plan import Plan
    from berth.oci.runtime_spec import IdMapping

MADE_LATER = ("cgroup", "time")  # by the process in its groups; by its maker, who sets the offsets
HELPERS = {"uid": "newuidmap", "gid": "newgidmap"}
HELPER_FOLDERS = ("/usr/bin", "/bin", "/usr/local/bin")


def clone(plan: Plan, sync: sockets.Socket, ours: sockets.Socket) -> int:
    """Make the process and let it run :class:`berth.bundle.child.Child`; return its pid."""
    if os.geteuid() == 0:
        # From here on: what its child is before it has its root, a process in a joined pid namespace
        # would trace, and so have the host's. Root writes the ids of a process all the same.
        processes.prctl(processes.PR_SET_DUMPABLE, 0)
    flags = 0
    for kind in plan.namespaces:
        if plan.is_new(kind) and kind not in MADE_LATER:
            flags |= namespaces.NAMESPACES[kind][0]
    group = plan.group.open_to_clone_into() if plan.has_group else None
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
        fork = namespaces.Clone(flags, cgroup_fd=group)
        pid = fork.make()
        if pid == 0:
            _run_child(plan, sync, ours)
        _check(fork, pid, plan)
        return pid
    finally:
        for fd, flag in restore:
            namespaces.setns(fd, flag)
            os.close(fd)
        if group is not None:
            os.close(group)


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


def in_child(action: Callable[[], object]) -> None:
    """Have a fork of this process do something that it must not do itself; Failed with its words."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            processes.prctl(processes.PR_SET_DUMPABLE, 0)  # it may enter what is not trusted
            action()
        except BaseException as error:  # noqa: BLE001 - told to the parent, whatever it is
            os.write(writer, str(error).encode()[:4096])
        os._exit(0)
    os.close(writer)
    text = os.read(reader, 4096).decode(errors="replace")
    os.close(reader)
    os.waitpid(pid, 0)
    if text:
        raise Failed(text)


def map_ids(plan: Plan, pid: int) -> None:
    """Give a new user namespace its ids."""
    if not plan.is_new("user"):
        return
    for kind, table in (
        ("uid", plan.linux.get("uidMappings") or []),
        ("gid", plan.linux.get("gidMappings") or []),
    ):
        lines = [f"{row['containerID']} {row['hostID']} {row['size']}" for row in table]
        try:
            _write(pid, f"{kind}_map", "\n".join(lines))
        except PermissionError as error:
            if os.geteuid() == 0:
                raise Failed(f"failed to write {kind}_map: {error.strerror}") from error
            _map_by_helper(kind, pid, table)
        except OSError as error:
            raise Failed(f"failed to write {kind}_map {lines}: {error.strerror}") from error


def _write(pid: int, name: str, text: str) -> None:
    fd = os.open(f"/proc/{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _map_by_helper(kind: str, pid: int, table: list[IdMapping]) -> None:
    """Map as an ordinary user: one's own id alone, or with the program that is privileged for it."""
    own = os.geteuid() if kind == "uid" else os.getegid()
    places = (f"{folder}/{HELPERS[kind]}" for folder in HELPER_FOLDERS)
    program = next((place for place in places if os.access(place, os.X_OK)), "")
    if len(table) == 1 and table[0]["size"] == 1 and table[0]["hostID"] == own:
        if kind == "gid":
            _write(pid, "setgroups", "deny")
        _write(pid, f"{kind}_map", f"{table[0]['containerID']} {own} 1")
        return
    if not program:
        raise Unsupported(f"{HELPERS[kind]} is needed to map these ids, and is not installed")
    numbers = [
        str(number) for row in table for number in (row["containerID"], row["hostID"], row["size"])
    ]
    running = os.posix_spawn(program, [program, str(pid), *numbers], {})
    _, status = os.waitpid(running, 0)
    if status:
        raise Failed(
            f"{program} refused to map ids: exit status {os.waitstatus_to_exitcode(status)}"
        )


def open_sources(plan: Plan, pid: int) -> list[int]:
    """Open what is bound for a process in a user namespace, which may not look everywhere root does.

    From within its mount namespace: in another one nothing can be made of it.
    """
    if os.geteuid() or not plan.in_user_namespace or not plan.is_new("mount"):
        return []
    ours, theirs = sockets.pair()
    try:
        in_child(lambda: _send_sources(plan, pid, theirs))
        _, fds = sockets.receive(ours)
    finally:
        ours.close()
        theirs.close()
    return fds


def _send_sources(plan: Plan, pid: int, sock: sockets.Socket) -> None:
    fd = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    namespaces.setns(fd, namespaces.CLONE_NEWNS)
    os.chdir(plan.bundle)
    found = [entry for entry in plan.entries if entry.is_bind and not entry.is_mapped]
    for entry in found:
        mounting.open_source(entry)
    sockets.send(sock, b"{}", [entry.source for entry in found])


def release(plan: Plan, sync: sockets.Socket, trees: list[int], sources: list[int]) -> None:
    """Let the process go on, with id-mapped trees and what else was opened for it."""
    message = {"go": True, "state": plan.state, "trees": len(trees)}
    sockets.send(sync, codec.encode(message), [*trees, *sources])
