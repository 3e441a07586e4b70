"""Bytes: output to the log, from the log, to an attached client; images from and to archives."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

from bench.engines import IMAGE, BerthCli
from bench.image import LINES, LINES_MIB, archive
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


def images(bench: Bench) -> None:
    """Load an image of three layers from a docker archive, and save it to one."""
    source = bench.base / "image.tar"
    source.write_bytes(archive(_tree(bench.quick), "bench:load"))
    engines = [e for e in bench.engines if not isinstance(e, BerthCli)]
    rounds = min(FEW, bench.rounds)

    def loaded(engine: Engine) -> Cost:
        cost = engine.spawner.cost(engine.command("load", "-i", str(source)))
        engine.ask("rmi", "bench:load")
        engine.account.settled_s()
        return cost

    def saved(engine: Engine) -> Cost:
        target = bench.base / f"{engine.name}.tar"
        try:
            return engine.spawner.cost(engine.command("save", "-o", str(target), "bench:load"))
        finally:
            target.unlink(missing_ok=True)

    title = f"{source.stat().st_size >> 20} MiB"
    bench.compare(f"load {title}", {e.name: lambda e=e: loaded(e) for e in engines}, rounds)
    for engine in engines:
        engine.ask("load", "-i", str(source))
    bench.compare(f"save {title}", {e.name: lambda e=e: saved(e) for e in engines}, rounds)
    for engine in engines:
        engine.ask("rmi", "bench:load")
    source.unlink()


def _tree(quick: bool) -> list[bytes]:
    """Return layers with real files of this machine: Python's library, in three parts."""
    files = sorted(p for p in Path(io.__file__).parent.rglob("*.py") if p.is_file())
    files = files[:60] if quick else files
    layers = []
    for part in range(3):
        body = io.BytesIO()
        with tarfile.open(fileobj=body, mode="w") as layer:
            for path in files[part::3]:
                layer.add(path, f"layer{part}/{path.relative_to('/')}", recursive=False)
        layers.append(body.getvalue())
    return layers
