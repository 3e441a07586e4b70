"""Where a process has mounts, whatever a container calls their places."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from berth.files.roots import own_namespace
from berth.kernel import mounts
from berth.runtime.mountpoints import points
from support.forks import in_child

if TYPE_CHECKING:
    from pathlib import Path

NAMES = (b"a b", b"tab\tnew\nline", b"back\\040slash", b"return\rhere", b"\xff\xfe", b"\x85\x1c")


def test_places_of_any_name_are_known(tmp_path: Path) -> None:
    def look() -> list[bytes]:
        own_namespace()
        for name in NAMES:
            place = os.fsencode(tmp_path) + b"/" + name
            os.mkdir(place)
            mounts.mount("tmpfs", os.fsdecode(place), "tmpfs")
        return [os.path.basename(os.fsencode(point.path)) for point in points("self")]

    assert set(NAMES) <= set(in_child(look))
