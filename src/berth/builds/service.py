"""The builds of an engine: begun, cancelled, and cleared away."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from berth.builds import leftovers
from berth.builds.caches import Caches
from berth.builds.leftovers import Leftovers
from berth.errors import BerthError, Failed, InvalidArgument, NotFound
from berth.images.catalog import created_ns, familiar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from berth.builds.making import Making, Source
    from berth.builds.output import Listener, Messages, Output
    from berth.builds.pruning import Entry, Pruning
    from berth.builds.requests import BuildRequest
    from berth.dockerfile.survey import Base
    from berth.engine.engine import Engine
    from berth.engine.services import Services
    from berth.images.disposal import Step
    from berth.images.records import Image
    from berth.oci.platform import Platform

STEP = "regular"  # as BuildKit calls them


class Builds:
    """Makes images from Dockerfiles."""

    def __init__(self, services: Services, engine: Engine) -> None:
        self._services = services
        self._images = engine.images
        self._containers = engine.containers
        self._notes = Leftovers(state=services.state, data_root=services.data_root)
        self._caches = Caches(state=services.state, data_root=services.data_root)
        self._engine = engine
        self._making: Making | None = None
        self._running: dict[str, asyncio.Timeout] = {}

    async def open(self) -> None:
        """Remove what builds left that were cut off."""
        self._notes.clear_folders()
        self._caches.clear()
        for kind, name in self._notes.all():
            if kind == leftovers.SNAPSHOT:
                await self._services.images.remove_rootfs(name)
            else:
                await self._remove_container(name)
            self._notes.forget(name)

    async def _remove_container(self, name: str) -> None:
        try:
            await self._containers.remove(name, force=True, volumes=True)
        except NotFound:
            return

    async def build(
        self, request: BuildRequest, body: AsyncIterator[bytes], listener: Listener, *, id_: str
    ) -> None:
        """Build an image, name it, and tell the listener all the way. ``id_``: by which to cancel it.

        Raises kinds in Docker's words. A cancellation leaves nothing but the images of finished steps.
        """
        from berth.builds.making import Archive  # megabytes, for those who build
        from berth.builds.output import Messages

        names = [tag_of(tag) for tag in request.tags]
        output = Messages(listener, quiet=request.quiet)
        source = Archive(self._services.runtime, request, body)
        try:
            with self._cancellable(id_) as scope:
                async with scope:
                    work = self.make([(request, output)], source)
                    [image] = await self._telling(work, output)
        except TimeoutError as error:
            if not scope.expired():
                raise
            raise Failed("context canceled") from error
        await output.done(image.id)
        for name in dict.fromkeys(names):
            self._images.tag(image.id, name)
            await output.say(f"Successfully tagged {name}")

    async def _telling(self, work: Awaitable[list[Image]], output: Messages) -> list[Image]:
        try:
            return await work
        except BerthError:
            await output.failed()
            raise

    async def make(
        self, wanted: Sequence[tuple[BuildRequest, Output]], source: Source
    ) -> list[Image]:
        """Build images that get no names yet. A cancellation is as in :meth:`build`."""
        return await self._made().images(wanted, source)

    async def for_platform(self, image: Image, platform: Platform) -> Image:
        """Return the same image, said to be for a platform."""
        return await self._services.images.derived.for_platform(image, platform)

    async def look(self, name: str, platform: Platform | None, request: BuildRequest) -> Base:
        """Return what an image is like that a build may begin with; it is not pulled."""
        return await self._made().look(name, platform, request)

    async def find(
        self, name: str, platform: Platform | None, request: BuildRequest, output: Output
    ) -> Image:
        """Return an image, pulled if it is not here."""
        return await self._made().find(name, platform, request, output)

    def _made(self) -> Making:
        if self._making is None:
            from berth.builds.making import Making

            self._making = Making(self._services, self._engine, self._notes, self._caches)
        return self._making

    @asynccontextmanager
    async def files(self, image: Image) -> AsyncIterator[AsyncIterator[bytes]]:
        """Give an archive of an image's files, while the context lasts."""
        name, images = self._notes.note(leftovers.SNAPSHOT), self._services.images
        try:
            images.prepare_rootfs(image, name, marked=False)
            await images.fill_rootfs(name)
            async with self._engine.files.export_root(name) as chunks:
                yield chunks
        finally:
            await images.remove_rootfs(name)
            self._notes.forget(name)

    def folder(self) -> AbstractAsyncContextManager[Path]:
        """Give a directory for what a build's client is to get."""
        return self._notes.folder()

    @contextmanager
    def _cancellable(self, id_: str) -> Iterator[asyncio.Timeout]:
        scope = asyncio.timeout(None)
        if id_:
            self._running[id_] = scope
        try:
            yield scope
        finally:
            if id_:
                self._running.pop(id_, None)

    def cancel(self, id_: str) -> None:
        """Cancel the build that a client has given this id."""
        if not id_:
            raise InvalidArgument("build ID not provided")
        if id_ in self._running:
            self._running[id_].reschedule(asyncio.get_running_loop().time())

    async def prune(self, wanted: Pruning) -> Mapping[str, object]:
        """Remove what builds have left, the longest unused first: no more than need be for what is wanted.

        Without ``everything`` nothing that an image with a name is made of.
        """
        steps, caches = self._images.steps(), await self._caches.entries()
        entries = [*map(_entry, steps), *caches]
        total = sum(entry.size_bytes for entry in entries)
        disk = os.statvfs(self._services.data_root)
        keep = wanted.keep_bytes(total, disk.f_bavail * disk.f_frsize)
        known, removed, reclaimed = {entry.id for entry in caches}, [], 0
        chosen = [entry for entry in entries if wanted.chooses(entry)]
        left = sorted(chosen if wanted.everything else _unneeded(chosen, entries), key=_age)
        while left and (keep is None or total > keep):
            entry = _first_removable(left)
            left.remove(entry)
            remove = self._caches.remove if entry.id in known else self._images.remove_step
            if await remove(entry.id):
                removed.append(entry.id)
                total, reclaimed = total - entry.size_bytes, reclaimed + entry.size_bytes
        return {"CachesDeleted": removed, "SpaceReclaimed": reclaimed}

    async def caches(self) -> Sequence[Mapping[str, object]]:
        """Return what commands of RUN have kept, as /system/df shows it."""
        return await self._caches.documents()


def _entry(step: Step) -> Entry:
    from berth.builds.pruning import Entry

    image = step.image
    return Entry(
        id=image.id,
        kind=STEP,
        size_bytes=step.size_bytes,
        used_ns=created_ns(image.created),
        parent=image.parent,
        description=image.step,
        in_use=step.in_use,
        shared=step.shared,
    )


def _age(entry: Entry) -> int:
    return entry.used_ns


def _unneeded(chosen: Sequence[Entry], entries: Sequence[Entry]) -> list[Entry]:
    """Return those of ``chosen`` of which nothing is made that stays."""
    left = list(chosen)
    while True:
        ids = {entry.id for entry in left}
        needed = {entry.parent for entry in entries if entry.id not in ids}
        kept = [entry for entry in left if entry.id not in needed]
        if len(kept) == len(left):
            return left
        left = kept


def _first_removable(entries: Sequence[Entry]) -> Entry:
    """Return the first that nothing else of them is made of: steps go from their ends."""
    parents = {entry.parent for entry in entries}
    return next(entry for entry in entries if entry.id not in parents)


def tag_of(text: str) -> str:
    """Return a name that the image is to get; InvalidArgument in Docker's words."""
    if "@" in text:
        raise InvalidArgument("build tag cannot contain a digest")
    return familiar(text)
