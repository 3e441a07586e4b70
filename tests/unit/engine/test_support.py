"""What a kernel without some limits does with a request for them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from berth.engine.models import HostConfig
from berth.engine.support import Support, discard
from berth.errors import InvalidArgument

EVERYTHING = Support(**dict.fromkeys(Support.__slots__, True))
NOTHING = Support(**dict.fromkeys(Support.__slots__, False))
MIB = 1 << 20


def asked() -> HostConfig:
    return HostConfig(
        memory=64 * MIB,
        memory_reservation=32 * MIB,
        memory_swappiness=10,
        oom_kill_disable=True,
        pids_limit=9,
        cpu_shares=512,
        cpu_quota=50_000,
        cpuset_cpus="0",
    )


def test_nothing_is_discarded_where_every_limit_is_there():
    host = asked()
    assert discard(host, EVERYTHING) == []
    assert host == asked()
    assert EVERYTHING.warnings() == []


def test_everything_is_discarded_and_told_where_no_limit_is_there():
    host = asked()
    assert [
        text.removeprefix("Your kernel does not support ") for text in discard(host, NOTHING)
    ] == [
        "memory limit capabilities or the cgroup is not mounted. Limitation discarded.",
        "memory soft limit capabilities or the cgroup is not mounted. Limitation discarded.",
        "memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded.",
        "OomKillDisable. OomKillDisable discarded.",
        "PIDs limit capabilities or the cgroup is not mounted. PIDs limit discarded.",
        "CPU shares or the cgroup is not mounted. Shares discarded.",
        "CPU CFS scheduler. CPU period/quota discarded.",
        "cpuset or the cgroup is not mounted. Cpuset discarded.",
    ]
    assert host == HostConfig(memory_swap=-1)
    assert "WARNING: No memory limit support" in NOTHING.warnings()


def test_memory_is_limited_without_swap_where_swap_cannot_be():
    host = HostConfig(memory=64 * MIB)
    assert discard(host, replace(EVERYTHING, swap=False)) == [
        "Your kernel does not support swap limit capabilities or the cgroup is not mounted."
        " Memory limited without swap."
    ]
    assert (host.memory, host.memory_swap) == (64 * MIB, -1)


def test_a_share_of_processors_that_cannot_be_is_refused():
    with pytest.raises(InvalidArgument, match="NanoCPUs can not be set"):
        discard(HostConfig(nano_cpus=500_000_000), replace(EVERYTHING, cfs=False))
