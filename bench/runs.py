"""Whole runs of a container: by the docker CLI, by berth's, by the library; many at once; among many."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

from bench.engines import IMAGE, Berth, BerthCli
from bench.floor import Floor
from bench.library import Library
from bench.measure import interleaved

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.accounts import Cost
    from bench.engines import Engine
    from bench.measure import Bench


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


NETWORKS = {
    "none": ["--network", "none"],
    "host": ["--network", "host"],
    "bridge": [],
    "port": ["-p", f"127.0.0.1:{_free_port()}:80"],
}


NETWORK_ADDED = "library bridge, none"


def run(bench: Bench) -> None:
    """`docker run --rm busybox true`, each kind of network."""
    for network in NETWORKS:
        _run(bench, network)


def _run(bench: Bench, network: str) -> None:
    bench.each(f"run {network}", lambda e: _cost(e, network), bench.engines)


def _cost(engine: Engine, network: str) -> Cost:
    return engine.spawner.cost(engine.run(*NETWORKS[network]))


def library(bench: Bench) -> None:
    """A run over a warm connection beside the kernel's price of the same container, and a network's price."""
    with contextlib.closing(Library(bench.berth)) as warm:
        for network in ("none", "host"):
            floor = Floor(bench.base, network=network == "none")
            with contextlib.closing(floor):
                bench.compare(
                    f"library {network}",
                    {"berth": lambda n=network: warm.run(n), "floor": floor.run},
                    bench.rounds * 2,
                )
        runs = {network: lambda n=network: warm.run(n) for network in ("bridge", "none")}
        bench.compare(NETWORK_ADDED, runs, bench.rounds * 4)


def concurrent(bench: Bench) -> None:
    """Many runs at once, until the last has ended."""
    count, rounds = (5, 1) if bench.quick else (50, 3)
    engines = [e for e in bench.engines if not isinstance(e, BerthCli)]
    for network in ("none", "bridge"):
        bench.compare(
            f"{count} at once, {network}",
            {
                e.name: lambda e=e, n=network: e.spawner.cost_of_many([e.run(*NETWORKS[n])] * count)
                for e in engines
            },
            rounds,
        )


def hundred(bench: Bench) -> None:
    """Many containers started at once that go on, until the last runs."""
    count, rounds = (5, 1) if bench.quick else (100, 2)
    engines = [e for e in bench.engines if not isinstance(e, BerthCli)]
    for network in ("none", "bridge"):
        bench.compare(
            f"{count} that stay, {network}",
            {e.name: lambda e=e, n=network: _started(e, n, count) for e in engines},
            rounds,
        )


def _started(engine: Engine, network: str, count: int) -> Cost:
    names = [f"started{number}" for number in range(count)]
    flags = (*engine.flags(), *NETWORKS[network])
    commands = [
        engine.command("run", "-d", "--name", name, *flags, IMAGE, "sleep", "3600")
        for name in names
    ]
    try:
        return engine.spawner.cost_of_many(commands)
    finally:
        engine.ask("rm", "-f", *names)
        engine.account.settled_s()


def crowd(bench: Bench) -> None:
    """A run among many idle containers and, before and after, without them."""
    count = 10 if bench.quick else 200
    networks = ("none", "bridge")

    def measured() -> dict[str, list[Cost]]:
        return interleaved(
            {network: lambda n=network: _cost(bench.berth, n) for network in networks},
            bench.rounds,
        )

    before = measured()
    with _idle(bench.berth, count):
        among = measured()
    after = measured()
    for network in networks:
        bench.add(
            f"run {network} among {count}",
            {"berth": among[network], "alone": before[network] + after[network]},
        )


@contextlib.contextmanager
def _idle(engine: Berth, count: int) -> Iterator[None]:
    """Keep ``count`` sleeping containers, half of them on the bridge."""
    with contextlib.closing(Library(engine)) as warm:
        ids: list[str] = []
        try:
            ids.extend(
                warm.start("bridge" if number % 2 else "none", ["sleep", "3600"])
                for number in range(count)
            )
            engine.account.settled_s()
            yield
        finally:
            for container in ids:
                warm.remove(container)
            engine.account.settled_s()
