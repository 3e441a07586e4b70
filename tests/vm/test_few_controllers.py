"""A machine whose kernel limits neither memory nor the number of processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.programs import Outcome

    Cli = Callable[..., Outcome]

pytestmark = pytest.mark.machine("cgroup_disable=memory,pids")
ALONE = ("--network", "none")


def test_what_is_not_limited_is_said(docker_cli: Cli) -> None:
    shown = docker_cli(
        "info", "--format", "{{.MemoryLimit}} {{.SwapLimit}} {{.PidsLimit}} {{.CPUSet}}"
    )
    assert shown.out == "false false false true\n"
    warnings = docker_cli("info").err
    assert "WARNING: No memory limit support" in warnings
    assert "WARNING: No swap limit support" in warnings


def test_limits_are_discarded_with_dockers_warnings(docker_cli: Cli) -> None:
    done = docker_cli(
        *("run", "--rm", *ALONE, "-m", "64m", "--memory-reservation", "32m", "--pids-limit", "9"),
        *("--cpus", "0.5", "busybox", "cat", "/sys/fs/cgroup/cpu.max"),
    )
    assert (done.code, done.out) == (0, "50000 100000\n"), str(done)
    for text in (
        "Your kernel does not support memory limit capabilities or the cgroup is not mounted."
        " Limitation discarded.",
        "Your kernel does not support memory soft limit capabilities or the cgroup is not mounted."
        " Limitation discarded.",
        "Your kernel does not support PIDs limit capabilities or the cgroup is not mounted."
        " PIDs limit discarded.",
    ):
        assert f"WARNING: {text}" in done.err


def test_statistics_count_what_they_can(docker_cli: Cli) -> None:
    assert docker_cli("run", "-d", "--name", "poor", *ALONE, "busybox", "sleep", "1000").code == 0
    shown = docker_cli("stats", "--no-stream", "--format", "{{.MemUsage}} {{.PIDs}}", "poor")
    assert shown.out.startswith("0B / ")
    assert shown.out.endswith(" 1\n")
    assert docker_cli("pause", "poor").code == 0
    assert docker_cli("rm", "-f", "poor").code == 0
