"""Healthchecks, as clients see them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from support.waiting import wait_for

if TYPE_CHECKING:
    from support.engine import EngineProcess

QUICK = ("--health-interval", "50ms", "--health-retries", "2")
SLEEP = ("busybox", "sleep", "1000")


def run(engine: EngineProcess, name: str, *flags: str) -> None:
    """Run a container that only has to be well."""
    done = engine.docker("run", "-d", "--name", name, "--network", "none", *flags, *SLEEP)
    assert done.code == 0, str(done)


def health(engine: EngineProcess, name: str) -> dict[str, object]:
    state = engine.inspect(name)["State"]
    assert isinstance(state, dict)
    found = state["Health"]
    assert isinstance(found, dict)
    return found


def wait_health(engine: EngineProcess, name: str, status: str) -> dict[str, object]:
    wait_for(lambda: health(engine, name)["Status"] == status, f"{name} is {status}")
    return health(engine, name)


def test_a_container_becomes_healthy_and_unhealthy(engine: EngineProcess) -> None:
    command = "test -e /well && echo is well || { echo is ill; exit 3; }"
    run(engine, "checked", "--health-cmd", command, *QUICK)
    found = wait_health(engine, "checked", "unhealthy")
    assert found["FailingStreak"] >= 2  # type: ignore[operator]
    last = found["Log"][-1]  # type: ignore[index]
    assert (last["ExitCode"], last["Output"]) == (3, "is ill\n")
    engine.docker("exec", "checked", "touch", "/well")
    found = wait_health(engine, "checked", "healthy")
    assert found["FailingStreak"] == 0
    assert found["Log"][-1]["Output"] == "is well\n"  # type: ignore[index]
    ps = engine.docker("ps", "--filter", "health=healthy", "--format", "{{.Names}} {{.Status}}")
    assert ps.out.startswith("checked Up ")
    assert ps.out.endswith(" (healthy)\n")
    assert engine.docker("ps", "-q", "--filter", "health=unhealthy").out == ""


def test_it_is_starting_until_the_first_answer_and_failures_do_not_count_meanwhile(
    engine: EngineProcess,
) -> None:
    run(engine, "slow", "--health-cmd", "false", *QUICK, "--health-start-period", "1000s")
    assert health(engine, "slow") == {"Status": "starting", "FailingStreak": 0, "Log": []}
    ps = engine.docker("ps", "--format", "{{.Status}}").out
    assert ps.endswith(" (health: starting)\n")
    run(
        engine,
        "failing",
        *("--health-cmd", "false", *QUICK, "--health-start-period", "1000s"),
        *("--health-start-interval", "50ms"),
    )
    wait_for(lambda: health(engine, "failing")["Log"], "a probe has failed")
    assert health(engine, "failing")["Status"] == "starting"
    assert health(engine, "failing")["FailingStreak"] == 0


def test_a_probe_that_takes_too_long_is_ended(engine: EngineProcess) -> None:
    run(
        engine,
        "stuck",
        "--health-cmd",
        "echo begun; sleep 1000",
        *QUICK,
        "--health-timeout",
        "200ms",
    )
    found = wait_health(engine, "stuck", "unhealthy")
    last = found["Log"][-1]  # type: ignore[index]
    assert last["ExitCode"] == -1
    assert last["Output"] == "Health check exceeded timeout (200ms): begun\n"


def test_a_probe_that_is_not_there_fails(engine: EngineProcess) -> None:
    body = {
        "Image": "busybox",
        "Cmd": ["sleep", "1000"],
        "Healthcheck": {"Test": ["CMD", "/not/there"], "Interval": 50_000_000, "Retries": 1},
        "HostConfig": {"NetworkMode": "none"},
    }
    assert engine.request("POST", "/containers/create?name=absent", body)[0] == 201
    state = engine.inspect("absent")["State"]
    assert isinstance(state, dict)
    assert "Health" not in state
    assert engine.request("POST", "/containers/absent/start")[0] == 204
    found = wait_health(engine, "absent", "unhealthy")
    last = found["Log"][-1]  # type: ignore[index]
    assert last["ExitCode"] != 0
    assert "/not/there" in last["Output"]


def test_long_output_is_cut(engine: EngineProcess) -> None:
    run(engine, "loud", "--health-cmd", "yes | head -c 100000", *QUICK)
    found = wait_health(engine, "loud", "healthy")
    assert found["Log"][0]["Output"] == "y\n" * 2048 + "..."  # type: ignore[index]


def test_the_images_check_is_used_unless_it_is_switched_off(
    engine: EngineProcess, busybox_tar: bytes
) -> None:
    check = "HEALTHCHECK --interval=50ms CMD true"
    made = engine.docker("import", "-c", check, "-", "checked:latest", stdin=busybox_tar)
    assert made.code == 0, str(made)
    try:
        args = ("-d", "--network", "none")
        for name, flags in (("by-image", ()), ("by-nobody", ("--no-healthcheck",))):
            done = engine.docker("run", *args, "--name", name, *flags, "checked", "sleep", "1000")
            assert done.code == 0, str(done)
        wait_health(engine, "by-image", "healthy")
        state = engine.inspect("by-nobody")["State"]
        assert isinstance(state, dict)
        assert "Health" not in state
        assert engine.docker("ps", "--filter", "health=none", "--format", "{{.Names}}").lines == [
            "by-nobody"
        ]
        engine.remove_containers()
    finally:
        engine.docker("rmi", "checked")


def test_changes_are_events_and_a_stopped_container_is_not_checked(engine: EngineProcess) -> None:
    run(engine, "told", "--health-cmd", "true", *QUICK)
    wait_health(engine, "told", "healthy")
    engine.docker("kill", "told")
    wait_for(lambda: health(engine, "told")["Status"] == "unhealthy", "the checks have ended")
    engine.docker("start", "told")
    wait_health(engine, "told", "healthy")
    _, info = engine.request("GET", "/info")
    assert isinstance(info, dict)
    filters = json.dumps({"container": ["told"], "event": ["health_status", "exec_die"]})
    _, _, data = engine.exchange(
        "GET", f"/events?since=1&until={info['SystemTime']}&filters={filters.replace(' ', '')}"
    )
    actions = [json.loads(line)["Action"] for line in data.splitlines()]
    assert actions.count("health_status: healthy") == 2
    assert "exec_die" in actions


@pytest.mark.berth_only
def test_checks_go_on_after_the_engine_was_killed(fresh_engine: EngineProcess) -> None:
    run(fresh_engine, "kept", "--health-cmd", "true", *QUICK)
    wait_health(fresh_engine, "kept", "healthy")
    fresh_engine.restart()
    wait_health(fresh_engine, "kept", "healthy")
    assert fresh_engine.is_running
