"""berth inside a container, and in a group that has processes: version 2 allows no such group children."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from berth.errors import Unsupported
from berth.kernel import cgroup_stats, cgroups, mounts, namespaces
from support.forks import Waiting, in_child
from support.machine import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.engine import EngineProcess
    from support.programs import Outcome

MIB = 1 << 20
OUTER = f"berth-nested-test-{os.getpid()}"
CGROUPS = "/sys/fs/cgroup"
NESTED = """
set -e
{python} -m berth serve -H unix:///run/b --data-root /var/lib/in --exec-root /run/in 2>/run/log &
while ! [ -S /run/b ]; do kill -0 $! || {{ cat /run/log >&2; exit 9; }}; done
berth() {{ {python} -m berth -H unix:///run/b "$@"; }}
berth import /busybox.tar inner >/dev/null
berth run --rm --network none -m 64m inner /bin/cat /proc/self/cgroup /sys/fs/cgroup/memory.max
cat /proc/self/cgroup
"""


@pytest.fixture
def outer():
    """A group that stands for a container's."""
    hierarchies = cgroups.detect()
    group = hierarchies.open_group(f"{OUTER}/container")
    group.create()
    yield group
    hierarchies.open_group(OUTER).kill()
    hierarchies.open_group(OUTER).remove()


def enter_namespace(group: cgroups.Cgroup) -> cgroups.Hierarchies:
    """Become a process of a container with a cgroup namespace of its own; return what it sees."""
    group.enter()
    namespaces.unshare(namespaces.CLONE_NEWCGROUP | namespaces.CLONE_NEWNS)
    mounts.mount("", "/", flags=mounts.MS_REC | mounts.MS_PRIVATE)
    mounts.umount2(CGROUPS, mounts.MNT_DETACH)
    mounts.mount("cgroup", CGROUPS, "cgroup2")
    return cgroups.detect()


def test_the_processes_of_a_container_make_room_for_groups_in_it(outer):
    def work():
        hierarchies = enter_namespace(outer)
        hierarchies.prepare_parent("inner/std", [])
        group = hierarchies.open_group("inner/std/one")
        group.create()
        group.apply({"memory": {"limit": 64 * MIB}})
        return cgroup_stats.collect(group)["memory"]["limit"], Path("/proc/self/cgroup").read_text()

    with Waiting(outer.enter) as other:
        assert in_child(work) == (64 * MIB, "0::/init\n")
        assert Path(f"/proc/{other.pid}/cgroup").read_text() == f"0::/{outer.path}/init\n"
        os.kill(other.pid, signal.SIGKILL)


def test_a_group_below_the_top_that_has_processes_is_an_error_with_a_remedy(outer):
    def work():
        hierarchies = cgroups.detect()
        try:
            hierarchies.open_group(f"{outer.path}/inner/one").create()
        except Unsupported as error:
            return error.message
        return ""

    with Waiting(outer.enter):
        assert "it has processes of its own" in in_child(work)


def test_an_engine_runs_in_a_container(
    engine: EngineProcess, docker_cli: Callable[..., Outcome], busybox_tar: bytes, tmp_path: Path
) -> None:
    archive = tmp_path / "busybox.tar"
    archive.write_bytes(busybox_tar)
    done = docker_cli(
        *("run", "--rm", "--privileged", "--cgroupns", "private", "--network", "none"),
        *("--tmpfs", "/var/lib/in:exec", "--tmpfs", "/run", "-v", f"{archive}:/busybox.tar"),
        *("-e", f"PYTHONPATH={ROOT / 'src'}", "-w", "/", "host", "sh", "-c"),
        NESTED.format(python=sys.executable),
    )
    assert done.code == 0, str(done)
    assert done.out.split() == ["0::/", str(64 * MIB), "0::/init"]
