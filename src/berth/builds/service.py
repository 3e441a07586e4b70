"""The builds of an engine: begun, cancelled, and cleared away."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING

from berth.builds import context, fetching, leftovers
from berth.builds.bases import Bases
from berth.builds.builder import Builder
from berth.builds.layers import LayerMaker
from berth.builds.leftovers import Leftovers
from berth.builds.output import Output
from berth.builds.runs import Runs
from berth.dockerfile import stages
from berth.errors import Failed, InvalidArgument, NotFound
from berth.images.catalog import familiar
from berth.images.streams import compression

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
    from pathlib import Path

    from berth.builds.context import Context
    from berth.builds.output import Listener
    from berth.builds.requests import BuildRequest
    from berth.engine.engine import Engine
    from berth.engine.services import Services

READ_BYTES = 1 << 18
TAR_MAGIC = slice(257, 262)
HEAD_BYTES = 512


class Builds:
    """Makes images from Dockerfiles."""

    def __init__(self, services: Services, engine: Engine) -> None:
        self._services = services
        self._images = engine.images
        self._containers = engine.containers
        self._notes = Leftovers(state=services.state, data_root=services.data_root)
        self._bases = Bases(services.images, engine.pulls)
        self._layers = LayerMaker(services, self._notes)
        self._runs = Runs(services, engine.containers, engine.files, self._notes)
        self._running: dict[str, asyncio.Timeout] = {}

    async def open(self) -> None:
        """Remove what builds left that were cut off."""
        self._notes.clear_folders()
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
        names = [tag_of(tag) for tag in request.tags]
        output = Output(listener, quiet=request.quiet)
        try:
            with self._cancellable(id_) as scope:
                async with scope:
                    image_id = await self._build(request, body, output)
        except TimeoutError as error:
            raise Failed("context canceled") from error
        await output.done(image_id)
        for name in dict.fromkeys(names):
            self._images.tag(image_id, name)
            await output.say(f"Successfully tagged {name}\n")

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

    async def prune(self, filters: Mapping[str, Sequence[str]]) -> Mapping[str, object]:
        """Remove what builds have made that has no name and that no image with a name is made of."""
        return await self._images.prune_builds(filters)

    async def _build(
        self, request: BuildRequest, body: AsyncIterator[bytes], output: Output
    ) -> str:
        async with self._notes.folder() as folder:
            dockerfile, archive = await self._remote(request, folder, body)
            async with context.receive(self._services.runtime, folder, archive) as received:
                text = dockerfile or await self._dockerfile(received, request)
                if not text.strip():
                    raise InvalidArgument(
                        f"the Dockerfile ({request.dockerfile or 'Dockerfile'}) cannot be empty"
                    )
                builder = Builder(
                    request,
                    output,
                    images=self._services.images,
                    bases=self._bases,
                    layers=self._layers,
                    runs=self._runs,
                )
                image = await builder.build(stages.read(text), received, folder)
                return image.id

    async def _dockerfile(self, received: Context, request: BuildRequest) -> str:
        name = request.dockerfile if not request.remote else ""
        return await received.dockerfile(name or request.dockerfile)

    async def _remote(
        self, request: BuildRequest, folder: Path, body: AsyncIterator[bytes]
    ) -> tuple[str, AsyncIterator[bytes]]:
        """Return the Dockerfile, if that is what a URL leads to, and the archive of the context."""
        url = request.remote
        if not url or url == "client-session":
            return "", body
        fetching.refuse_git(url)
        if not fetching.is_url(url):
            raise InvalidArgument(f"remote {url!r} is no URL of a Dockerfile or an archive")
        await fetching.fetch(url, folder, "remote")
        fetched = folder / "remote"
        with fetched.open("rb") as file:
            head = file.read(HEAD_BYTES)
        if compression(head) is not None or head[TAR_MAGIC] == b"ustar":
            return "", _pieces(fetched)
        return fetched.read_text("utf-8", "replace"), _each(())


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while data := await asyncio.to_thread(file.read, READ_BYTES):
            yield data


async def _each(pieces: Sequence[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def tag_of(text: str) -> str:
    """Return a name that the image is to get; InvalidArgument in Docker's words."""
    if "@" in text:
        raise InvalidArgument("build tag cannot contain a digest")
    return familiar(text)
