"""Pushes: images of this engine become a registry's."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from berth.errors import InvalidArgument, NotFound
from berth.images.catalog import platform_of
from berth.oci.digest import Digest
from berth.oci.image import Descriptor
from berth.oci.reference import Reference
from berth.registry.auth import Credentials
from berth.registry.push import Parcel

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from berth.engine.events import Events
    from berth.images.annotations import Annotations
    from berth.images.records import Image
    from berth.images.service import ImageService
    from berth.oci.platform import Platform
    from berth.registry.client import RegistryClient
    from berth.registry.referrers import Attached


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """How an image is pushed; ``alone``: the tag is its, and not that of an index."""

    referrers: bool = False
    annotations: Annotations | None = None
    alone: bool = True


class Pushes:
    """Sends images out to registries."""

    def __init__(self, *, images: ImageService, registry: RegistryClient, events: Events) -> None:
        self._images = images
        self._registry = registry
        self._events = events

    async def push(
        self,
        name: str,
        *,
        auth: str,
        platform: Platform | None,
        referrers: bool = False,
        annotations: Annotations | None = None,
        progress: Callable[[Mapping[str, object]], None],
    ) -> None:
        """Push an image; without a tag all tags of the repository.

        With ``referrers`` also what is kept here of what refers to it; ``annotations``: of its manifest.
        ``auth`` is an X-Registry-Auth header. ``progress`` gets Docker's messages, and is called before
        anything can fail.
        """
        reference = Reference.parse(name)
        if reference.digest is not None:
            raise InvalidArgument("cannot push a digest reference")
        progress({"status": f"The push refers to repository [{reference.name}]"})
        tagged = self._tagged(reference)
        if not tagged:
            raise NotFound(
                f"An image does not exist locally with the tag: {reference.familiar_name}"
            )
        credentials = Credentials.decode(auth)
        for target in tagged:
            image = self._images.resolve(target.familiar(), platform)
            how = Pushed(referrers=referrers, annotations=annotations)
            digest = await self._push_one(target, credentials, image, progress, how)
            self._note(target, image, digest)

    async def push_together(
        self,
        name: str,
        images: Sequence[Image],
        *,
        auth: str,
        annotations: Annotations | None = None,
        progress: Callable[[Mapping[str, object]], None],
    ) -> str:
        """Push images as one for several platforms, an index; return its digest."""
        digest = await self.send_together(
            name, images, auth=auth, annotations=annotations, progress=progress
        )
        for image in images:
            self._note(Reference.parse(name), image, digest)
        return digest

    async def send(
        self,
        name: str,
        images: Sequence[Image],
        *,
        auth: str,
        progress: Callable[[Mapping[str, object]], None],
    ) -> str:
        """Push one image under a name that it has not, and does not get; return its manifest's digest."""
        [image] = images
        target, credentials = Reference.parse(name), Credentials.decode(auth)
        return await self._push_one(target, credentials, image, progress, Pushed())

    async def send_together(
        self,
        name: str,
        images: Sequence[Image],
        *,
        auth: str,
        annotations: Annotations | None = None,
        progress: Callable[[Mapping[str, object]], None],
    ) -> str:
        """Push an index of images under a name that they may not have; return its digest."""
        target, credentials = Reference.parse(name), Credentials.decode(auth)
        how, parts, said = Pushed(annotations=annotations, alone=False), [], {}
        for image in images:
            digest = await self._push_one(target, credentials, image, progress, how)
            parts.append((target.with_digest(digest), platform_of(image)))
            said[digest] = annotations.of_entry(image) if annotations else {}
        own = annotations.of_index() if annotations else {}
        return (
            await self._registry.assemble(target, parts, credentials, own=own, said=said)
        ).digest

    def _note(self, target: Reference, image: Image, digest: str) -> None:
        self._images.note_pushed(image, target, digest)
        self._events.emit("image", "push", target.familiar(), {"name": target.familiar_name})

    def _tagged(self, reference: Reference) -> list[Reference]:
        """Return the references of this engine's images that are meant."""
        names = {name for image in self._images.all() for name in image.names}
        if reference.tag:
            return [reference] if reference.familiar() in names else []
        found = (Reference.parse(name) for name in sorted(names))
        return [other for other in found if replace(other, tag=None) == reference]

    async def _push_one(
        self,
        target: Reference,
        credentials: Credentials | None,
        image: Image,
        progress: Callable[[Mapping[str, object]], None],
        how: Pushed,
    ) -> str:
        """Push an image and return its manifest's digest."""
        with self._images.content.hold(image.blobs()):
            shipment = await self._images.shipment(image, target)
            with self._images.content.hold(shipment.blobs()):
                manifest, media_type = shipment.manifest, shipment.media_type
                if how.annotations is not None:
                    manifest, media_type = how.annotations.applied(image, manifest, media_type)
                parcel = Parcel(
                    manifest=manifest,
                    media_type=media_type,
                    config=shipment.config,
                    layers=shipment.layers,
                    names=shipment.diff_ids,
                    neighbours=shipment.neighbours,
                    referrers=self._attached(image, manifest) if how.referrers else (),
                )
                where = target.with_digest(str(Digest.of(manifest)))
                return await self._registry.push(
                    target if how.alone else where,
                    parcel,
                    auth=credentials,
                    content=self._images.content,
                    progress=progress,
                )

    def _attached(self, image: Image, manifest: bytes) -> list[Attached]:
        """Return what refers to a manifest, as it is sent."""
        from berth.registry.referrers import Attached

        return [
            Attached(
                descriptor=Descriptor(
                    media_type=one.media_type,
                    digest=one.digest,
                    size=one.size,
                    annotations=one.annotations,
                    artifact_type=one.artifact_type,
                ),
                data=self._images.content.read(Digest(one.digest)),
                subject=one.subject,
                blobs=[
                    Descriptor(media_type=blob.media_type, digest=blob.digest, size=blob.size)
                    for blob in one.blobs
                ],
            )
            for one in image.referring_to(str(Digest.of(manifest)))
        ]
