"""What idle containers cost besides their own process, and what the daemons take."""

from __future__ import annotations

import contextlib
import statistics
from pathlib import Path
from typing import TYPE_CHECKING

from bench.engines import IMAGE, Berth, Dockerd, Engine, Podman, parent

if TYPE_CHECKING:
    from collections.abc import Iterable

KIB = 1024


def private_bytes(pid: int) -> int:
    """Return what would be free if only this process ended."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(
        int(line.split()[1]) * KIB for line in text.splitlines() if line.startswith("Private_")
    )


def resident_bytes(pid: int) -> int:
    """Return a process's resident memory."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * KIB
    return 0


def descendants(pid: int) -> list[int]:
    """Return all descendants of a process."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parents[int(entry.name)] = parent(int(entry.name))
    found, todo = [], [pid]
    while todo:
        at = todo.pop()
        below = [child for child, of in parents.items() if of == at]
        found += below
        todo += below
    return found


def measure(engines: Iterable[Engine], count: int) -> dict[str, dict[str, int]]:
    """Return figures in bytes by engine."""
    figures = {}
    for engine in engines:
        if not isinstance(engine, Berth | Dockerd | Podman):
            continue
        entry: dict[str, int] = {}
        if engine.daemon is not None:
            family = [engine.daemon.pid, *descendants(engine.daemon.pid)]
            entry["daemon resident"] = resident_bytes(engine.daemon.pid)
            entry["daemon and children private"] = sum(map(private_bytes, family))
        ids = [
            engine.ask(*("run", "-d", *engine.flags(), "--network", "none", IMAGE, "sleep", "600"))
            for _ in range(count)
        ]
        try:
            keepers = [private_bytes(pid) for id_ in ids for pid in engine.keeper(id_)]
            entry["keeper of a container private"] = int(statistics.median(keepers))
        finally:
            engine.ask("rm", "-f", *ids)
        figures[engine.name] = entry
    return figures
