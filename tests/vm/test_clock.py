"""A machine whose clock jumps: whatever waits, waits as long as it would have."""

from __future__ import annotations

import json
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from support.programs import find
from support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.engine import EngineProcess

DAY_S = 86_400
ALONE = ("--network", "none")


@pytest.fixture(params=[400, -400], ids=["forward", "backward"])
def days(request: pytest.FixtureRequest) -> Iterator[int]:
    """How far a test may let the clock jump; it is put back."""
    real, steady = time.time(), time.monotonic()
    yield request.param
    time.clock_settime(time.CLOCK_REALTIME, real + time.monotonic() - steady)


def jump(days: int) -> None:
    time.clock_settime(time.CLOCK_REALTIME, time.time() + days * DAY_S)


def test_containers_go_on_when_the_clock_jumps(fresh_engine: EngineProcess, days: int) -> None:
    docker = fresh_engine.docker
    script = "trap exit TERM; i=0; while :; do echo $i; i=$((i+1)); sleep 0.2; done"
    health = ("--health-cmd", "true", "--health-interval", "1s")
    assert (
        docker("run", "-d", "--name", "up", *health, *ALONE, "busybox", "sh", "-c", script).code
        == 0
    )
    again = ("--restart", "always", *ALONE, "busybox", "sh", "-c", "sleep 0.5; exit 3")
    assert docker("run", "-d", "--name", "again", *again).code == 0
    command = [find("docker"), "-H", fresh_engine.host, "logs", "-f", "up"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout is not None
        assert following.stdout.readline() == "0\n"
        jump(days)
        probes, restarts = probed(fresh_engine), fresh_engine.inspect("again")["RestartCount"]
        wait_for(lambda: probed(fresh_engine) != probes, "it is probed again", timeout_s=60)
        wait_for(
            lambda: fresh_engine.inspect("again")["RestartCount"] > restarts,
            "it is started again",
            timeout_s=60,
        )
        found = fresh_engine.inspect("up")["State"]
        assert (found["Status"], found["Health"]["Status"]) == ("running", "healthy")
        shown = docker("ps", "--filter", "name=up", "--format", "{{.Status}}").out
        assert shown.startswith("Up Less than a second" if days < 0 else "Up 13 months"), shown
        assert docker("exec", "up", "echo", "fine").out == "fine\n"
        begin = time.monotonic()
        assert docker("stop", "-t", "60", "up").code == 0
        assert time.monotonic() - begin < 60
        numbers = [0, *map(int, following.stdout)]
        assert numbers == list(range(len(numbers)))
    assert docker("rm", "-f", "again", "up").code == 0


def probed(engine: EngineProcess) -> str:
    """Return when the last probe began."""
    log = engine.inspect("up")["State"]["Health"]["Log"]  # type: ignore[index]
    return log[-1]["Start"] if log else ""


def test_events_go_on_when_the_clock_jumps(fresh_engine: EngineProcess, days: int) -> None:
    flags = ("--filter", "type=container", "--format", "{{json .}}")
    command = [find("docker"), "-H", fresh_engine.host, "events", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as listening:
        assert listening.stdout is not None
        try:
            wait_for(
                lambda: fresh_engine.request("GET", "/info")[1]["NEventsListener"], "it listens"
            )
            jump(days)
            assert fresh_engine.docker("run", "--rm", *ALONE, "busybox", "true").code == 0
            actions = [json.loads(listening.stdout.readline())["Action"] for _ in range(5)]
        finally:
            listening.kill()
    assert actions == ["create", "attach", "start", "die", "destroy"]
