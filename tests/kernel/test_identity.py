"""Who may keep an engine from starting by the address that engines know of each other by."""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path

import pytest

from berth.engine import identity
from berth.engine.instance import Instance
from berth.errors import Conflict
from berth.kernel import cgroups, namespaces
from support.forks import Waiting, in_child

ROOT = Path(f"/nowhere/berth/identity-{os.getpid()}")
INSTANCE = Instance.of(ROOT)


def take() -> socket.socket:
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    sock.bind((identity.address(INSTANCE), 0))
    return sock


KEPT = []


def keep() -> None:
    KEPT.append(take())


@pytest.mark.parametrize("parent", ["std", "elsewhere"])
def test_a_container_of_the_engine_does_not_keep_it_from_starting(
    tmp_path: Path, parent: str
) -> None:
    """Root in a container with the host's network can take what address it likes."""
    container = "0123456789abcdef" * 4
    (tmp_path / "containers" / container).mkdir(parents=True)
    hierarchies = cgroups.detect()
    hierarchies.prepare_parent(f"{INSTANCE.cgroup}/{parent}", [])
    group = hierarchies.open_group(f"{INSTANCE.cgroup}/{parent}/{container}")
    group.create()
    try:
        with Waiting(keep) as holder:
            with pytest.raises(Conflict):
                identity.hold(INSTANCE, tmp_path)
            group.add(holder.pid)
            identity.hold(INSTANCE, tmp_path).close()
    finally:
        hierarchies.open_group(INSTANCE.cgroup).remove()


def test_another_user_does_not_keep_it_from_starting(caplog: pytest.LogCaptureFixture) -> None:
    def take_as_another() -> None:
        os.setuid(65534)
        keep()

    with Waiting(take_as_another), caplog.at_level(logging.WARNING, "berth"):
        identity.hold(INSTANCE, ROOT).close()
    assert f"no engine has the netlink address {identity.address(INSTANCE)}" in caplog.text


def test_a_socket_that_no_process_has_is_no_engines() -> None:
    """It is on its way from one to another, and may stay so."""
    here, there = socket.socketpair()
    with here, there:
        with take() as sock:
            socket.send_fds(here, [b"x"], [sock.fileno()])
        with pytest.raises(OSError, match="in use"):
            take()
        identity.hold(INSTANCE, ROOT).close()


def test_an_engine_outside_is_known_in_a_pid_namespace_of_ones_own() -> None:
    def ask() -> str:
        namespaces.unshare(namespaces.CLONE_NEWPID | namespaces.CLONE_NEWNS)
        return in_child(refused)

    def refused() -> str:
        from berth.kernel import mounts

        mounts.mount("", "/", flags=mounts.MS_PRIVATE | mounts.MS_REC)
        mounts.mount("proc", "/proc", "proc")
        try:
            identity.hold(INSTANCE, ROOT).close()
        except Conflict as error:
            return error.message
        return ""

    with take():
        assert "another engine on this host's network" in in_child(ask)
