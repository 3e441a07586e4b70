"""Pushes: images of this engine become a registry's."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from berth.errors import InvalidArgument, NotFound
from berth.oci.digest import Digest
from berth.oci.image import Descriptor
from berth.oci.reference import Reference
from berth.registry.auth import Credentials
from berth.registry.push import Parcel

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from berth.engine.events import Events
    from berth.images.records import Image
    from berth.images.service import ImageService
    from berth.oci.platform import Platform
    from berth.registry.client import RegistryClient
    from berth.registry.referrers import Attached


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
        progress: Callable[[Mapping[str, object]], None],
    ) -> None:
        """Push an image; without a tag all tags of the repository.

        With ``referrers`` also what is kept here of what refers to it.
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
            await self._push_one(target, credentials, image, progress, referrers=referrers)

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
        *,
        referrers: bool,
    ) -> None:
        with self._images.content.hold(image.blobs()):
            shipment = await self._images.shipment(image, target)
            with self._images.content.hold(shipment.blobs()):
                parcel = Parcel(
                    manifest=shipment.manifest,
                    media_type=shipment.media_type,
                    config=shipment.config,
                    layers=shipment.layers,
                    names=shipment.diff_ids,
                    neighbours=shipment.neighbours,
                    referrers=self._attached(image, shipment.manifest) if referrers else (),
                )
                digest = await self._registry.push(
                    target,
                    parcel,
                    auth=credentials,
                    content=self._images.content,
                    progress=progress,
                )
        self._images.note_pushed(image, target, digest)
        self._events.emit("image", "push", target.familiar(), {"name": target.familiar_name})

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
