"""Blobs to snapshots: layers are unpacked by workers, several at a time, each chain ID once."""

from __future__ import annotations

import asyncio
import os
from collections import Counter, defaultdict
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from berth.errors import Failed
from berth.oci.digest import Digest
from berth.oci.image import chain_ids

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from berth.content.store import ContentStore
    from berth.images.records import Image, LayerRecord
    from berth.runtime.client import Runtime
    from berth.snapshots.store import Snapshots

    Progress = Callable[[Mapping[str, object]], None]

UNPACK = "berth.images.unpack:unpack"
COMPARE = "berth.images.comparing:compare"
SEVERAL = "berth.images.unpack:unpack_several"
FOLLOW = "berth.images.unpack:follow"
EXPAND = "berth.images.unpack:expand"
SHORT_CHARS = 12


def quiet(_: Mapping[str, object]) -> None:
    """Report to nobody."""


class Teller:
    """Tells of layers that are being unpacked, in the words of a pull, which names layers by their blobs."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._done: set[str] = set()

    def at(self, layer: LayerRecord, diff_id: str, done_bytes: object) -> None:
        """Tell how much of a blob is done."""
        del diff_id
        self._tell("Extracting", layer.digest, {"current": done_bytes, "total": layer.size})

    def end(self, layer: LayerRecord, diff_id: str) -> None:
        """Tell that a layer is done, once."""
        if layer.digest not in self._done:
            self._done.add(layer.digest)
            self.at(layer, diff_id, layer.size)
            self._tell("Pull complete", layer.digest, {})

    def _tell(self, status: str, digest: str, detail: Mapping[str, object]) -> None:
        short = digest.partition(":")[2][:SHORT_CHARS]
        self._progress({"status": status, "progressDetail": detail, "id": short})


class LoadTeller(Teller):
    """In the words of a load, which names layers by their diff IDs."""

    def at(self, layer: LayerRecord, diff_id: str, done_bytes: object) -> None:
        """Tell how much of a blob is done."""
        self._tell("Loading layer", diff_id, {"current": done_bytes, "total": layer.size})

    def end(self, layer: LayerRecord, diff_id: str) -> None:
        """Tell that a layer is done."""
        self.at(layer, diff_id, layer.size)


class Ready(NamedTuple):
    """A layer extracted before anybody asked for it: ``folder/fs``, and what the job said."""

    folder: Path
    outcome: Mapping[str, object]


NOTHING_READY: Mapping[str, Ready] = {}


class LayerStore:
    """Makes the snapshots of images' layers."""

    def __init__(self, *, snapshots: Snapshots, content: ContentStore, runtime: Runtime) -> None:
        self._snapshots = snapshots
        self._plain = snapshots.driver.has_plain_layers
        self._content = content
        self._runtime = runtime
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._wanted: Counter[str] = Counter()  # by how many a lock is held or waited for
        self._held: Counter[str] = Counter()
        self._workers = asyncio.Semaphore(os.cpu_count() or 1)

    def busy(self) -> set[str]:
        """Return the chain IDs of the layers that somebody is working on or with."""
        return {*self._held, *self._wanted}

    @contextmanager
    def hold(self, chain_id: str) -> Iterator[None]:
        """Keep a layer that no image may have: not yet, or no more."""
        self._held[chain_id] += 1
        try:
            yield
        finally:
            self._held -= Counter([chain_id])

    async def unpack(
        self,
        layers: Sequence[LayerRecord],
        diff_ids: Sequence[str],
        teller: Teller,
        ready: Mapping[str, Ready] = NOTHING_READY,
    ) -> int:
        """Make the snapshots that are missing, from blobs; return the bytes in all layers' files.

        ``ready`` has trees by diff ID that were made before; each is taken once. Corrupt when a blob is not
        what its digest or diff ID says; nothing is left then.
        """
        chain = chain_ids(diff_ids)
        async with AsyncExitStack() as undo:
            for chain_id in chain:
                # Always from the bottom up, so that two images with common layers do not deadlock.
                await undo.enter_async_context(self._lock(chain_id))
            missing = [n for n, chain_id in enumerate(chain) if not self._snapshots.has(chain_id)]
            outcomes, partials, work = {}, {}, {}
            for n in missing:
                found = ready.get(diff_ids[n])
                if found is not None and found.folder.exists():
                    partials[n] = self._snapshots.adopt(found.folder)
                    outcomes[n] = found.outcome
                    teller.end(layers[n], diff_ids[n])
                else:
                    partials[n] = self._snapshots.partial()
                    work[n] = (partials[n], layers[n], diff_ids[n])
                undo.callback(self._snapshots.discard, partials[n])
            filled = await self._fill(list(work.values()), teller)
            outcomes.update(zip(work, filled, strict=True))
            for n in missing:
                self.commit(chain[n], partials[n], chain[n - 1] if n else None, outcomes[n])
        return sum(self._snapshots.size(chain_id) for chain_id in chain)

    @asynccontextmanager
    async def _lock(self, chain_id: str) -> AsyncIterator[None]:
        """Work on a layer alone. The lock goes with the last who wants it, not with the last who had it."""
        self._wanted[chain_id] += 1
        try:
            async with self._locks[chain_id]:
                yield
        finally:
            self._wanted -= Counter([chain_id])
            if chain_id not in self._wanted:
                del self._locks[chain_id]

    async def restore(self, image: Image) -> None:
        """Unpack what is missing of an image whose blobs are here."""
        await self.unpack(image.layers, image.diff_ids, Teller(quiet))

    async def _fill(
        self, work: Sequence[tuple[Path, LayerRecord, str]], teller: Teller
    ) -> list[Mapping[str, object]]:
        """Unpack several layers at once; the first failure ends the others and is raised alone."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._unpack_blob(partial, layer, diff_id, teller))
                    for partial, layer, diff_id in work
                ]
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _unpack_blob(
        self, partial: Path, layer: LayerRecord, diff_id: str, teller: Teller
    ) -> Mapping[str, object]:
        def report(message: Mapping[str, object]) -> None:
            teller.at(layer, diff_id, message.get("bytes", 0))

        async with self._workers:
            with await self._file_of(layer) as blob:
                argument = {"digest": layer.digest, "diff_id": diff_id, "plain": self._plain}
                places = (blob.fileno(), partial / "fs")
                outcome = await self.run(UNPACK, argument, places, report)
        teller.end(layer, diff_id)
        return outcome

    async def _file_of(self, layer: LayerRecord) -> BinaryIO:
        digest = Digest.parse(layer.digest)
        if digest not in self._content.thin:
            return self._content.open_file(digest)
        try:
            return await asyncio.to_thread(self._content.open_file, digest)
        except OSError as error:
            raise disk_error(error, "copy a blob") from error

    async def extract(self, layer: LayerRecord, diff_id: str, teller: Teller) -> Ready:
        """Extract a layer for whoever unpacks the image; it is the caller's to discard."""
        partial = self._snapshots.partial()
        try:
            return Ready(partial, await self._unpack_blob(partial, layer, diff_id, teller))
        except BaseException:
            self._snapshots.discard(partial)
            raise

    async def extract_several(
        self, work: Sequence[tuple[LayerRecord, str]], teller: Teller
    ) -> tuple[Path, dict[str, Ready]]:
        """Extract small layers (a blob and its diff ID) with one worker.

        Returns a folder, which is the caller's to discard, and what is ready in it, by diff ID.
        """

        def report(message: Mapping[str, object]) -> None:
            number = message["layer"]
            assert isinstance(number, int)
            teller.end(*work[number])

        partial = self._snapshots.partial()
        try:
            async with self._workers:
                with ExitStack() as opened:
                    blobs = [opened.enter_context(await self._file_of(one)) for one, _ in work]
                    layers = [
                        {"digest": layer.digest, "diff_id": id_, "plain": self._plain}
                        for layer, id_ in work
                    ]
                    places: list[int | Path] = [partial, *(blob.fileno() for blob in blobs)]
                    (partial / "fs").rmdir()
                    found = await self.run(SEVERAL, {"layers": layers}, places, report)
        except BaseException:
            self._snapshots.discard(partial)
            raise
        outcomes = found["layers"]
        assert isinstance(outcomes, list)
        ready = {
            diff_id: Ready(partial / str(number), outcome)
            for number, ((_, diff_id), outcome) in enumerate(zip(work, outcomes, strict=True))
            if outcome
        }
        return partial, ready

    async def follow(
        self, layer: LayerRecord, diff_id: str, teller: Teller, growing: tuple[int, int]
    ) -> Ready:
        """Do the same with a blob that is still being written, and verified by who writes it.

        ``growing``: the file, and a pipe that tells how much of it there is.
        """

        def report(message: Mapping[str, object]) -> None:
            teller.at(layer, diff_id, message.get("bytes", 0))

        partial = self._snapshots.partial()
        try:
            argument = {"diff_id": diff_id, "plain": self._plain}
            places = (*growing, partial / "fs")
            outcome = await self.run(FOLLOW, argument, places, report)
        except BaseException:
            self._snapshots.discard(partial)
            raise
        teller.end(layer, diff_id)
        return Ready(partial, outcome)

    async def difference(self, chain_id: str, layer: LayerRecord, diff_id: str) -> str:
        """Return what a layer's tree has that its blob has not, or the reverse; "" for nothing."""
        partial = self._snapshots.partial()
        try:
            outcome = await self._unpack_blob(partial, layer, diff_id, Teller(quiet))
            argument = {
                "one": f"{partial.name}/fs",
                "other": self._snapshots.tree(chain_id),
                "root": outcome["root"],
            }
            places = (self._snapshots.base,)
            found = await self.run(COMPARE, argument, places, lambda _: None)
        finally:
            self._snapshots.discard(partial)
        return str(found["difference"])

    async def merged_difference(self, chain_id: str, *, repair: bool) -> str:
        """Return how the whole image that a driver keeps differs from its layers; "" for not at all.

        With ``repair`` it is made anew then.
        """
        partial = self._snapshots.partial()
        made = f"{partial.name}/whole"
        try:
            kept = await self._snapshots.merge_anew(chain_id, made)
            if not kept:
                return ""
            argument = {"one": made, "other": kept, "root": True}
            places = (self._snapshots.base,)
            found = await self.run(COMPARE, argument, places, lambda _: None)
            if repair and found["difference"]:
                self._snapshots.replace(kept, made)
        finally:
            self._snapshots.discard(partial)
        return str(found["difference"])

    async def unpack_file(self, file: Path, partial: Path) -> Mapping[str, object]:
        """Unpack a layer that is no blob yet; returns what the job does."""
        fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            argument = {"plain": self._plain}
            return await self.run(UNPACK, argument, (fd, partial / "fs"), lambda _: None)
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
