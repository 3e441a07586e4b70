"""What builds have under way, written down before it is made: the next start removes what a crash left."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec

from berth.runtime.removal import remove_tree

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from berth.state import State

CONTAINER, SNAPSHOT = "container", "snapshot"


class Pending(msgspec.Struct, kw_only=True):
    """Something of a build that goes with it."""

    kind: str


class Leftovers:
    """The notes of one engine."""

    def __init__(self, *, state: State, data_root: Path) -> None:
        self._table = state.table("builds", Pending)
        self._folder = data_root / "builds"

    def clear_folders(self) -> None:
        """Remove the directories of builds that are no more."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        for left in self._folder.iterdir():
            remove_tree(str(left))

    def all(self) -> list[tuple[str, str]]:
        """Return what there is: the kind and the name."""
        return [(record.kind, name) for name, record in self._table.items()]

    def note(self, kind: str) -> str:
        """Write down a thing that will be made, and return the name that it is to get."""
        name = f"build_{os.urandom(8).hex()}"
        self._table.put(name, Pending(kind=kind))
        return name

    def forget(self, name: str) -> None:
        """Forget a thing that is gone, or that stays."""
        self._table.remove(name)

    @asynccontextmanager
    async def folder(self) -> AsyncIterator[Path]:
        """Give a directory for as long as a build lasts."""
        path = self._folder / os.urandom(8).hex()
        path.mkdir(mode=0o700)
        try:
            yield path
        finally:
            await asyncio.to_thread(remove_tree, str(path))
