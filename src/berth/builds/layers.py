"""Layers that no container makes: COPY, ADD and WORKDIR, by a worker in the root of the image being made."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from berth.builds import leftovers
from berth.engine.files import WrittenLayer
from berth.runtime import codec

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

    from berth.builds.leftovers import Leftovers
    from berth.engine.services import Services
    from berth.images.layers import Ready
    from berth.images.records import Image

    Document = dict[str, object]

COPY = "berth.builds.copying:copy"
DIGEST = "berth.builds.copying:digest"
MAX_DIGESTS = 1000  # that are remembered
MAX_FETCHES = (
    4  # of repositories at a time, for what Dockerfiles say: each has a worker that takes memory
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Some of what is to be copied: patterns below a directory of berthd's, or in an image."""

    patterns: Sequence[str]
    folder: Path | None = None
    image: Image | None = None
    extracts: bool = False
    parents: bool = False  # with the directories that lead to what is copied


@dataclass(frozen=True, slots=True, kw_only=True)
class Copying:
    """What is to be copied where; without parts the target is a directory to be made."""

    target: str
    parts: Sequence[Part] = ()
    excludes: Sequence[str] = ()
    owner: str = ""
    mode: str = ""
    latest_ns: int | None = None  # no file is said to be younger


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A layer in a file of the ingest directory, and its files."""

    path: Path
    digest: str
    size: int
    tree: Ready | None


class LayerMaker:
    """Makes layers for builds."""

    def __init__(self, services: Services, notes: Leftovers) -> None:
        self._images = services.images
        self.runtime = services.runtime
        self._notes = notes
        self.fetches = asyncio.Semaphore(MAX_FETCHES)
        self._digests: dict[bytes, tuple[str, int]] = {}  # images do not change

    @asynccontextmanager
    async def make(self, parent: Image, copying: Copying) -> AsyncIterator[Layer]:
        """Copy into a snapshot of ``parent``; give what that changed as a layer."""
        name = self._notes.note(leftovers.SNAPSHOT)
        path = self._images.content.temporary()
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            self._images.prepare_rootfs(parent, name, marked=False)
            await self._images.fill_rootfs(name)
            found = await self._copy(name, copying, file)
            if copying.latest_ns is not None:  # the files are not like the layer
                yield Layer(path=path, digest=found.digest, size=found.size, tree=None)
                return
            with self._images.derived.detached(name, found.files) as tree:
                yield Layer(path=path, digest=found.digest, size=found.size, tree=tree)
        finally:
            os.close(file)
            path.unlink(missing_ok=True)
            await self.forget(name)

    async def _copy(self, name: str, copying: Copying, file: int) -> WrittenLayer:
        """Copy into the snapshot ``name``, and write the layer to ``file``."""
        async with AsyncExitStack() as undo:
            sources: list[Document | None] = [
                await undo.enter_async_context(self.view(part.image)) if part.image else None
                for part in copying.parts
            ]
            fds = [file]
            for part in copying.parts:
                if part.folder is not None:
                    fds.append(open_folder(part.folder))
                    undo.callback(os.close, fds[-1])
            rootfs = self._images.rootfs(name).document()
            argument = {**described(copying, sources), "rootfs": rootfs}
            return msgspec.convert(await self._run(COPY, argument, fds), WrittenLayer)

    @asynccontextmanager
    async def view(self, image: Image) -> AsyncIterator[Document]:
        """Give an image's root, to be copied from, as workers are told of it."""
        name = self._notes.note(leftovers.SNAPSHOT)
        try:
            self._images.prepare_view(image, name)
            await self._images.fill_rootfs(name)
            yield self._images.derived.view(name)
        finally:
            await self.forget(name)

    async def forget(self, name: str) -> None:
        """Remove a snapshot that was noted."""
        await self._images.remove_rootfs(name)
        self._notes.forget(name)

    async def digest(
        self,
        image: Image,
        patterns: Sequence[str],
        excludes: Sequence[str] = (),
        *,
        parents: bool = False,
    ) -> tuple[str, int]:
        """Return the hash of what patterns select in an image, and how much they name."""
        question: Document = {
            "digest": list(patterns),
            "excludes": list(excludes),
            "parents": parents,
        }
        key = codec.encode([image.diff_ids, question])
        if key not in self._digests:
            async with self.view(image) as source:
                found = await self._run(DIGEST, {**question, "source": source}, [])
            count = found["count"]
            assert isinstance(count, int)
            while len(self._digests) >= MAX_DIGESTS:
                del self._digests[next(iter(self._digests))]
            self._digests[key] = str(found["digest"]), count
        return self._digests[key]

    async def _run(self, entry: str, argument: Document, fds: list[int]) -> Mapping[str, object]:
        job = await self.runtime.run_job(entry, argument, fds=fds, template=True)
        try:
            return await job.result()
        finally:
            await job.end()


def described(copying: Copying, sources: Sequence[Document | None]) -> Document:
    """Return what a worker is told of copying, but for the root. ``sources``: roots of the parts' images."""
    parts = [
        {
            "patterns": list(part.patterns),
            "source": source,
            "extracts": part.extracts,
            "parents": part.parents,
        }
        for part, source in zip(copying.parts, sources, strict=True)
    ]
    return {
        "parts": parts,
        "target": copying.target,
        "excludes": list(copying.excludes),
        "owner": copying.owner,
        "mode": copying.mode,
        "latest_ns": copying.latest_ns,
    }


def open_folder(path: Path) -> int:
    """Open a directory of berthd's own."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
