"""Single commands of the docker CLI on a container: create, start, exec, stop."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from bench.engines import IMAGE
from bench.measure import complain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.accounts import Cost
    from bench.engines import Engine
    from bench.measure import Bench

NONE = ("--network", "none")
READY_S = 10.0
# Ends at once on TERM, which the first process of a container does only with a handler for it.
ENDS_ON_TERM = "trap 'exit 0' TERM; echo ready; while :; do sleep 60 & wait; done"


def create(bench: Bench) -> None:
    """`docker create`."""
    bench.each("create", _create, bench.engines)


def _create(engine: Engine) -> Cost:
    name = "bench-create"
    command = engine.command("create", "--name", name, *engine.flags(), *NONE, IMAGE, "true")
    try:
        return engine.spawner.cost(command)
    finally:
        _rest(engine, "rm", "-f", name)


def start(bench: Bench) -> None:
    """`docker start` of a created container that sleeps."""
    bench.each("start", _start, bench.engines)


def _start(engine: Engine) -> Cost:
    container = engine.ask("create", *engine.flags(), *NONE, IMAGE, "sleep", "600")
    engine.account.settled_s()
    try:
        return engine.spawner.cost(engine.command("start", container))
    finally:
        _rest(engine, "rm", "-f", container)


def execute(bench: Bench) -> None:
    """`docker exec` in a running container."""
    with contextlib.ExitStack() as undo:
        running = {e.name: undo.enter_context(_running(e, "sleep", "3600")) for e in bench.engines}
        bench.each(
            "exec",
            lambda e: e.spawner.cost(e.command("exec", running[e.name], "true")),
            bench.engines,
        )


@contextlib.contextmanager
def _running(engine: Engine, *command: str) -> Iterator[str]:
    container = engine.ask("run", "-d", *engine.flags(), *NONE, IMAGE, *command)
    try:
        yield container
    finally:
        _rest(engine, "rm", "-f", container)


def stop(bench: Bench) -> None:
    """`docker stop` of a container that ends at once on TERM."""
    bench.each("stop", _stop, bench.engines)


def _stop(engine: Engine) -> Cost:
    with _running(engine, "sh", "-c", ENDS_ON_TERM) as container:
        end = time.monotonic() + READY_S
        while "ready" not in engine.ask("logs", container):
            if time.monotonic() > end:
                raise RuntimeError(f"{engine.name}: the container to stop does not get ready")
        engine.account.settled_s()
        return engine.spawner.cost(engine.command("stop", container))


def _rest(engine: Engine, *command: str) -> None:
    """Clean up, and wait until that is paid for."""
    try:
        engine.ask(*command)
    except RuntimeError as error:
        complain(engine.name, error)
    engine.account.settled_s()
