"""Measuring engines in turn: what one is slowed by, the others are too."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bench import report
from bench.engines import Berth, Engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from bench.accounts import Cost

    Measure = Callable[[], Cost]


@dataclass
class Bench:
    """The engines of one benchmark, how thorough it is, and what was found."""

    base: Path
    engines: list[Engine]
    rounds: int
    quick: bool
    costs: dict[str, dict[str, list[Cost]]] = field(default_factory=dict)
    megabytes: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def berth(self) -> Berth:
        """Return berth, which always takes part."""
        return next(e for e in self.engines if isinstance(e, Berth))

    def of(self, *kinds: type[Engine]) -> list[Engine]:
        """Return the engines of some kinds."""
        return [e for e in self.engines if isinstance(e, kinds)]

    def compare(self, case: str, measures: dict[str, Measure], rounds: int | None = None) -> None:
        """Measure in turn and print."""
        self.add(case, interleaved(measures, rounds or self.rounds))

    def add(self, case: str, row: dict[str, list[Cost]]) -> None:
        """Keep and print what was measured."""
        self.costs[case] = row
        report.costs(case, row)

    def each(self, case: str, measure: Callable[[Engine], Cost], engines: Iterable[Engine]) -> None:
        """Measure the same with several engines."""
        self.compare(case, {e.name: (lambda e=e: measure(e)) for e in engines})


def interleaved(measures: dict[str, Measure], rounds: int) -> dict[str, list[Cost]]:
    """Measure all in turn; the first of each warms up. What fails then is left out."""
    found: dict[str, list[Cost]] = {}
    for name, measure in measures.items():
        try:
            measure()
        except (RuntimeError, OSError) as error:
            complain(name, error)
        else:
            found[name] = []
    for number in range(rounds):
        names = list(found)
        # Nobody is always the one that comes after the same other.
        for name in names[number % len(names) :] + names[: number % len(names)] if names else ():
            try:
                found[name].append(measures[name]())
            except (RuntimeError, OSError) as error:
                complain(name, error)
    return {name: costs for name, costs in found.items() if costs}


failures: list[str] = []


def complain(name: str, error: BaseException) -> None:
    """Say that a measurement failed; the benchmark's exit code tells it too."""
    failures.append(name)
    print(f"{name} failed: {str(error)[-400:]}", file=sys.stderr, flush=True)
