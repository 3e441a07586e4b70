"""Where a process has mounts, whatever a container calls their places."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from berth.engine import sources
from berth.files.roots import own_namespace
from berth.kernel import cgroups, mounts
from berth.runtime.mountpoints import points
from berth.volumes import local
from support.forks import in_child

if TYPE_CHECKING:
    from pathlib import Path

NAMES = (b"a b", b"tab\tnew\nline", b"back\\040slash", b"return\rhere", b"\xff\xfe", b"\x85\x1c")


def mount_odd_ones(folder: Path) -> None:
    own_namespace()
    for name in NAMES:
        place = os.fsencode(folder) + b"/" + name
        os.mkdir(place)
        mounts.mount("tmpfs", os.fsdecode(place), "tmpfs")


def test_places_of_any_name_are_known(tmp_path: Path) -> None:
    def look() -> list[bytes]:
        mount_odd_ones(tmp_path)
        return [os.path.basename(os.fsencode(point.path)) for point in points("self")]

    assert set(NAMES) <= set(in_child(look))


def test_what_anybody_calls_a_place_on_the_host_hides_nothing_else(tmp_path: Path) -> None:
    """Users with FUSE name them, too, and containers that share mounts with the host."""
    known = [(h.name, h.controllers) for h in cgroups.detect().found]

    def look() -> list[object]:
        mount_odd_ones(tmp_path)
        found = [(h.name, h.controllers) for h in cgroups.detect().found]
        place, _ = sources.mount_of(f"{tmp_path}/a b/file")
        missing = [n for n in NAMES if not local.is_mounted(tmp_path / os.fsdecode(n))]
        return [found == known, place, missing, local.is_mounted(tmp_path)]

    assert in_child(look) == [True, f"{tmp_path}/a b", [], False]
