"""Processes that are cloned before their containers: they become them, or leave nothing behind."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support import kernel
from support.waiting import wait_for

if TYPE_CHECKING:
    from support.engine import EngineProcess

pytestmark = pytest.mark.berth_only

DESCRIBE = """
cut -d' ' -f4- /proc/self/mountinfo | sort
ls -ln /dev /dev/pts /proc/sys/kernel/hostname
grep -E '^(Cap|NoNewPrivs|Seccomp|Uid|Gid|Groups|NSpid|Sig[PBIC])' /proc/self/status
cat /proc/self/cgroup /proc/self/limits
ls /proc/self/fd /sys/fs/cgroup
ip addr
cat /proc/sys/net/ipv6/conf/all/disable_ipv6 /proc/keys /proc/timer_list 2>&1
ls -d /proc/1
pwd; umask; ulimit -a
"""


def run(engine: EngineProcess, *flags: str, script: str = "true") -> str:
    done = engine.docker("run", "--rm", *flags, "busybox", "sh", "-c", script)
    assert done.code == 0, str(done)
    return done.out


def make_spare(engine: EngineProcess) -> tuple[int, int]:
    """Run a container; return the monitor that has a spare then, and the spare."""
    run(engine)
    wait_for(lambda: kernel.spare(engine), "a spare")
    found = kernel.spare(engine)
    assert found is not None
    return found


def groups(engine: EngineProcess) -> list[Path]:
    """Return the groups of containers, and of spares, of either version."""
    top = Path("/sys/fs/cgroup")
    below = f"{engine.instance.cgroup.strip('/')}/std/*/"
    return [*top.glob(below), *top.glob(f"*/{below}")]


def is_there(pid: int) -> bool:
    return Path(f"/proc/{pid}/fd").exists()


@pytest.mark.parametrize("network", ["none", "host", "bridge"])
def test_it_becomes_the_next_container(engine: EngineProcess, network: str) -> None:
    _, spare = make_spare(engine)
    flags = ("--name", "next", "--network", network)
    done = engine.docker("run", "-d", *flags, "busybox", "sleep", "9")
    assert done.code == 0, str(done)
    assert engine.inspect("next")["State"]["Pid"] == spare
    own = os.readlink(f"/proc/{spare}/ns/net") == os.readlink("/proc/self/ns/net")
    assert own == (network == "host")
    engine.docker("rm", "-f", "next")


@pytest.mark.parametrize("network", ["none", "bridge"])
def test_a_container_is_no_different_for_it(fresh_engine: EngineProcess, network: str) -> None:
    def describe() -> str:
        flags = ("--network", network, "--name", "next", "-h", "same", "-m", "64m")
        said = run(fresh_engine, *flags, script=DESCRIBE)
        said = re.sub(r"[0-9a-f]{64}", "ID", said)
        return re.sub(
            r"dir=\d+|/snapshots/\d+|\d+:\d+ /|eth0@if\d+|[0-9a-f:]{17} brd|\w+ +\d+ \d\d:\d\d",
            "",
            said,
        )

    alone = describe()
    wait_for(lambda: kernel.spare(fresh_engine), "a spare")
    found = describe()
    if network == "bridge":  # addresses go round
        alone, found = (
            re.sub(r"\d+\.\d+\.\d+\.\d+|fe80::\S+", "A", said) for said in (alone, found)
        )
    assert found == alone


@pytest.mark.parametrize(
    ("flags", "script", "said"),
    [
        (("--shm-size", "128m"), "df -k /dev/shm | tail -1 | awk '{print $2}'", "131072"),
        (("--tmpfs", "/dev/shm:size=1m"), "df -k /dev/shm | tail -1 | awk '{print $2}'", "1024"),
        (("--sysctl", "net.ipv4.ip_forward=0"), "cat /proc/sys/net/ipv4/ip_forward", "0"),
        (("--sysctl", "kernel.msgmax=4096"), "cat /proc/sys/kernel/msgmax", "4096"),
        (("--device", "/dev/loop-control"), "ls /dev/loop-control", "/dev/loop-control"),
        (("--privileged",), "test -w /proc/sys/kernel/hostname && echo yes", "yes"),
        (("--read-only",), "touch /x 2>/dev/null || echo no", "no"),
        (
            ("--security-opt", "systempaths=unconfined"),
            "grep -c ' /proc/' /proc/self/mountinfo || true",
            "0",
        ),
        (("--cgroupns", "host"), "grep -q /std/ /proc/self/cgroup && echo yes", "yes"),
        (
            ("--cgroup-parent", "/berth-test-spares", "--cgroupns", "host"),
            "grep -q :/berth-test-spares/ /proc/self/cgroup && echo yes",
            "yes",
        ),
        (("--ipc", "none"), "ls -d /dev/shm 2>/dev/null | wc -l", "0"),
        (("-v", "/dev:/dev"), "ls /dev/loop-control", "/dev/loop-control"),
        (("-v", "/proc/sys/kernel:/kernel"), "ls /kernel/hostname", "/kernel/hostname"),
        (("-t",), "tty", "/dev/pts/0"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_it_lacks_is_made(
    engine: EngineProcess, flags: tuple[str, ...], script: str, said: str
) -> None:
    make_spare(engine)
    assert run(engine, *flags, script=script).strip() == said
    for parent in Path("/sys/fs/cgroup").glob("*/berth-test-spares"):
        wait_for(lambda parent=parent: not list(parent.glob("*/")), "the group is gone")
        parent.rmdir()


@pytest.mark.parametrize("kind", ["pid", "ipc", "uts"])
def test_it_is_undone_for_a_container_with_the_hosts_namespaces(
    engine: EngineProcess, kind: str
) -> None:
    make_spare(engine)
    link = run(engine, f"--{kind}", "host", script=f"readlink /proc/self/ns/{kind}")
    assert link.strip() == os.readlink(f"/proc/self/ns/{kind}")


def test_a_monitor_that_dies_takes_it_along(fresh_engine: EngineProcess) -> None:
    monitor, spare = make_spare(fresh_engine)
    assert groups(fresh_engine)
    os.kill(monitor, signal.SIGKILL)
    wait_for(lambda: not is_there(spare), "the spare left")
    wait_for(lambda: not groups(fresh_engine), "its groups are gone")
    run(fresh_engine)


def test_a_monitor_that_was_stopped_leaves_groups_alone_that_are_a_containers(
    fresh_engine: EngineProcess,
) -> None:
    monitor, spare = make_spare(fresh_engine)
    os.kill(monitor, signal.SIGSTOP)
    done = fresh_engine.docker("run", "-d", "--name", "next", "busybox", "sleep", "1000")
    try:
        assert done.code == 0, str(done)
        assert done.out.strip() in {group.name for group in groups(fresh_engine)}
        own = [group / "own" for group in groups(fresh_engine)]
        for group in own:
            group.mkdir()
    finally:
        os.kill(monitor, signal.SIGCONT)
    wait_for(lambda: not is_there(monitor) and not is_there(spare), "both left")
    assert all(group.exists() for group in own)
    assert fresh_engine.docker("rm", "-f", "next").code == 0


def test_one_that_was_killed_is_replaced(engine: EngineProcess) -> None:
    _, spare = make_spare(engine)
    os.kill(spare, signal.SIGKILL)
    assert run(engine, script="echo well").strip() == "well"


def test_nothing_is_left_when_berthd_is_killed(fresh_engine: EngineProcess) -> None:
    monitor, spare = make_spare(fresh_engine)
    fresh_engine.kill()
    wait_for(lambda: not is_there(monitor) and not is_there(spare), "both left")
    assert not groups(fresh_engine)
    fresh_engine.start()


def test_a_start_removes_what_was_left_when_all_were_killed(fresh_engine: EngineProcess) -> None:
    monitor, spare = make_spare(fresh_engine)
    os.kill(monitor, signal.SIGSTOP)
    fresh_engine.kill()
    os.kill(monitor, signal.SIGKILL)
    wait_for(lambda: not is_there(spare), "the spare left")
    assert groups(fresh_engine)
    fresh_engine.start()
    assert not groups(fresh_engine)


def test_a_creation_that_is_refused_leaves_nothing(fresh_engine: EngineProcess) -> None:
    fresh_engine.docker("create", "--name", "taken", "busybox", "true")
    make_spare(fresh_engine)
    refused = fresh_engine.docker("create", "--name", "taken", "busybox", "true")
    assert refused.code == 1
    wait_for(lambda: not groups(fresh_engine), "it is undone")
    assert kernel.spare(fresh_engine) is None


def test_a_container_that_is_not_started_gives_it_back(fresh_engine: EngineProcess) -> None:
    _, spare = make_spare(fresh_engine)
    fresh_engine.docker("create", "--name", "later", "busybox", "echo", "late")
    wait_for(lambda: not is_there(spare), "the preparation was undone")
    assert not groups(fresh_engine)
    assert fresh_engine.docker("start", "-a", "later").out == "late\n"
