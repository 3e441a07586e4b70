from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING

from berth.engine.lives import Lives

if TYPE_CHECKING:
    from pathlib import Path

RECORD = SimpleNamespace(id="a" * 64)


async def lives_of(folder: Path) -> tuple[object, object, list[object]]:
    """Return the life of a container twice, then twice once it is removed."""
    known = {RECORD.id}
    records = SimpleNamespace(has=lambda record: record.id in known)
    services = SimpleNamespace(data_root=folder, exec_root=folder)
    lives = Lives(services, records, remove=None)
    first, second = lives.of(RECORD), lives.of(RECORD)
    known.clear()
    lives.forget(RECORD)
    return first, second, [lives.of(RECORD), lives.of(RECORD)]


def test_a_container_that_was_removed_leaves_no_life(tmp_path: Path) -> None:
    first, second, afterwards = asyncio.run(lives_of(tmp_path))
    assert first is second
    assert afterwards[0] is not afterwards[1]
