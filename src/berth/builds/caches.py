"""Directories that commands of RUN keep from one build to the next (``--mount=type=cache``).

Each is a directory of the data root with a record; it belongs to no image. What people call it is in the
record only, so no name of theirs becomes a path.
"""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec

from berth.dockerfile.sharings import LOCKED, PRIVATE, SHARED
from berth.oci.times import rfc3339
from berth.runtime.removal import remove_tree
from berth.snapshots.usage import disk_usage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from berth.builds.pruning import Entry
    from berth.state import State

KIND = "exec.cachemount"
DATA = "data"


class CacheRecord(msgspec.Struct, kw_only=True):
    """A cache; ``base`` is the content that it began with."""

    id: str
    base: str
    description: str
    created_ns: int
    used_ns: int
    uses: int = 0


class Caches:
    """Every cache of an engine."""

    def __init__(self, *, state: State, data_root: Path) -> None:
        self._table = state.table("caches", CacheRecord)
        self._folder = data_root / "caches"
        self._records = dict(self._table.items())
        self._users: dict[str, list[str]] = {}  # how each that is in use is shared
        self._changed = asyncio.Condition()

    def clear(self) -> None:
        """Remove directories without a record, and records without a directory."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        there = {path.name for path in self._folder.iterdir()}
        for name in there - set(self._records):
            remove_tree(str(self._folder / name))
        for name in set(self._records) - there:
            self._forget(name)

    @asynccontextmanager
    async def use(
        self, wanted: CacheRecord, sharing: str, fill: Callable[[Path], Awaitable[None]]
    ) -> AsyncIterator[Path]:
        """Give the directory of a cache; ``fill`` makes what is in a new one."""
        async with self._changed:
            while (name := self._choose(wanted, sharing)) is None:
                await self._changed.wait()
            is_new = not name
            name = name or os.urandom(8).hex()
            self._records.setdefault(name, wanted)
            users = self._users.setdefault(name, [])
            users.append(LOCKED if is_new else sharing)
        try:
            if is_new:
                await self._make(name, fill)
                users[:] = [sharing]
                await self._tell()
            self._note_use(name)
            yield self._folder / name / DATA
        finally:
            users.remove(sharing if sharing in users else LOCKED)
            if not users:
                del self._users[name]
            await self._tell()

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _choose(self, wanted: CacheRecord, sharing: str) -> str | None:
        """Return the name of a directory that may be used; "" for a new one, None when one has to wait."""
        known = [n for n, r in self._records.items() if (r.id, r.base) == (wanted.id, wanted.base)]
        idle = [name for name in known if name not in self._users]
        if idle or not known:
            return idle[0] if idle else ""
        if sharing == PRIVATE:
            return ""
        users = {name: {*self._users[name]} for name in known}
        shared = [name for name in known if users[name] == {SHARED}]
        if sharing == SHARED and shared:
            return shared[0]
        is_waiting = sharing == LOCKED or any(LOCKED in kinds for kinds in users.values())
        return None if is_waiting else ""

    async def _make(self, name: str, fill: Callable[[Path], Awaitable[None]]) -> None:
        path = self._folder / name
        path.mkdir(mode=0o700)
        try:
            await fill(path / DATA)
        except BaseException:
            del self._records[name]
            await asyncio.to_thread(remove_tree, str(path))
            raise

    def _note_use(self, name: str) -> None:
        record = self._records[name]
        record.uses += 1
        record.used_ns = time.time_ns()
        self._table.put(name, record)

    def _forget(self, name: str) -> None:
        self._records.pop(name, None)
        self._table.remove(name)

    async def documents(self) -> list[dict[str, object]]:
        """Return how /system/df shows them."""
        return [
            {
                "ID": name,
                "Type": KIND,
                "Description": record.description,
                "InUse": name in self._users,
                "Shared": False,
                "Size": await self._size(name),
                "CreatedAt": rfc3339(record.created_ns),
                "LastUsedAt": rfc3339(record.used_ns),
                "UsageCount": record.uses,
            }
            for name, record in [*self._records.items()]
        ]

    async def _size(self, name: str) -> int:
        try:
            return await asyncio.to_thread(disk_usage, self._folder / name)
        except FileNotFoundError:  # just being made, or removed
            return 0

    async def entries(self) -> list[Entry]:
        """Return them as things that may be pruned."""
        from berth.builds.pruning import Entry

        return [
            Entry(
                id=name,
                kind=KIND,
                size_bytes=await self._size(name),
                used_ns=record.used_ns,
                description=record.description,
                in_use=name in self._users,
            )
            for name, record in [*self._records.items()]
        ]

    async def remove(self, name: str) -> bool:
        """Remove one, unless somebody uses it by now; say whether it is gone."""
        if name in self._users or name not in self._records:
            return False
        self._forget(name)
        await asyncio.to_thread(remove_tree, str(self._folder / name))
        return True
