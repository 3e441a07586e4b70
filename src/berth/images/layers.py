"""Blobs to snapshots: layers are unpacked by workers, several at a time, each chain ID once."""

from __future__ import annotations

import asyncio
import os
from collections import Counter, defaultdict
from contextlib import AsyncExitStack, contextmanager
from typing import TYPE_CHECKING, NamedTuple

from berth.errors import Failed
from berth.oci.digest import Digest
from berth.oci.image import chain_ids

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from berth.content.store import ContentStore
    from berth.images.records import LayerRecord
    from berth.runtime.client import Runtime
    from berth.snapshots.overlay import OverlaySnapshots

    Progress = Callable[[Mapping[str, object]], None]

UNPACK = "berth.images.unpack:unpack"
EXPAND = "berth.images.unpack:expand"
SHORT_CHARS = 12


class Wording(NamedTuple):
    """What is told of a layer while it is unpacked, and once it was (nothing when empty)."""

    during: str
    after: str
    by_blob: bool  # whether layers are named by their blobs, else by their diff IDs


PULLING = Wording("Extracting", "Pull complete", by_blob=True)
LOADING = Wording("Loading layer", "", by_blob=False)


class LayerStore:
    """Makes the snapshots of images' layers."""

    def __init__(
        self, *, snapshots: OverlaySnapshots, content: ContentStore, runtime: Runtime
    ) -> None:
        self._snapshots = snapshots
        self._content = content
        self._runtime = runtime
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._held: Counter[str] = Counter()
        self._workers = asyncio.Semaphore(os.cpu_count() or 1)

    def busy(self) -> set[str]:
        """Return the chain IDs of the layers that somebody is working on or with."""
        return {*self._held, *(id_ for id_, lock in self._locks.items() if lock.locked())}

    @contextmanager
    def hold(self, chain_id: str) -> Iterator[None]:
        """Keep a layer that no image has yet."""
        self._held[chain_id] += 1
        try:
            yield
        finally:
            self._held -= Counter([chain_id])

    async def unpack(
        self,
        layers: Sequence[LayerRecord],
        diff_ids: Sequence[str],
        progress: Progress,
        wording: Wording = PULLING,
    ) -> int:
        """Make the snapshots that are missing, from blobs; return the bytes in all layers' files.

        Corrupt when a blob is not what its digest or diff ID says; nothing is left then.
        """
        chain = chain_ids(diff_ids)
        async with AsyncExitStack() as undo:
            for chain_id in chain:
                # Always from the bottom up, so that two images with common layers do not deadlock.
                await undo.enter_async_context(self._locks[chain_id])
            missing = [n for n, chain_id in enumerate(chain) if not self._snapshots.has(chain_id)]
            partials = {n: self._snapshots.partial() for n in missing}
            for partial in partials.values():
                undo.callback(self._snapshots.discard, partial)
            work = [(partials[n], layers[n], diff_ids[n]) for n in missing]
            outcomes = await self._fill(work, progress, wording)
            for n, outcome in zip(missing, outcomes, strict=True):
                self.commit(chain[n], partials[n], chain[n - 1] if n else None, outcome)
        for chain_id in chain:
            if not self._locks[chain_id].locked():
                del self._locks[chain_id]
        return sum(self._snapshots.size(chain_id) for chain_id in chain)

    async def _fill(
        self, work: Sequence[tuple[Path, LayerRecord, str]], progress: Progress, wording: Wording
    ) -> list[Mapping[str, object]]:
        """Unpack several layers at once; the first failure ends the others and is raised alone."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._unpack_blob(partial, layer, diff_id, progress, wording))
                    for partial, layer, diff_id in work
                ]
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _unpack_blob(
        self, partial: Path, layer: LayerRecord, diff_id: str, progress: Progress, wording: Wording
    ) -> Mapping[str, object]:
        name = layer.digest if wording.by_blob else diff_id
        short = name.partition(":")[2][:SHORT_CHARS]

        def report(message: Mapping[str, object]) -> None:
            detail = {"current": message.get("bytes", 0), "total": layer.size}
            progress({"status": wording.during, "progressDetail": detail, "id": short})

        async with self._workers:
            with self._content.open_blob(Digest.parse(layer.digest)) as blob:
                argument = {"digest": layer.digest, "diff_id": diff_id}
                places = (blob.fileno(), partial / "fs")
                outcome = await self.run(UNPACK, argument, places, report)
        report({"bytes": layer.size})
        if wording.after:
            progress({"status": wording.after, "progressDetail": {}, "id": short})
        return outcome

    async def unpack_file(self, file: Path, partial: Path) -> Mapping[str, object]:
        """Unpack a layer that is no blob yet; returns what the job does."""
        fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return await self.run(UNPACK, {}, (fd, partial / "fs"), lambda _: None)
        finally:
            os.close(fd)

    def commit(
        self, chain_id: str, partial: Path, parent: str | None, outcome: Mapping[str, object]
    ) -> None:
        """Make a filled directory the snapshot of ``chain_id``."""
        size = outcome["size"]
        assert isinstance(size, int)
        self._snapshots.commit(
            chain_id, partial, parent=parent, size_bytes=size, has_root=bool(outcome["root"])
        )

    async def expand(self, source: Path, target: Path) -> None:
        """Decompress a file into the new file ``target``."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        reading = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
        writing = os.open(target, flags, 0o600)
        try:
            places = (reading, writing, target.parent)
            await self.run(EXPAND, {}, places, lambda _: None)
        finally:
            os.close(reading)
            os.close(writing)

    async def run(
        self,
        entry: str,
        argument: Mapping[str, object],
        places: Sequence[int | Path],
        report: Progress,
    ) -> Mapping[str, object]:
        """Run a job on descriptors and directories; a cancellation ends it."""
        opened = [
            os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            for place in places
            if not isinstance(place, int)
        ]
        directories = iter(opened)
        fds = [place if isinstance(place, int) else next(directories) for place in places]
        try:
            job = await self._runtime.run_job(entry, argument, fds=fds)
        finally:
            for fd in opened:
                os.close(fd)
        try:
            async for message in job:
                report(message)
            return await job.result()
        except BaseException:
            await job.end()
            raise


def disk_error(error: OSError, what: str) -> Failed:
    """Say what the disk refused."""
    return Failed(f"{what}: {(error.strerror or str(error)).lower()}")
