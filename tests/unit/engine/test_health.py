"""When a container counts as healthy."""

from __future__ import annotations

import pytest

from berth.engine.health import Result, State, delay_ns, probe
from berth.engine.models import ContainerConfig, Healthcheck

SECOND = 1_000_000_000


def result(exit_code: int) -> Result:
    return Result(start_ns=0, end_ns=0, exit_code=exit_code, output="")


@pytest.mark.parametrize(
    ("test", "command"),
    [
        (None, None),
        ([], None),
        (["NONE"], None),
        (["SOMETHING", "x"], None),
        (["CMD", "a", "b"], ["a", "b"]),
        (["CMD"], []),
        (["CMD-SHELL", "a b"], ["/bin/sh", "-c", "a b"]),
    ],
)
def test_what_is_run(test: list[str] | None, command: list[str] | None) -> None:
    assert probe(ContainerConfig(healthcheck=Healthcheck(test=test))) == command
    assert probe(ContainerConfig()) is None


def test_the_images_shell_is_used() -> None:
    config = ContainerConfig(shell=["/bin/ash"], healthcheck=Healthcheck(test=["CMD-SHELL", "x"]))
    assert probe(config) == ["/bin/ash", "x"]


def test_one_success_is_healthy_and_so_many_failures_are_not() -> None:
    state, check = State(), Healthcheck(retries=2)
    assert [state.note(result(code), check, 0) for code in (1, 0, 0, 1, 1, 1, 0)] == [
        *(False, True, False, False, True, False, True)
    ]
    assert (state.status, state.streak) == ("healthy", 0)


def test_failures_while_it_starts_do_not_count() -> None:
    state, check = State(), Healthcheck(retries=1, start_period=10 * SECOND)
    assert not state.note(result(1), check, 9 * SECOND)
    assert state.streak == 0
    assert state.note(result(1), check, 10 * SECOND)
    assert state.status == "unhealthy"


def test_the_last_five_results_are_kept() -> None:
    state = State()
    for code in range(7):
        state.note(result(code), Healthcheck(), 0)
    log = state.document()["Log"]
    assert isinstance(log, list)
    assert [entry["ExitCode"] for entry in log] == [2, 3, 4, 5, 6]


def test_probes_come_quicker_while_it_starts() -> None:
    times = {"interval": 30 * SECOND, "start_period": 100 * SECOND, "start_interval": 5 * SECOND}
    check = Healthcheck(**times)
    assert delay_ns(check, State(), 0) == 5 * SECOND
    assert delay_ns(check, State(status="healthy"), 0) == 30 * SECOND
    assert delay_ns(check, State(), 100 * SECOND) == 30 * SECOND
    assert delay_ns(Healthcheck(), State(), 0) == 30 * SECOND


@pytest.mark.parametrize("said", [1, -1, -(1 << 60)])
def test_an_image_does_not_have_the_engine_probe_without_a_pause(said: int) -> None:
    check = Healthcheck(interval=said, start_interval=said, start_period=SECOND)
    assert delay_ns(check, State(), 0) == delay_ns(check, State(), SECOND) == 1_000_000
