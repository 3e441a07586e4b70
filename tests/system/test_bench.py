"""The benchmark runs through, so that it does not rot: every case once, with berth alone."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from support.programs import find, run

ROOT = Path(__file__).parents[2]


def left(base: Path) -> set[str]:
    """What a benchmark with its folder in ``base`` leaves, or one that has ended."""
    found = set(map(str, base.glob("bench-*")))
    found |= {line for line in Path("/proc/mounts").read_text().splitlines() if str(base) in line}
    for path in (*Path("/sys/fs/cgroup").glob("*/bench-*"), *Path("/run/netns").glob("bench*")):
        number = re.search(r"bench\D*(\d+)", path.name)
        if number and not Path("/proc", number[1]).exists():
            found.add(str(path))
    return found


def test_the_benchmark_measures_every_case(tmp_path):
    find("docker")
    found = tmp_path / "figures.json"
    before = left(tmp_path)
    done = run(
        *(sys.executable, "-m", "bench", "--quick", "--rounds", "1", "--json", str(found)),
        *("--without", "dockerd", "--without", "podman"),
        cwd=str(ROOT),
        env={"TMPDIR": str(tmp_path)},
    )
    assert done.code == 0, str(done)
    figures = json.loads(found.read_text())
    assert figures["costs"].keys() >= {
        *("run none", "run host", "run bridge", "run port", "library none", "library host"),
        *("create", "start", "exec", "stop", "5 at once, bridge", "list of 10", "info", "ping"),
        *("library bridge, none", "1000 questions for a name", "64 MiB between containers"),
        *("log 4 MiB", "read log of 4 MiB", "attached 4 MiB", "run bridge among 10"),
    }
    assert all(
        cost["wall_ms"] > 0 and cost["cpu_ms"] >= 0
        for row in figures["costs"].values()
        for cost in row.values()
    )
    assert 0 < figures["megabytes"]["berth"]["keeper of a container, private"] < 100
    assert "library none" in done.out.partition("summary")[2]
    assert not left(tmp_path) - before
