"""What the figures ought to be: ratios to a rival, and amounts of memory."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import TYPE_CHECKING

from bench.names import CASE, COUNT
from bench.runs import NETWORK_ADDED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.accounts import Cost
    from bench.measure import Bench

DOCKERD = "dockerd"


TRANSFERS = ("load", "save", "push", "rmi")


@dataclass(frozen=True)
class Target:
    """At most ``gate`` times the rival's figure; ``goal`` is what is aimed at."""

    case: str  # a shell pattern
    gate: float
    goal: float
    rival: str = DOCKERD
    engine: str = "berth"
    columns: tuple[str, ...] = ("wall", "cpu")


TARGETS = (
    Target("run *", 0.125, 0.10),
    Target("run *", 1.1, 1.0, rival="berth", engine="berth-cli", columns=("wall",)),
    Target("library *", 1.5, 1.5, rival="floor"),
    Target("* that stay, *", 0.25, 0.15, columns=("wall",)),
    Target("* at once, *", 0.10, 0.08),
    Target("run * among *", 1.2, 1.1, rival="alone"),
    Target("oci run", 1.3, 1.0, rival="runc", engine="berth-oci", columns=("wall",)),
    Target("oci run", 0.5, 0.4, rival="runc", engine="zygote", columns=("wall",)),
    Target("oci run", 0.8, 0.5, rival="runc", engine="via-zygote", columns=("wall",)),
    Target("exec", 0.45, 0.35),
    Target("create", 0.50, 0.40),
    Target("start", 0.13, 0.09),
    Target("stop", 0.5, 0.3),
    Target("list of *", 0.25, 0.1),
    Target("info", 0.1, 0.02),
    Target("ping", 1.0, 0.6),
    Target("ps of *", 1.0, 0.8),
    Target("event", 1.0, 0.3),
    Target("log *", 0.35, 0.2),
    Target("read log *", 0.25, 0.12),
    Target("attached *", 0.5, 0.3),
    Target("* MiB between containers", 1.0, 0.9),
    Target("* MiB from outside by a published port", 1.0, 0.9),
    Target("* connections between containers", 1.0, 0.9),
    Target("* connections from outside by a published port", 1.0, 0.9),
    Target("* from outside by one of *", 1.0, 0.9),
    # What Docker's proxy takes is not in the processor time.
    Target("* from the host by 127.0.0.1", 1.0, 0.9, columns=("wall",)),
    Target(CASE, 1.0, 0.5),
    Target("load *", 0.4, 0.25),
    Target("save *", 0.5, 0.4),
    Target("push *", 0.6, 0.4),
    Target("pull *", 0.45, 0.3),
    Target("rmi *", 1.0, 0.5),
    *(Target(f"{v} *", 1.0, 0.8, rival="podman", columns=("wall",)) for v in TRANSFERS),
    Target("pull *", 0.67, 0.5, rival="podman", columns=("wall",)),
)
NETWORK_MS = 5.0, 2.0  # what a bridge adds to a run
NAME_MS = 1.0, 0.3  # an answer of the name server
# Megabytes of berth alone.
MEMORY = {"daemon resident": 40.0, "keeper of a container, private": 1.0}
PEAK_MB = 150.0  # of berthd while images come and go
MEMORY_RATIO = ("all told for a container, proportional", 0.30, 0.20)


@dataclass(frozen=True)
class Verdict:
    """A figure beside its target."""

    case: str
    what: str
    value: float
    gate: float
    goal: float

    @property
    def text(self) -> str:
        """Say whether the target was met."""
        if self.value <= self.goal:
            return "goal met"
        return "met" if self.value <= self.gate else "NOT MET"


def verdicts(bench: Bench) -> Iterator[Verdict]:
    """Compare everything that was measured and has a target."""
    for case, row in bench.costs.items():
        for target in TARGETS:
            if fnmatch(case, target.case) and {target.engine, target.rival} <= row.keys():
                for column in target.columns:
                    mine, theirs = (
                        statistics.median(getattr(c, f"{column}_s") for c in row[name])
                        for name in (target.engine, target.rival)
                    )
                    if theirs:
                        what = f"{column}, {target.engine} / {target.rival}"
                        yield Verdict(case, what, mine / theirs, target.gate, target.goal)
    yield from _amounts(bench.costs)
    yield from _memory(bench.megabytes)


def _amounts(found: dict[str, dict[str, list[Cost]]]) -> Iterator[Verdict]:
    def wall_ms(case: str, name: str) -> float:
        return statistics.median(cost.wall_s for cost in found[case][name]) * 1e3

    if {"bridge", "none"} <= found.get(NETWORK_ADDED, {}).keys():
        added = wall_ms(NETWORK_ADDED, "bridge") - wall_ms(NETWORK_ADDED, "none")
        yield Verdict(NETWORK_ADDED, "wall, ms added by a bridge", added, *NETWORK_MS)
    if "berth" in found.get(CASE, {}):
        yield Verdict(CASE, "wall, ms each", wall_ms(CASE, "berth") / COUNT, *NAME_MS)


def _memory(found: dict[str, dict[str, float]]) -> Iterator[Verdict]:
    mine, theirs = found.get("berth", {}), found.get(DOCKERD, {})
    for what, gate in MEMORY.items():
        if what in mine:
            yield Verdict("memory", f"{what}, MB", mine[what], gate, gate)
    for what, value in mine.items():
        if what.startswith("peak with"):
            yield Verdict("memory", f"{what}, MB", value, PEAK_MB, PEAK_MB)
    what, gate, goal = MEMORY_RATIO
    if what in mine and what in theirs:
        yield Verdict("memory", f"{what}, berth / dockerd", mine[what] / theirs[what], gate, goal)
