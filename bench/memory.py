"""What idle containers cost besides their own process, and what the daemons take."""

from __future__ import annotations

import contextlib
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bench.engines import IMAGE, Berth, Dockerd, Engine, Podman
from bench.verbs import NONE

if TYPE_CHECKING:
    from bench.measure import Bench

MB = 1e6
KIB = 1024
REST_S = 1.0  # what came with a start is given back by then


def amount(pid: int, *fields: str) -> int:
    """Return bytes from smaps_rollup; 0 for a process that has gone."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return sum(int(line.split()[1]) * KIB for line in lines if line.startswith(fields))
    return 0


def memory(bench: Bench) -> None:
    """Measure every engine idle, then with sleeping containers."""
    count = 3 if bench.quick else 10
    for engine in bench.of(Berth, Dockerd, Podman):
        bench.megabytes[engine.name] = _measure(engine, count)
        for what, value in bench.megabytes[engine.name].items():
            print(f"memory, {engine.name:10} {what:44} {value:8.2f} MB", flush=True)
    print()


def _measure(engine: Engine, count: int) -> dict[str, float]:
    figures: dict[str, float] = {}
    engine.account.settled_s()
    idle = _family(engine, set())
    if engine.daemon is not None:
        figures["daemon resident"] = amount(engine.daemon.pid, "Rss:") / MB
        figures["daemon and its helpers, proportional"] = idle / MB
    ids = [
        engine.ask("run", "-d", *engine.flags(), *NONE, IMAGE, "sleep", "600") for _ in range(count)
    ]
    try:
        engine.account.settled_s()
        time.sleep(REST_S)
        keepers = [sum(amount(p, "Private_") for p in engine.keeper(id_)) for id_ in ids]
        contained = {int(engine.ask("inspect", "-f", "{{.State.Pid}}", id_)) for id_ in ids}
        figures["keeper of a container, private"] = statistics.median(keepers) / MB
        grown = _family(engine, contained) - idle
        figures["all told for a container, proportional"] = grown / count / MB
    finally:
        engine.ask("rm", "-f", *ids)
    return figures


def _family(engine: Engine, without: set[int]) -> int:
    """Return the proportional memory of all the engine's processes but the containers' own."""
    return sum(amount(pid, "Pss:") for pid in engine.account.processes() - without)
