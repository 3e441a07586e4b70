"""Bytes: output to the log, from the log, to an attached client."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.engines import IMAGE, BerthCli
from bench.image import LINES, LINES_MIB
from bench.verbs import NONE

if TYPE_CHECKING:
    from bench.accounts import Cost
    from bench.engines import Engine
    from bench.measure import Bench

FEW = 3  # rounds of what takes seconds


def logs(bench: Bench) -> None:
    """Write lines to the log (start and wait), read them back, and write them with a client attached."""
    times = 1 if bench.quick else 8
    size = f"{times * LINES_MIB} MiB"
    rounds = min(FEW, bench.rounds)
    engines = [e for e in bench.engines if not isinstance(e, BerthCli)]
    command = ["cat", *[LINES] * times]
    read: dict[str, list[Cost]] = {}

    def written(engine: Engine) -> Cost:
        container = engine.ask("create", *engine.flags(), *NONE, IMAGE, *command)
        try:
            cost = engine.spawner.cost_in_turn(
                [engine.command("start", container), engine.command("wait", container)]
            )
            read.setdefault(engine.name, []).append(
                engine.spawner.cost(engine.command("logs", container))
            )
        finally:
            engine.ask("rm", "-f", container)
        return cost

    bench.compare(f"log {size}", {e.name: lambda e=e: written(e) for e in engines}, rounds)
    # The first of each was the warming up.
    bench.add(f"read log of {size}", {name: costs[1:] for name, costs in read.items()})
    bench.compare(
        f"attached {size}",
        {
            e.name: lambda e=e: e.spawner.cost(
                e.command("run", "--rm", *e.flags(), *NONE, IMAGE, *command)
            )
            for e in engines
        },
        rounds,
    )
