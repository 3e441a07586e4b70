"""One build, from what a client sends to an image."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from berth.builds import context, fetching, repositories
from berth.builds.arguments import KEEPS_GIT
from berth.builds.bases import Bases
from berth.builds.builder import Builder
from berth.builds.contextwork import MAX_TEXT_BYTES
from berth.builds.layers import LayerMaker
from berth.builds.mounts import Mounts
from berth.builds.runs import Runs
from berth.builds.stagebuilder import Means
from berth.dockerfile import stages
from berth.dockerfile.mounts import TRUE
from berth.errors import BerthError, Failed, InvalidArgument
from berth.images import compressions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from berth.builds.caches import Caches
    from berth.builds.context import Context, Received
    from berth.builds.leftovers import Leftovers
    from berth.builds.output import Output
    from berth.builds.requests import BuildRequest
    from berth.engine.engine import Engine
    from berth.engine.services import Services
    from berth.images.records import Image
    from berth.runtime.client import Runtime

READ_BYTES = 1 << 18


class Source(Protocol):
    """Where a build's Dockerfile and context come from."""

    def open(self, folder: Path) -> AbstractAsyncContextManager[tuple[str, Context]]:
        """Give the text of the Dockerfile and the context; ``folder`` is the build's own."""
        ...


class Making:
    """Builds what Dockerfiles say."""

    def __init__(
        self, services: Services, engine: Engine, notes: Leftovers, caches: Caches
    ) -> None:
        self._notes = notes
        layers = LayerMaker(services, notes)
        bases = Bases(services.images, engine.pulls)
        self.look, self.find = bases.look, bases.find
        self._means = Means(
            images=services.images,
            bases=bases,
            layers=layers,
            runs=Runs(services, engine.containers, engine.files, notes),
            mounts=Mounts(services, layers, caches, notes),
        )

    async def images(
        self, wanted: Sequence[tuple[BuildRequest, Output]], source: Source
    ) -> list[Image]:
        """Build images of one source, one after the other, and return them."""
        async with self._notes.folder() as folder, source.open(folder) as (text, files):
            if not text.strip():
                name = wanted[0][0].dockerfile or "Dockerfile"
                raise InvalidArgument(f"the Dockerfile ({name}) cannot be empty")
            dockerfile = await asyncio.to_thread(stages.read, text)
            return [
                await Builder(request, output, self._means).build(dockerfile, files, folder)
                for request, output in wanted
            ]


class Archive:
    """The source of a build whose client sends it as an archive, or names a URL of it."""

    def __init__(self, runtime: Runtime, request: BuildRequest, body: AsyncIterator[bytes]) -> None:
        self._runtime = runtime
        self._request = request
        self._body = body

    @asynccontextmanager
    async def open(self, folder: Path) -> AsyncIterator[tuple[str, Context]]:
        """Give the text of the Dockerfile and the context."""
        async with self.received(folder) as (remote, received):
            yield remote or await received.dockerfile(self._request.dockerfile), received

    @asynccontextmanager
    async def received(self, folder: Path) -> AsyncIterator[tuple[str, Received]]:
        """Give the text of the Dockerfile, if that is all that a URL leads to, and what was sent."""
        async with AsyncExitStack() as undo:
            if repositories.is_repository(self._request.remote):
                remote, archive = "", await self._repository(folder, undo)
            else:
                remote, archive = await self._remote(self._request, folder, self._body)
            received = context.receive(self._runtime, folder, archive)
            yield remote, await undo.enter_async_context(received)

    async def _repository(self, folder: Path, undo: AsyncExitStack) -> AsyncIterator[bytes]:
        wanted = repositories.read(self._request.remote)
        if self._request.arguments.get(KEEPS_GIT) in TRUE:
            wanted = replace(wanted, keeps_git=True)
        try:
            offers, runtime = self._request.offers, self._runtime
            fetched = repositories.fetched(wanted, folder, offers, runtime, trusted=True)
            return (await undo.enter_async_context(fetched)).pieces()
        except BerthError as error:
            raise Failed(f"unable to prepare context: {error.message}", hint=error.hint) from error

    async def _remote(
        self, request: BuildRequest, folder: Path, body: AsyncIterator[bytes]
    ) -> tuple[str, AsyncIterator[bytes]]:
        """Return the Dockerfile, if that is what a URL leads to, and the archive of the context."""
        url = request.remote
        if not url or url == "client-session":
            return "", body
        if not fetching.is_url(url):
            raise InvalidArgument(f"remote {url!r} is no URL of a Dockerfile or an archive")
        try:
            await fetching.fetch(url, folder, "remote")
        except BerthError as error:
            raise Failed(f"error downloading remote context {url}: {error.message}") from error
        fetched = folder / "remote"
        with fetched.open("rb") as file:
            head = file.read(compressions.HEAD_BYTES)
        if compressions.is_archive(head):
            return "", pieces(fetched)
        if fetched.stat().st_size > MAX_TEXT_BYTES:
            raise InvalidArgument(f"{url} is no archive, and larger than a Dockerfile may be")
        return fetched.read_text("utf-8", "replace"), nothing()


async def pieces(path: Path) -> AsyncIterator[bytes]:
    """Yield a file."""
    with path.open("rb") as file:
        while data := await asyncio.to_thread(file.read, READ_BYTES):
            yield data


async def nothing() -> AsyncIterator[bytes]:
    """Yield an archive that is not there."""
    pieces: Sequence[bytes] = ()
    for piece in pieces:
        yield piece
