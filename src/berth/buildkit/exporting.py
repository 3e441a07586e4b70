"""What a client gets of an image: a name in the engine, a copy in a registry, or files of its own."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from berth.buildkit import sending
from berth.buildkit.lending import Lending
from berth.buildkit.sending import Spooled
from berth.buildkit.vertices import canonical, working
from berth.builds.service import tag_of
from berth.errors import InvalidArgument, Unsupported
from berth.images.save import ArchiveWriter
from berth.oci.reference import Reference

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

    from google.protobuf.message import Message

    from berth.buildkit.jobs import Job
    from berth.buildkit.journal import Vertex
    from berth.builds.service import Builds
    from berth.engine.engine import Engine
    from berth.engine.services import Services
    from berth.images.records import Image

    Attrs = Mapping[str, str]
    Said = Mapping[str, str]

YES = ("1", "t", "T", "true", "TRUE", "True")


class Exporters:
    """Exports images."""

    def __init__(self, services: Services, engine: Engine, builds: Builds) -> None:
        self._content = services.images.content
        self._images = engine.images
        self._pushes = engine.pushes
        self._builds = builds

    async def export(self, job: Job, image: Image, wanted: Sequence[Message]) -> Said:
        """Give a client what it wants of an image; return what there is to be said of that."""
        said: dict[str, str] = {}
        for number, exporter in enumerate(wanted):
            attrs = dict(exporter.Attrs)
            match exporter.Type:
                case "moby" | "image":
                    said |= await self._image(job, image, attrs)
                case "oci" | "docker":
                    said |= await self._archive(job, image, attrs, number, exporter.Type)
                case "local":
                    await self._local(job, image, number)
                case "tar":
                    await self._tar(job, image, number)
                case other:
                    raise Unsupported(f"exporter {other!r} is not part of berth")
        return said

    async def _image(self, job: Job, image: Image, attrs: Attrs) -> Said:
        names = names_of(attrs)
        async with working(job.journal, "exporting to image") as vertex:
            vertex.progress(f"writing image {image.id}", 0, done=True)
            for name in names:
                self._images.tag(image.id, name)
                vertex.progress(f"naming to {canonical(name)}", 0, done=True)
        said = said_of(image, names)
        if attrs.get("push") in YES:
            if not names:
                raise InvalidArgument("tag is needed when pushing to registry")
            for name in names:
                if digest := await self._push(job, name):
                    said["containerimage.digest"] = digest
        return said

    async def _push(self, job: Job, name: str) -> str:
        """Push an image by its name; return the digest of what the registry has."""
        reference = Reference.parse(name).with_default_tag()
        digests: list[str] = []

        async with working(job.journal, f"pushing {canonical(name)}") as vertex:

            def progress(message: Mapping[str, object]) -> None:
                show_push(vertex, message)
                if isinstance(aux := message.get("aux"), dict):
                    digests.append(str(aux.get("Digest", "")))

            await self._pushes.push(
                reference.familiar(),
                auth=await Lending(job.session).credentials(reference.domain),
                platform=None,
                progress=progress,
            )
        return digests[-1] if digests else ""

    async def _archive(self, job: Job, image: Image, attrs: Attrs, number: int, kind: str) -> Said:
        if attrs.get("tar", "true") not in YES:
            raise Unsupported(f"exporter {kind!r} makes archives: tar=false is not part of berth")
        refuse_host(image)
        names = names_of(attrs)
        title = "docker image" if kind == "docker" else "oci image"
        async with working(job.journal, f"exporting to {title} format") as vertex:
            with self._content.hold(image.blobs()):
                chunks = ArchiveWriter(self._content, [(image, names)]).stream()
                await sending.send_file(
                    job.session,
                    number,
                    chunks,
                    lambda size: vertex.progress("sending tarball", size),
                )
        return said_of(image, names)

    async def _tar(self, job: Job, image: Image, number: int) -> None:
        refuse_host(image)
        async with (
            working(job.journal, "exporting to client tarball") as vertex,
            self._builds.files(image) as chunks,
        ):
            await sending.send_file(
                job.session, number, chunks, lambda size: vertex.progress("sending tarball", size)
            )

    async def _local(self, job: Job, image: Image, number: int) -> None:
        refuse_host(image)
        async with (
            working(job.journal, "exporting to client directory") as vertex,
            self._builds.folder() as folder,
        ):
            async with self._builds.files(image) as chunks:
                path = await spool(folder, chunks)
            async with opened(path) as spooled:
                await sending.send_tree(
                    job.session,
                    number,
                    spooled,
                    lambda size: vertex.progress("copying files", size),
                )


def names_of(attrs: Attrs) -> list[str]:
    """Return the names that an image is to get."""
    return [tag_of(name) for name in attrs.get("name", "").split(",") if name]


def said_of(image: Image, names: Sequence[str]) -> dict[str, str]:
    """Return what clients write of an image into files for metadata."""
    said = {"containerimage.digest": image.id, "containerimage.config.digest": image.id}
    return {**said, "image.name": ",".join(map(canonical, names))} if names else said


def refuse_host(image: Image) -> None:
    """Refuse an image that shows this machine's files: they stay on it."""
    if image.is_of_host:
        raise InvalidArgument(
            "the image lies on one that is built in and never leaves this machine"
        )


def show_push(vertex: Vertex, message: Mapping[str, object]) -> None:
    """Show how far a push is."""
    id_, detail = message.get("id"), message.get("progressDetail")
    if not id_:
        return
    if isinstance(detail, dict) and detail:
        vertex.progress(f"pushing layer {id_}", detail.get("current", 0), detail.get("total", 0))
    elif message.get("status") in ("Pushed", "Layer already exists"):
        vertex.progress(f"pushing layer {id_}", 0, done=True)


async def spool(folder: Path, chunks: AsyncIterator[bytes]) -> Path:
    """Write an archive into a file of a build's own."""
    path = folder / os.urandom(8).hex()
    with path.open("xb") as file:
        async for chunk in chunks:
            await asyncio.to_thread(file.write, chunk)
    return path


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Spooled]:
    """Give the members of an archive in a file."""
    spooled = await asyncio.to_thread(Spooled, path)
    try:
        yield spooled
    finally:
        spooled.close()
