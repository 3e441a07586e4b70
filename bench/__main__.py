"""Measure the cases in turn, print medians and ratios, and what has a target beside it."""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bench import (
    measure,
    memory,
    names,
    queries,
    report,
    runs,
    runtimes,
    streams,
    targets,
    traffic,
    transfers,
    verbs,
)
from bench.engines import Berth, BerthCli, Dockerd, Engine, Podman, call, program, tmpfs
from bench.image import busybox
from bench.measure import Bench

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CASES: dict[str, Callable[[Bench], None]] = {
    "run": runs.run,
    "library": runs.library,
    "exec": verbs.execute,
    "create": verbs.create,
    "start": verbs.start,
    "stop": verbs.stop,
    "concurrent": runs.concurrent,
    "hundred": runs.hundred,
    "memory": memory.memory,
    "queries": queries.queries,
    "logs": streams.logs,
    "traffic": traffic.traffic,
    "names": names.names,
    "images": transfers.transfers,
    "crowd": runs.crowd,
    "oci": runtimes.runtimes,
}
KINDS = (Berth, BerthCli, Dockerd, Podman)


def main() -> int:
    """Run the benchmark; 1 when a measurement failed."""
    options = _options()
    # So that everything is taken down when the benchmark is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tmpfs() as base, contextlib.ExitStack() as undo:
        engines = list(_engines(base, undo, options.without))
        rounds = options.rounds or (3 if options.quick else 15)
        bench = Bench(base, engines, rounds, options.quick)
        _introduce(bench)
        report.heading()
        for case in options.only or CASES:
            CASES[case](bench)
        report.summary(targets.verdicts(bench))
        if options.json:
            found = {"costs": report.figures(bench.costs), "megabytes": bench.megabytes}
            Path(options.json).write_text(json.dumps(found, indent=1))
    return 1 if measure.failures else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="few rounds, small sizes: a smoke test, no figures"
    )
    parser.add_argument("--rounds", type=int, help="rounds of each case")
    parser.add_argument("--only", action="append", choices=CASES, help="measure this case only")
    parser.add_argument(
        "--without", action="append", default=[], choices=[kind.name for kind in KINDS[1:]]
    )
    parser.add_argument("--json", help="write all medians there")
    return parser.parse_args()


def _engines(base: Path, undo: contextlib.ExitStack, without: list[str]) -> Iterator[Engine]:
    image = busybox()

    def opened(engine: Engine) -> Engine:
        undo.callback(engine.close)
        return engine

    berth = Berth(base)
    yield opened(berth)
    berth.load(image)
    if "berth-cli" not in without:
        yield opened(BerthCli(base, berth))
    for kind in (Dockerd, Podman):
        if kind.name in without:
            continue
        if program(kind.name) is None:
            print(f"without {kind.name}: it is not installed", file=sys.stderr)
            continue
        engine = opened(kind(base))
        engine.load(image)
        yield engine


def _introduce(bench: Bench) -> None:
    """Print what the figures depend on."""
    print(f"kernel {platform.release()}, Python {platform.python_version()}")
    for engine in bench.engines:
        print(f"{engine.name}: {engine.version()}")
    client = program("docker")
    print(f"docker CLI of all: {call(client, '--version').strip() if client else 'missing'}")
    print(f"{bench.rounds} rounds, in turn; medians\n")


if __name__ == "__main__":
    sys.exit(main())
