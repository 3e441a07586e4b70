"""Unpacking while downloading: the layers of a pull are extracted as their blobs come.

What is made so is only *ready*: it becomes layers when the image is whole (:meth:`LayerStore.unpack`),
and what went wrong here is done again from the blob, which says why.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from berth.errors import BerthError
from berth.images.layers import Ready, Teller
from berth.images.records import LayerRecord
from berth.oci.digest import Digest
from berth.oci.image import ImageDocument, chain_ids, decode

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from berth.content.store import ContentStore
    from berth.images.layers import LayerStore, Progress
    from berth.oci.image import Descriptor, Manifest
    from berth.snapshots.store import Snapshots

COUNT_BYTES = 8
SMALL_BYTES = 1 << 20  # below, a worker of its own costs more than it does
BATCH = 32


class Early:
    """The layers of one pull. Used in the loop; an async context manager that removes what is left."""

    def __init__(
        self,
        *,
        content: ContentStore,
        snapshots: Snapshots,
        layers: LayerStore,
        progress: Progress,
        is_whole: Callable[[str], bool],
    ) -> None:
        self.is_whole = is_whole
        self._content = content
        self._snapshots = snapshots
        self._layers = layers
        self.teller = Teller(progress)
        self._wanted: dict[str, tuple[LayerRecord, str]] = {}  # by the blob's digest
        self._ready: dict[str, Ready] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._small: list[tuple[LayerRecord, str]] = []  # waiting for a worker
        self._folders: list[Path] = []  # where several were extracted
        self._is_draining = False
        self._is_over = False
        self._held = ExitStack()  # layers that are here already stay, whatever has them goes

    def begin(self, manifest: Manifest) -> None:
        """Learn which layers are wanted. The configuration is in the store."""
        with suppress(BerthError):
            data = self._content.read(Digest.parse(manifest.config.digest))
            diff_ids = decode(data, ImageDocument, "image configuration").rootfs.diff_ids
            if len(diff_ids) != len(manifest.layers):
                return
            parts = zip(manifest.layers, diff_ids, chain_ids(diff_ids), strict=True)
            for layer, diff_id, chain_id in parts:
                self._held.enter_context(self._layers.hold(chain_id))
                if not self._snapshots.has(chain_id):
                    record = LayerRecord(
                        digest=layer.digest, media_type=layer.media_type, size=layer.size
                    )
                    self._wanted.setdefault(layer.digest, (record, diff_id))

    def here(self, layer: Descriptor) -> None:
        """Extract a layer whose blob is in the store."""
        wanted = self._wanted.pop(layer.digest, None)
        if wanted is None:
            return
        if layer.size > SMALL_BYTES:
            self._start(self._extract(*wanted))
            return
        self._small.append(wanted)
        if not self._is_draining:
            self._is_draining = True
            self._start(self._drain())

    async def _drain(self) -> None:
        """Extract small layers, as many at a time as have come meanwhile."""
        try:
            while batch := self._small[:BATCH]:
                del self._small[: len(batch)]
                with suppress(BerthError):
                    folder, ready = await self._layers.extract_several(batch, self.teller)
                    self._folders.append(folder)
                    self._ready |= ready
        finally:
            self._is_draining = False

    def growing(self, layer: Descriptor) -> Tap | None:
        """Return who is to be told how a layer's blob grows; None when nobody wants to know."""
        wanted = self._wanted.get(layer.digest)
        if wanted is None or layer.size <= SMALL_BYTES:
            return None
        del self._wanted[layer.digest]
        loop = asyncio.get_running_loop()

        def follow(blob: int, counts: int) -> None:
            loop.call_soon_threadsafe(self._begin_to_follow, *wanted, blob, counts)

        return Tap(follow)

    def _begin_to_follow(self, layer: LayerRecord, diff_id: str, blob: int, counts: int) -> None:
        if self._is_over:  # a download that took its time to end
            os.close(blob)
            os.close(counts)
        else:
            self._start(self._follow(layer, diff_id, blob, counts))

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name="unpack early")
        self._tasks.add(task)

    async def _extract(self, layer: LayerRecord, diff_id: str) -> None:
        with suppress(BerthError):
            self._ready[diff_id] = await self._layers.extract(layer, diff_id, self.teller)

    async def _follow(self, layer: LayerRecord, diff_id: str, blob: int, counts: int) -> None:
        try:
            with suppress(BerthError):
                self._ready[diff_id] = await self._layers.follow(
                    layer, diff_id, self.teller, (blob, counts)
                )
        finally:
            os.close(blob)
            os.close(counts)

    async def finish(self) -> dict[str, Ready]:
        """Wait for what was begun; return what is ready, by diff ID."""
        await asyncio.sleep(0)  # so that what threads have asked for has begun
        if self._tasks:
            await asyncio.gather(*self._tasks)
        return self._ready

    async def __aenter__(self) -> Early:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._held.close()
        await asyncio.sleep(0)
        self._is_over = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for ready in self._ready.values():
            if ready.folder.parent not in self._folders:
                self._snapshots.discard(ready.folder)
        for folder in self._folders:
            self._snapshots.discard(folder)


class Tap:
    """Tells a worker how much of a blob there is. Used in the thread that downloads it."""

    def __init__(self, follow: Callable[[int, int], None]) -> None:
        self._follow = follow
        self._counts = -1
        self._ended = False

    def at(self, path: Path, size: int) -> None:
        """Say that ``size`` bytes of the file are written."""
        if self._ended:
            return
        if self._counts < 0:
            reading, self._counts = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(self._counts, False)
            self._follow(os.open(path, os.O_RDONLY | os.O_CLOEXEC), reading)
        with suppress(BlockingIOError, BrokenPipeError):
            os.write(self._counts, size.to_bytes(COUNT_BYTES, "little"))

    def end(self) -> None:
        """Say that nothing follows: the blob is whole, or is given up. Idempotent."""
        self._ended = True
        if self._counts >= 0:
            os.close(self._counts)
            self._counts = -1
