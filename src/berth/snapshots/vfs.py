"""The driver `vfs`: a container's root is a copy of its image, on any file system.

The layers of an image are merged once, by hard links, into ``whole`` beside its topmost layer. A container's
``fs`` is copied from there (reflinks where the file system has them) as ``copy``, and renamed when it is
whole: that moment is its directory's time of change, and what changed after it is the container's own.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from berth.errors import Failed
from berth.runtime.removal import remove_tree
from berth.runtime.requests import DirectoryRootfs
from berth.snapshots.usage import disk_usage

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from berth.runtime.client import Runtime
    from berth.snapshots.driver import SnapshotRecord

MERGE = "berth.snapshots.merging:merge"
WHOLE = "whole"


class VfsDriver:
    """See :class:`berth.snapshots.driver.Driver`."""

    name = "vfs"
    backing = "copies of images, with shared blocks where the file system has reflinks"
    has_plain_layers = True
    writes_layers = False
    can_show_host = False

    def __init__(self, base: Path, runtime: Runtime) -> None:
        self._base = base
        self._runtime = runtime
        self._merging = asyncio.Lock()
        self._workers = asyncio.Semaphore(os.cpu_count() or 1)

    def make(self, folder: Path, record: SnapshotRecord) -> None:
        """Nothing is made at once."""

    async def fill(self, record: SnapshotRecord) -> None:
        """Merge the image, and copy it for a container."""
        whole = await self._merge(image_of(record))
        if record.view or self.is_filled(record):
            return
        layers = [whole, *(record.lower[:1] if record.marked else ())]
        await self._build(layers, f"{record.number}/copy", f"{record.number}/fs", link=False)

    async def _merge(self, image: Sequence[str]) -> str:
        """Return the directory that is the whole image ``image``: directories of layers, topmost first."""
        folder = image[0].partition("/")[0]
        whole = f"{folder}/{WHOLE}"
        if not (self._base / whole).is_dir():
            async with self._merging:
                if not (self._base / whole).is_dir():
                    await self._build([*reversed(image)], f"{whole}-partial", whole, link=True)
        return whole

    async def _build(self, layers: Sequence[str], partial: str, target: str, *, link: bool) -> None:
        """Merge ``layers``, the lowest first, into ``partial``, which becomes ``target``."""
        await asyncio.to_thread(remove_tree, str(self._base / partial))  # of a crash
        argument = {"layers": [*layers], "target": partial, "link": link}
        async with self._workers:
            fd = os.open(self._base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                job = await self._runtime.run_job(MERGE, argument, fds=[fd])
            finally:
                os.close(fd)
            try:
                await job.result()
            finally:
                await job.end()
        try:
            (self._base / partial).rename(self._base / target)
        except OSError as error:  # removed meanwhile
            raise Failed(f"make snapshot {target}: {error.strerror}") from error

    async def merge_anew(self, layer: SnapshotRecord, target: str) -> str:
        """See Driver."""
        whole = f"{layer.number}/{WHOLE}"
        if not (self._base / whole).is_dir():
            return ""
        await self._build([*reversed(layer.lower)], f"{target}-partial", target, link=True)
        return whole

    def is_filled(self, record: SnapshotRecord) -> bool:
        """See Driver."""
        name = self.view(record)[0] if record.view else f"{record.number}/fs"
        return (self._base / name).is_dir()

    def rootfs(self, record: SnapshotRecord) -> DirectoryRootfs:
        """See Driver."""
        return DirectoryRootfs(
            base=self._base, path=f"{record.number}/fs", below=self.view(record)[0]
        )

    def view(self, record: SnapshotRecord) -> tuple[str, ...]:
        """See Driver."""
        folder = image_of(record)[0].partition("/")[0]
        return (f"{folder}/{WHOLE}",)

    def needed(self, record: SnapshotRecord) -> list[str]:
        """See Driver."""
        return [f"{record.number}/fs", *self.view(record), *record.lower]

    def usage(self, record: SnapshotRecord) -> int:
        """See Driver."""
        folder = self._base / str(record.number)
        return disk_usage(folder / "fs", since_ns=folder.stat().st_mtime_ns)


def image_of(record: SnapshotRecord) -> list[str]:
    """Return the directories of the image's layers, topmost first."""
    return record.lower[1:] if record.marked else record.lower
