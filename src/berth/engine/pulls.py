"""Pulls: the registry's blobs become an image of this engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from berth.errors import NotFound
from berth.images.records import LayerRecord, Referrer
from berth.oci.platform import Platform
from berth.oci.reference import Reference
from berth.registry import progress as messages
from berth.registry.auth import Credentials

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from berth.engine.events import Events
    from berth.images.records import Image
    from berth.images.service import ImageService
    from berth.oci.image import ImageDocument
    from berth.registry.client import PulledImage, RegistryClient
    from berth.registry.referrers import Attached


class Pulls:
    """Brings images in from registries."""

    def __init__(self, *, images: ImageService, registry: RegistryClient, events: Events) -> None:
        self._images = images
        self._registry = registry
        self._events = events

    async def pull(
        self,
        name: str,
        *,
        platform: str,
        auth: str,
        referrers: bool = False,
        progress: Callable[[Mapping[str, object]], None],
    ) -> None:
        """Pull an image and name it; without a tag all tags of the repository.

        With ``referrers`` what refers to it is fetched and kept with it.

        ``auth`` is an X-Registry-Auth header. ``progress`` gets Docker's messages, none before the image
        was found. Raises kinds with Docker's texts; what a failed pull fetched is kept for the next one.
        """
        reference = Reference.parse(name)
        credentials = Credentials.decode(auth)
        wanted = Platform.parse(platform) if platform else None
        names = [reference]
        if reference.is_name_only:
            tags = await self._registry.tags(reference, credentials)
            names = [reference.with_tag(tag) for tag in tags]
        for one in names:
            image, pulled = await self._pull_one(one, wanted, credentials, progress)
            if referrers:
                await self._pull_referrers(image, pulled, credentials, progress)

    async def configuration(
        self, name: str, *, platform: Platform | None, auth: str
    ) -> ImageDocument:
        """Return the configuration of a registry's image without pulling it."""
        reference, credentials = Reference.parse(name), Credentials.decode(auth)
        return await self._registry.configuration(reference, platform, credentials)

    async def _pull_one(
        self,
        reference: Reference,
        platform: Platform | None,
        credentials: Credentials | None,
        progress: Callable[[Mapping[str, object]], None],
    ) -> tuple[Image, PulledImage]:
        async with self._images.unpacking(progress) as early:
            pulled = await self._registry.pull(
                reference,
                platform=platform,
                auth=credentials,
                content=self._images.content,
                progress=progress,
                watcher=early,
            )
            before = self._known(reference, platform)
            image = await self._images.add_pulled(
                reference=reference,
                descriptor=pulled.manifest,
                id_=pulled.config.digest,
                repo_digest=pulled.descriptor.digest,
                early=early,
            )
        for message in pulled.summary(newer=image.id != before):
            progress(message)
        familiar = reference.familiar()
        self._events.emit("image", "pull", familiar, {"name": reference.familiar_name})
        return image, pulled

    async def _pull_referrers(
        self,
        image: Image,
        pulled: PulledImage,
        credentials: Credentials | None,
        progress: Callable[[Mapping[str, object]], None],
    ) -> None:
        subjects = dict.fromkeys((pulled.manifest.digest, pulled.descriptor.digest))
        found = await self._registry.pull_referrers(
            pulled.reference,
            list(subjects),
            auth=credentials,
            content=self._images.content,
            progress=progress,
        )
        self._images.keep_referrers(image, [record_of(one) for one in found])
        for one in found:
            progress(messages.referrer(one.descriptor, "Pulled"))

    def _known(self, reference: Reference, platform: Platform | None) -> str | None:
        try:
            return self._images.resolve(reference.familiar(), platform).id
        except NotFound:
            return None


def record_of(one: Attached) -> Referrer:
    """Return an artifact as an image's record has it."""
    return Referrer(
        digest=one.descriptor.digest,
        media_type=one.descriptor.media_type,
        size=one.descriptor.size,
        subject=one.subject,
        artifact_type=one.descriptor.artifact_type,
        annotations=one.descriptor.annotations,
        blobs=[
            LayerRecord(digest=blob.digest, media_type=blob.media_type, size=blob.size)
            for blob in one.blobs
        ],
    )
