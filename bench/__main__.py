"""Run everything interleaved and print medians and ratios."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bench import memory, report
from bench.engines import Berth, BerthCli, Dockerd, Engine, Podman, program, tmpfs
from bench.floor import Floor
from bench.image import busybox
from bench.library import Library

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.accounts import Cost

PORT = 18080
NETWORKS = {
    "none": ["--network", "none"],
    "host": ["--network", "host"],
    "bridge": [],
    "bridge + port": ["-p", f"127.0.0.1:{PORT}:80"],
}


class Results(dict[str, dict[str, list["Cost"]]]):
    """Costs by case and engine; each case is printed when it is known."""

    def __setitem__(self, case: str, row: dict[str, list[Cost]]) -> None:
        super().__setitem__(case, row)
        report.costs(case, row)


def main() -> int:
    options = _options()
    rounds = options.rounds or (5 if options.quick else 25)
    with tmpfs() as base, contextlib.ExitStack() as undo:
        engines = list(_engines(base, undo, options.without))
        print(f"engines: {', '.join(e.name for e in engines)}; {rounds} rounds, interleaved\n")
        table = Results()
        report.heading()
        _runs(engines, rounds, table)
        _floor(engines, base, rounds, table)
        _concurrent(engines, 10 if options.quick else 50, 1 if options.quick else 3, table)
        report.memory(memory.measure(engines, 3 if options.quick else 10))
        if options.json:
            Path(options.json).write_text(json.dumps(report.figures(table), indent=1))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="few rounds: a smoke test, not a figure"
    )
    parser.add_argument("--rounds", type=int, help="rounds of each case")
    parser.add_argument("--without", action="append", default=[], help="leave an engine out")
    parser.add_argument("--json", help="write all medians there")
    return parser.parse_args()


def _engines(base: Path, undo: contextlib.ExitStack, without: list[str]) -> Iterator[Engine]:
    archive = busybox()

    def opened(engine: Engine) -> Engine:
        undo.callback(engine.close)
        return engine

    berth = Berth(base)
    yield opened(berth)
    berth.load(archive)
    if "berth-cli" not in without:
        yield opened(BerthCli(base, berth))
    for kind, name in ((Dockerd, "dockerd"), (Podman, "podman")):
        if kind.name in without:
            continue
        if program(name) is None:
            print(f"without {name}: it is not installed", file=sys.stderr)
            continue
        engine = opened(kind(base))
        engine.load(archive)
        yield engine


def _runs(engines: list[Engine], rounds: int, table: Results) -> None:
    for title, flags in NETWORKS.items():
        cases = {e.name: _case(e, e.run(*flags)) for e in engines}
        table[f"run, {title}"] = _interleaved(cases, rounds)


def _case(engine: Engine, command: list[str]) -> Callable[[], Cost]:
    return lambda: engine.spawner.cost(command)


def _interleaved(cases: dict[str, Callable[[], Cost]], rounds: int) -> dict[str, list[Cost]]:
    """Measure all cases in turn; the first of each warms up. A case that fails is left out."""
    found: dict[str, list[Cost]] = {}
    for name, measure in cases.items():
        try:
            measure()
        except (RuntimeError, OSError) as error:
            print(f"without {name}: {str(error)[-400:]}", file=sys.stderr)
        else:
            found[name] = []
    for _ in range(rounds):
        for name in list(found):
            try:
                found[name].append(cases[name]())
            except RuntimeError as error:
                print(f"{name} failed: {str(error)[-400:]}", file=sys.stderr)
    return {name: costs for name, costs in found.items() if costs}


def _floor(engines: list[Engine], base: Path, rounds: int, table: Results) -> None:
    berth = next(e for e in engines if isinstance(e, Berth))
    library = Library(berth)
    for title, network in (("none", "none"), ("host", "host")):
        floor = Floor(base, network=title == "none")
        table[f"library, {title}"] = _interleaved(
            {"berth": lambda network=network: library.run(network), "floor": floor.run},
            rounds * 2,
        )
    library.close()


def _concurrent(engines: list[Engine], count: int, rounds: int, table: Results) -> None:
    for title in ("none", "bridge"):
        cases = {
            e.name: (
                lambda e=e, title=title: e.spawner.cost_of_many([e.run(*NETWORKS[title])] * count)
            )
            for e in engines
            if e.name != "berth-cli"
        }
        table[f"{count} at once, {title}"] = _interleaved(cases, rounds)


if __name__ == "__main__":
    sys.exit(main())
