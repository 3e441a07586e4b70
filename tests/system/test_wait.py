"""Waiting for containers: not running, the next exit, the removal."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import docker
import pytest

from support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from docker.models.containers import Container

EXIT_ON_USR1 = "trap 'exit 7' USR1; echo ready; while :; do sleep 0.1; done"


@pytest.fixture
def waiters() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


@pytest.fixture
def container(docker_py: docker.DockerClient) -> Container:
    """A container that is created and would exit with 7 when it gets SIGUSR1."""
    return docker_py.containers.create(
        "busybox", ["sh", "-c", EXIT_ON_USR1], name="awaited", network_mode="none"
    )


def start(container: Container) -> None:
    container.start()
    wait_for(lambda: b"ready" in container.logs(), "it is ready")


def test_what_does_not_run_is_not_waited_for(container: Container) -> None:
    assert container.wait(condition="not-running")["StatusCode"] == 0
    start(container)
    container.kill("USR1")
    assert container.wait()["StatusCode"] == 7
    assert container.wait()["StatusCode"] == 7


def test_the_next_exit_is_waited_for_before_the_start(
    container: Container, waiters: ThreadPoolExecutor
) -> None:
    waiting = waiters.submit(container.wait, condition="next-exit")
    start(container)
    assert not waiting.done()
    container.kill("USR1")
    assert waiting.result(60)["StatusCode"] == 7


def test_the_removal_is_waited_for(container: Container, waiters: ThreadPoolExecutor) -> None:
    start(container)
    waiting = waiters.submit(container.wait, condition="removed")
    container.kill("USR1")
    assert container.wait()["StatusCode"] == 7
    assert not waiting.done()
    container.remove()
    assert waiting.result(60)["StatusCode"] == 7


def test_other_conditions_are_refused(container: Container) -> None:
    with pytest.raises(docker.errors.APIError, match='invalid condition: "bogus"'):
        container.wait(condition="bogus")
