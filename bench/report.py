"""Medians, ratios and verdicts as text."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bench.accounts import Cost
    from bench.targets import Verdict

    Table = dict[str, dict[str, list[Cost]]]

# Against whom a case is measured: the first that took part.
RIVALS = ("floor", "alone", "none", "dockerd", "podman", "runc")


def figures(table: Table) -> dict[str, dict[str, dict[str, float]]]:
    """Return medians in milliseconds by case and engine."""
    return {
        case: {
            name: {
                "wall_ms": round(statistics.median(c.wall_s for c in costs) * 1e3, 3),
                "wall_min_ms": round(min(c.wall_s for c in costs) * 1e3, 3),
                "cpu_ms": round(statistics.median(c.cpu_s for c in costs) * 1e3, 3),
                "client_ms": round(statistics.median(c.client_s for c in costs) * 1e3, 3),
            }
            for name, costs in row.items()
        }
        for case, row in table.items()
    }


def heading() -> None:
    """Print the columns' names."""
    print(
        f"{'case':24} {'engine':10} {'wall ms':>9} {'min':>9} {'cpu ms':>9} {'client':>7}"
        f" {'wall':>7} {'cpu':>7} {'engine':>7}"
    )


def costs(case: str, row: dict[str, list[Cost]]) -> None:
    """Print a line for each engine, with its ratio to the rival."""
    medians = figures({case: row})[case]
    rival = next((name for name in RIVALS if name in medians), None)
    for name, values in medians.items():
        ratios = ""
        if rival is not None and name != rival:
            wall, cpu = (_ratio(values[k], medians[rival][k]) for k in ("wall_ms", "cpu_ms"))
            engine = _ratio(_engine_ms(values), _engine_ms(medians[rival]))
            ratios = f"{wall:>7} {cpu:>7} {engine:>7}  of {rival}"
        if name == "berth-cli" and "berth" in medians:
            ratios += f"; {_ratio(values['wall_ms'], medians['berth']['wall_ms'])} of docker CLI"
        print(
            f"{case:24} {name:10} {values['wall_ms']:9.2f} {values['wall_min_ms']:9.2f} "
            f"{values['cpu_ms']:9.2f} {values['client_ms']:7.2f} {ratios}"
        )
    print(flush=True)


def _engine_ms(values: dict[str, float]) -> float:
    """Return the CPU time without the clients', which for docker is the same with every engine."""
    return values["cpu_ms"] - values["client_ms"]


def _ratio(value: float, of: float) -> str:
    return f"{value / of:.3f}" if of else "–"


def summary(verdicts: Iterable[Verdict]) -> None:
    """Print what has a target, and whether it was met."""
    print(f"{'summary':24} {'what':50} {'is':>8} {'gate':>7} {'goal':>7}")
    for verdict in verdicts:
        print(
            f"{verdict.case:24} {verdict.what:50} {verdict.value:8.3f} {verdict.gate:7.3f} "
            f"{verdict.goal:7.3f}  {verdict.text}"
        )
