"""The benchmark runs through, so that it does not rot: every case once, with berth alone."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.programs import find, run

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]


def left() -> set[str]:
    """What benchmarks leave when they do not clean up."""
    groups = {str(path) for path in Path("/sys/fs/cgroup").glob("*/bench-*")}
    groups |= {str(path) for path in Path("/sys/fs/cgroup").glob("bench-*")}
    mounts = {line for line in Path("/proc/mounts").read_text().splitlines() if "/bench-" in line}
    folders = {str(path) for path in Path(tempfile.gettempdir()).glob("bench-*")}
    namespaces = {str(path) for path in Path("/run/netns").glob("bench*")}
    return groups | mounts | folders | namespaces


@pytest.fixture
def _nothing_left() -> Iterator[None]:
    before = left()
    yield
    assert not left() - before


@pytest.mark.usefixtures("_nothing_left")
def test_the_benchmark_measures_every_case(tmp_path):
    find("docker")
    found = tmp_path / "figures.json"
    done = run(
        *(sys.executable, "-m", "bench", "--quick", "--rounds", "1", "--json", str(found)),
        *("--without", "dockerd", "--without", "podman"),
        cwd=str(ROOT),
    )
    assert done.code == 0, str(done)
    figures = json.loads(found.read_text())
    assert figures["costs"].keys() >= {
        *("run none", "run host", "run bridge", "run port", "library none", "library host"),
        *("create", "start", "exec", "stop", "5 at once, bridge", "list of 10", "info", "ping"),
        *("log 4 MiB", "read log of 4 MiB", "attached 4 MiB", "run bridge among 10"),
    }
    assert all(
        cost["wall_ms"] > 0 and cost["cpu_ms"] >= 0
        for row in figures["costs"].values()
        for cost in row.values()
    )
    assert 0 < figures["megabytes"]["berth"]["keeper of a container, private"] < 100
    assert "library none" in done.out.partition("summary")[2]
