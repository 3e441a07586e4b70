"""Making blobs thin: what a layer's tree has anyway need not be on the disk a second time.

Only of layers that came as plain archives, as loads, commits and builds bring them, for a compressed blob
has no bytes in common with its tree. It is done when an image is whole, at low priority, one layer after the
other. What is left out was compared with the tree, which is on the disk before anything is replaced.
"""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from berth.errors import BerthError
from berth.images.layers import quiet
from berth.kernel.filecopies import sync_file_system
from berth.oci.digest import Digest
from berth.oci.image import chain_ids

if TYPE_CHECKING:
    from pathlib import Path

    from berth.content.store import ContentStore
    from berth.images.layers import LayerStore
    from berth.images.records import Image
    from berth.snapshots.store import Snapshots

log = logging.getLogger("berth")

THIN = "berth.images.thinwork:thin"
MIN_BYTES = 1 << 20  # of a layer: less is not worth a worker
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


class Thinning:
    """Makes the blobs of one engine thin, in the background."""

    def __init__(self, *, content: ContentStore, snapshots: Snapshots, layers: LayerStore) -> None:
        self._content = content
        self._snapshots = snapshots
        self._layers = layers
        self._wanted: dict[Digest, str] = {}
        self._task: asyncio.Task[None] | None = None
        self._now: tuple[Digest, str, asyncio.Task[None]] | None = None

    def want(self, image: Image) -> None:
        """See to an image that is kept now."""
        parts = zip(chain_ids(image.diff_ids), image.layers, image.diff_ids, strict=False)
        for chain_id, layer, diff_id in parts:
            digest = Digest(layer.digest)
            if digest == diff_id and layer.size >= MIN_BYTES and digest not in self._content.thin:
                self._wanted[digest] = chain_id
        if self._wanted and self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="thin blobs")

    def leave_gone(self) -> None:
        """Work no longer on a blob that is gone, or whose layer is."""
        if self._now is not None and not self._is_possible(*self._now[:2]):
            self._now[2].cancel()

    async def close(self) -> None:
        """Leave what is not done yet as it is."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        try:
            while self._wanted:
                await self._see_to(*self._wanted.popitem())
        finally:
            self._task = None

    async def _see_to(self, digest: Digest, chain_id: str) -> None:
        work = asyncio.get_running_loop().create_task(
            self._thin(digest, chain_id), name="thin a blob"
        )
        self._now = (digest, chain_id, work)
        try:
            await asyncio.wait([work])
        finally:
            self._now = None
            work.cancel()
            (outcome,) = await asyncio.gather(work, return_exceptions=True)
        if isinstance(outcome, BerthError | OSError):
            log.warning("blob %s stays as large as it is: %s", digest, outcome)
        elif isinstance(outcome, Exception):
            raise outcome

    async def _thin(self, digest: Digest, chain_id: str) -> None:
        made, index = self._content.temporary(), self._content.temporary()
        try:
            if self._is_possible(digest, chain_id) and await self._make(
                digest, chain_id, made, index
            ):
                await asyncio.to_thread(_sync, self._content.path(digest), made, index)
                if self._is_possible(digest, chain_id):
                    self._content.make_thin(digest, chain_id, made, index)
        finally:
            made.unlink(missing_ok=True)
            index.unlink(missing_ok=True)

    def _is_possible(self, digest: Digest, chain_id: str) -> bool:
        return (
            self._content.has(digest)
            and self._snapshots.has(chain_id)
            and digest not in self._content.thin
        )

    async def _make(self, digest: Digest, chain_id: str, made: Path, index: Path) -> bool:
        """Write the file and the index; say whether that is worth it."""
        fds: list[int] = []
        try:
            fds.append(os.open(made, _NEW, 0o600))
            fds.append(os.open(index, _NEW, 0o600))
            with self._content.open_file(digest) as blob:
                tree = self._snapshots.base / self._snapshots.tree(chain_id)
                places: list[int | Path] = [blob.fileno(), *fds, tree]
                found = await self._layers.run(THIN, {}, places, quiet)
        finally:
            for fd in fds:
                os.close(fd)
        spared = found["spared"]
        assert isinstance(spared, int)
        return spared >= MIN_BYTES


def _sync(blob: Path, *made: Path) -> None:
    """Put files on the disk, and all else that their file system was given."""
    for path in (*made, blob):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            sync_file_system(fd)
        finally:
            os.close(fd)
