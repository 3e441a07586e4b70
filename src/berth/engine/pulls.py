"""Pulls: the registry's blobs become an image of this engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from berth.errors import NotFound
from berth.oci.platform import Platform
from berth.oci.reference import Reference
from berth.registry.auth import Credentials

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from berth.engine.events import Events
    from berth.images.service import ImageService
    from berth.registry.client import RegistryClient


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
        progress: Callable[[Mapping[str, object]], None],
    ) -> None:
        """Pull an image and name it; without a tag all tags of the repository.

        ``auth`` is an X-Registry-Auth header. ``progress`` gets Docker's messages, none before the image
        was found. Raises kinds with Docker's texts; what a failed pull fetched is kept for the next one.
        """
        reference = Reference.parse(name)
        credentials = Credentials.decode(auth)
        wanted = Platform.parse(platform) if platform else None
        if not reference.is_name_only:
            await self._pull_one(reference, wanted, credentials, progress)
            return
        for tag in await self._registry.tags(reference, credentials):
            await self._pull_one(reference.with_tag(tag), wanted, credentials, progress)

    async def _pull_one(
        self,
        reference: Reference,
        platform: Platform | None,
        credentials: Credentials | None,
        progress: Callable[[Mapping[str, object]], None],
    ) -> None:
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

    def _known(self, reference: Reference, platform: Platform | None) -> str | None:
        try:
            return self._images.resolve(reference.familiar(), platform).id
        except NotFound:
            return None
