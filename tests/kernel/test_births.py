"""Nobody who is in a container may trace what is on its way there, and has the host's root still."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from berth.bundle import birth, child, joining
from berth.bundle.gathering import gather
from berth.kernel import namespaces, processes, sockets
from berth.kernel.libc import libc
from support.forks import Waiting, in_child

if TYPE_CHECKING:
    from collections.abc import Callable

    from berth.bundle.plan import Plan

PR_GET_DUMPABLE = 3
USER = 61_234


def dumpable() -> int:
    """Say whether this process can be traced by others."""
    return libc.prctl(PR_GET_DUMPABLE, 0, 0, 0, 0)


def status(pid: int) -> int:
    """Return the exit status of a child."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def unshare_user() -> None:
    """Be root of a user namespace."""
    uid, gid = os.getuid(), os.getgid()
    namespaces.unshare(namespaces.CLONE_NEWUSER)
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def be_ordinary() -> None:
    """Become an ordinary user that can be traced, as after execve."""
    os.setgroups([])
    os.setresgid(USER, USER, USER)
    os.setresuid(USER, USER, USER)
    processes.prctl(processes.PR_SET_DUMPABLE, 1)


def directly(plan: Plan) -> int:
    """Make the process as a process does that is sealed itself."""
    ours, theirs = sockets.pair()
    return birth.clone(plan, theirs, ours)


def by_deputy(plan: Plan) -> int:
    """Have a child make it, as a deputy does, and end."""
    reader, writer = os.pipe()
    door, sync = sockets.pair()
    deputy = os.fork()
    if not deputy:
        os.write(writer, str(birth.clone_for_parent(plan, sync, door)).encode())
        os._exit(0)
    assert status(deputy) == 0
    os.close(writer)
    return int(os.read(reader, 20))


@pytest.fixture(params=[directly, by_deputy])
def clone(request) -> Callable[[Plan], int]:
    """Return one of the two ways."""
    return request.param


def born(tmp_path, monkeypatch, clone, kinds: dict[str, str], **linux: object) -> int:
    """Return whether a container's first process can be traced when it begins."""
    monkeypatch.setattr(child.Child, "run", lambda _: os._exit(10 + dumpable()))
    entries = [{"type": kind, "path": path} for kind, path in kinds.items()]
    spec = {"root": {"path": str(tmp_path)}, "linux": {"namespaces": entries, **linux}}
    plan = gather(spec, id_="a", bundle=str(tmp_path))
    plan.has_group = False
    return status(clone(plan)) - 10


def test_what_root_makes_in_a_new_user_namespace_cannot_be_traced(tmp_path, monkeypatch, clone):
    assert in_child(lambda: born(tmp_path, monkeypatch, clone, {"user": "", "pid": ""})) == 0


def test_an_ordinary_user_can_map_what_it_makes(tmp_path, monkeypatch, clone):
    def make() -> int:
        be_ordinary()
        return born(tmp_path, monkeypatch, clone, {"user": ""})

    assert in_child(make) == 1


@pytest.mark.parametrize("become", [lambda: None, be_ordinary], ids=["root", "ordinary"])
def test_what_joins_a_user_namespace_cannot_be_traced(tmp_path, monkeypatch, become, clone):
    """Neither the helper as it enters nor the process; the offsets of clocks are set all the same."""
    setns = namespaces.setns

    def watched(fd: int, flags: int = 0) -> None:
        assert not dumpable(), "it can be traced"
        setns(fd, flags)

    def make(pid: int) -> int:
        become()
        monkeypatch.setattr(namespaces, "setns", watched)
        kinds = {"user": f"/proc/{pid}/ns/user", "time": ""}
        offsets = {"boottime": {"secs": 1000}, "monotonic": {"secs": 5}}
        return born(tmp_path, monkeypatch, clone, kinds, timeOffsets=offsets)

    def before() -> None:
        become()
        unshare_user()

    with Waiting(before) as first:
        assert in_child(lambda: make(first.pid)) == 0


@pytest.mark.parametrize("kind", ["user", "pid"])
def test_an_exec_cannot_be_traced_as_it_enters(monkeypatch, kind):
    flags = {"user": namespaces.CLONE_NEWUSER, "pid": namespaces.CLONE_NEWPID}[kind]
    setns = namespaces.setns

    def watched(fd: int, flags: int = 0) -> None:
        assert not dumpable(), "it can be traced"
        setns(fd, flags)

    def make(pid: int) -> int:
        monkeypatch.setattr(namespaces, "setns", watched)
        monkeypatch.setattr(joining.Joining, "_run", lambda *_, **__: os._exit(10 + dumpable()))
        new = joining.Joining.__new__(joining.Joining)
        return status(new._clone(os.pidfd_open(pid), flags, sockets.pair())) - 10

    with Waiting(unshare_user) as first:
        assert in_child(lambda: make(first.pid)) == 0


def test_root_of_a_user_namespace_does_not_reach_what_enters_it(monkeypatch):
    """A process with every capability in there looks for the root of one that has just been born in it."""

    def born(*_: object, **__: object) -> None:
        while True:
            signal.pause()

    def attack(first: int, target: int) -> str:
        namespaces.setns(os.pidfd_open(first), namespaces.CLONE_NEWUSER)
        try:
            return os.readlink(f"/proc/{target}/root")
        except PermissionError:
            return "refused"

    def enter(first: int) -> str:
        new = joining.Joining.__new__(joining.Joining)
        pid = new._clone(os.pidfd_open(first), namespaces.CLONE_NEWUSER, sockets.pair())
        found = in_child(lambda: attack(first, pid))
        os.kill(pid, signal.SIGKILL)
        status(pid)
        return found

    monkeypatch.setattr(joining.Joining, "_run", born)
    with Waiting(unshare_user) as first:
        assert in_child(lambda: enter(first.pid)) == "refused"
