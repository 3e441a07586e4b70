"""Medians and ratios as text."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.accounts import Cost

    Table = dict[str, dict[str, list[Cost]]]

# Against whom a case is measured: the first that took part.
RIVALS = ("floor", "dockerd", "podman")


def figures(table: Table) -> dict[str, dict[str, dict[str, float]]]:
    """Return medians in milliseconds by case and engine."""
    return {
        case: {
            name: {
                "wall_ms": round(statistics.median(c.wall_s for c in costs) * 1e3, 2),
                "wall_min_ms": round(min(c.wall_s for c in costs) * 1e3, 2),
                "cpu_ms": round(statistics.median(c.cpu_s for c in costs) * 1e3, 2),
            }
            for name, costs in row.items()
        }
        for case, row in table.items()
    }


def heading() -> None:
    """Print the columns' names."""
    print(
        f"{'case':24} {'engine':10} {'wall ms':>9} {'min':>9} {'cpu ms':>9} {'wall':>7} {'cpu':>7}"
    )


def costs(case: str, row: dict[str, list[Cost]]) -> None:
    """Print a line for each engine, with its ratio to the rival."""
    medians = figures({case: row})[case]
    rival = next((name for name in RIVALS if name in medians), None)
    for name, values in medians.items():
        ratios = ""
        if rival is not None and name != rival:
            wall, cpu = (_ratio(values[k], medians[rival][k]) for k in ("wall_ms", "cpu_ms"))
            ratios = f"{wall:>7} {cpu:>7}  of {rival}"
        if name == "berth-cli" and "berth" in medians:
            ratios += f"; {_ratio(values['wall_ms'], medians['berth']['wall_ms'])} of docker CLI"
        print(
            f"{case:24} {name:10} {values['wall_ms']:9.2f} {values['wall_min_ms']:9.2f} "
            f"{values['cpu_ms']:9.2f} {ratios}"
        )
    print()


def _ratio(value: float, of: float) -> str:
    return f"{value / of:.3f}" if of else "–"


def memory(table: dict[str, dict[str, int]]) -> None:
    """Print memory in MB."""
    for name, row in table.items():
        for what, value in row.items():
            print(f"memory, {name:10} {what:32} {value / 1e6:8.2f} MB")
