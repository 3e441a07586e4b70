"""The overlayfs driver: a directory a layer, an upper and a work directory a container.

Directories have short numeric names, for all of a container's layers must fit one page of mount
options. A removal is a rename first, so it is quick and never half done; what was renamed is deleted
afterwards, or when the engine starts again.
"""

from __future__ import annotations

import asyncio
import shutil
import uuid
from typing import TYPE_CHECKING

import msgspec

from berth.errors import NotFound
from berth.runtime.requests import OverlayRootfs

if TYPE_CHECKING:
    from pathlib import Path

    from berth.state import State

REMOVED_PREFIX = "removed-"
PARTIAL_PREFIX = "partial-"


class SnapshotRecord(msgspec.Struct, kw_only=True):
    """A directory under ``snapshots``: a layer (key: its chain ID) or a container's (key: its id)."""

    number: int
    lower: list[str]  # topmost first, as the overlay takes it


class OverlaySnapshots:
    """Snapshots of one engine."""

    def __init__(self, *, state: State, data_root: Path) -> None:
        self.base = data_root / "snapshots"
        self.base.mkdir(mode=0o711, exist_ok=True)
        self._table = state.table("snapshots", SnapshotRecord)
        numbers = [record.number for _, record in self._table.items()]
        self._last = max(numbers, default=0)

    def clean(self) -> None:
        """Delete what a crash left: removals that were begun, layers never committed, strangers."""
        known = {str(record.number) for _, record in self._table.items()}
        for entry in self.base.iterdir():
            if entry.name not in known:
                shutil.rmtree(entry, ignore_errors=True)

    def has(self, key: str) -> bool:
        """Say whether there is a snapshot ``key``."""
        return self._table.get(key) is not None

    def partial(self) -> Path:
        """Make a directory to unpack into; it becomes a layer by :meth:`commit`."""
        path = self.base / f"{PARTIAL_PREFIX}{uuid.uuid4().hex}"
        (path / "fs").mkdir(parents=True, mode=0o755)
        return path

    def commit(self, chain_id: str, partial: Path, *, parent: str | None) -> None:
        """Turn a filled partial directory into the layer ``chain_id`` on top of ``parent``."""
        self._last += 1
        number = self._last
        lower = [f"{number}/fs", *(self._record(parent).lower if parent else [])]
        partial.rename(self.base / str(number))
        self._table.put(chain_id, SnapshotRecord(number=number, lower=lower), durable=True)

    def prepare(self, key: str, lower: list[str]) -> None:
        """Make the writable snapshot ``key`` over ``lower`` (names as in a record, topmost first)."""
        self._last += 1
        number = self._last
        path = self.base / str(number)
        (path / "fs").mkdir(parents=True, mode=0o755)
        (path / "work").mkdir(mode=0o711)
        self._table.put(key, SnapshotRecord(number=number, lower=lower))

    def lower_of(self, chain_id: str) -> list[str]:
        """Return the lower directories of a container on top of the layer ``chain_id``."""
        return self._record(chain_id).lower

    def rootfs(self, key: str) -> OverlayRootfs:
        """Return how to mount the writable snapshot ``key``."""
        record = self._record(key)
        return OverlayRootfs(
            base=self.base,
            lower=tuple(record.lower),
            upper=f"{record.number}/fs",
            work=f"{record.number}/work",
        )

    async def remove(self, key: str) -> None:
        """Remove a snapshot; nothing when there is none."""
        record = self._table.get(key)
        if record is None:
            return
        doomed = self.base / f"{REMOVED_PREFIX}{uuid.uuid4().hex}"
        (self.base / str(record.number)).rename(doomed)
        self._table.remove(key)
        await asyncio.to_thread(shutil.rmtree, doomed, ignore_errors=True)

    def _record(self, key: str) -> SnapshotRecord:
        record = self._table.get(key)
        if record is None:
            raise NotFound(f"no snapshot {key}")
        return record
