"""What a client gets of an image: a name in the engine, a copy in a registry, or files of its own."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from berth.buildkit import sending
from berth.buildkit.annotating import annotations_of
from berth.buildkit.lending import Lending
from berth.buildkit.sending import Spooled
from berth.buildkit.vertices import canonical, working
from berth.builds.service import tag_of
from berth.errors import BerthError, InvalidArgument, Unsupported
from berth.images.catalog import platform_of
from berth.images.save import ArchiveWriter, index_of
from berth.oci.digest import Digest
from berth.oci.reference import Reference

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

    from google.protobuf.message import Message

    from berth.buildkit.jobs import Job, Result
    from berth.buildkit.journal import Vertex
    from berth.builds.service import Builds
    from berth.engine.engine import Engine
    from berth.engine.services import Services
    from berth.images.annotations import Annotations
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

    async def export(self, job: Job, found: Result, wanted: Sequence[Message]) -> Said:
        """Give a client what it wants of images; return what there is to be said of that."""
        said: dict[str, str] = {}
        for number, exporter in enumerate(wanted):
            attrs = dict(exporter.Attrs)
            match exporter.Type:
                case "moby" | "image":
                    said |= await self._image(job, found, attrs)
                case "oci" | "docker":
                    said |= await self._archive(job, found, attrs, number, exporter.Type)
                case "local":
                    await self._local(job, found, number)
                case "tar":
                    await self._tar(job, found, number)
                case other:
                    raise Unsupported(f"exporter {other!r} is not part of berth")
        return said

    async def _image(self, job: Job, found: Result, attrs: Attrs) -> Said:
        names, ids = names_of(attrs), [image.id for image in found.images]
        said, annotations = self._said_of(found, names), annotations_of(attrs, found)
        async with working(job.journal, "exporting to image") as vertex:
            if annotations.entries and attrs.get("push") not in YES:
                await vertex.warn(
                    "annotations are not kept here: they are of what is pushed or sent"
                )
            for id_ in ids:
                vertex.progress(f"writing image {id_}", 0, done=True)
            for name in names:
                for id_ in ids:
                    self._images.tag(id_, name, among=ids)
                vertex.progress(f"naming to {canonical(name)}", 0, done=True)
        if attrs.get("push") in YES:
            if not names:
                raise InvalidArgument("tag is needed when pushing to registry")
            for name in names:
                if digest := await self._push(job, found, name, annotations):
                    said["containerimage.digest"] = digest
        return said

    async def _push(self, job: Job, found: Result, name: str, annotations: Annotations) -> str:
        """Push images by their name; return the digest of what the registry has."""
        reference = Reference.parse(name).with_default_tag()
        auth = await Lending(job.session).credentials(reference.domain)
        digests = [""]

        async with working(job.journal, f"pushing {canonical(name)}") as vertex:

            def progress(message: Mapping[str, object]) -> None:
                show_push(vertex, message)
                if isinstance(aux := message.get("aux"), dict):
                    digests.append(str(aux.get("Digest", "")))

            if found.several:
                return await self._pushes.push_together(
                    reference.familiar(),
                    found.images,
                    auth=auth,
                    annotations=annotations,
                    progress=progress,
                )
            await self._pushes.push(
                reference.familiar(),
                auth=auth,
                platform=None,
                annotations=annotations,
                progress=progress,
            )
        return digests[-1]

    async def cache(self, job: Job, found: Result, attrs: Attrs) -> None:
        """Send images to a registry for the steps that they are made of; they get no name here."""
        if not attrs.get("ref"):
            raise InvalidArgument("registry cache exporter requires ref")
        reference = Reference.parse(attrs["ref"]).with_default_tag()
        auth = await Lending(job.session).credentials(reference.domain)
        with suppress(*((BerthError,) if attrs.get("ignore-error") in YES else ())):
            async with working(job.journal, "exporting cache to registry") as vertex:

                def progress(message: Mapping[str, object]) -> None:
                    show_push(vertex, message)

                send = self._pushes.send_together if found.several else self._pushes.send
                await send(reference.familiar(), found.images, auth=auth, progress=progress)

    async def _archive(self, job: Job, found: Result, attrs: Attrs, number: int, kind: str) -> Said:
        if attrs.get("tar", "true") not in YES:
            raise Unsupported(f"exporter {kind!r} makes archives: tar=false is not part of berth")
        if found.several and kind == "docker":
            raise Unsupported("docker exporter does not currently support exporting manifest lists")
        names, images = names_of(attrs), found.images
        blobs = [blob for image in images for blob in image.blobs()]
        annotations = annotations_of(attrs, found)
        refuse_host(images)
        title = "docker image" if kind == "docker" else "oci image"
        async with working(job.journal, f"exporting to {title} format") as vertex:
            with self._content.hold(blobs):
                wanted = [(image, names) for image in images]
                archive = ArchiveWriter(
                    self._content, wanted, together=found.several, annotations=annotations
                )
                await sending.send_file(
                    job.session,
                    number,
                    archive.stream(),
                    lambda size: vertex.progress("sending tarball", size),
                )
        return self._said_of(found, names, annotations)

    def _said_of(
        self, found: Result, names: Sequence[str], annotations: Annotations | None = None
    ) -> dict[str, str]:
        """Return what clients write of images into files for metadata."""
        said = {"image.name": ",".join(map(canonical, names))} if names else {}
        if found.several:
            index = index_of(found.images, self._content, annotations)
            return {"containerimage.digest": str(Digest.of(index)), **said}
        id_ = found.images[0].id
        return {"containerimage.digest": id_, "containerimage.config.digest": id_, **said}

    async def _tar(self, job: Job, found: Result, number: int) -> None:
        image = alone(found)
        async with (
            working(job.journal, "exporting to client tarball") as vertex,
            self._builds.files(image) as chunks,
        ):
            await sending.send_file(
                job.session, number, chunks, lambda size: vertex.progress("sending tarball", size)
            )

    async def _local(self, job: Job, found: Result, number: int) -> None:
        refuse_host(found.images)
        async with (
            working(job.journal, "exporting to client directory") as vertex,
            self._builds.folder() as folder,
        ):
            paths: dict[str, Path] = {}
            for image in found.images:
                below = str(platform_of(image)).replace("/", "_") if found.several else ""
                async with self._builds.files(image) as chunks:
                    paths[below] = await spool(folder, chunks)
            async with opened(paths) as spooled:
                await sending.send_tree(
                    job.session,
                    number,
                    spooled,
                    lambda size: vertex.progress("copying files", size),
                )


def names_of(attrs: Attrs) -> list[str]:
    """Return the names that an image is to get."""
    return [tag_of(name) for name in attrs.get("name", "").split(",") if name]


def refuse_host(images: Sequence[Image]) -> None:
    """Refuse an image that shows this machine's files: they stay on it."""
    if any(image.is_of_host for image in images):
        raise InvalidArgument(
            "the image lies on one that is built in and never leaves this machine"
        )


def alone(found: Result) -> Image:
    """Return the one image that may leave this machine. Unsupported: there are several."""
    refuse_host(found.images)
    if len(found.images) > 1:
        raise Unsupported(
            "files of several platforms are no one archive: export them with type=local"
        )
    return found.images[0]


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
async def opened(paths: Mapping[str, Path]) -> AsyncIterator[Spooled]:
    """Give the members of archives in files, each below a directory of its own; "" for none."""
    spooled = await asyncio.to_thread(Spooled, paths)
    try:
        yield spooled
    finally:
        spooled.close()
