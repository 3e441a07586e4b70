"""The images that builds begin with and copy from: those that are here, and those that registries have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from berth.dockerfile.survey import Base
from berth.errors import NotFound
from berth.images.catalog import platform_of
from berth.oci.image import ImageConfig
from berth.oci.platform import Platform
from berth.oci.reference import Reference

if TYPE_CHECKING:
    from berth.builds.output import Output
    from berth.builds.requests import BuildRequest
    from berth.engine.pulls import Pulls
    from berth.images.records import Image
    from berth.images.service import ImageService


class Bases:
    """Finds images, and pulls those that are missing."""

    def __init__(self, images: ImageService, pulls: Pulls) -> None:
        self._images = images
        self._pulls = pulls

    async def find(
        self, name: str, platform: Platform | None, request: BuildRequest, output: Output
    ) -> Image:
        """Return an image; pulled when it is not here, or when the request wants that."""
        if not request.pull:
            try:
                return self._images.resolve(name, platform)
            except NotFound:
                pass
        reference = Reference.parse(name).with_default_tag()
        await self._pulls.pull(
            reference.familiar(),
            platform=str(platform) if platform else "",
            auth=await _credentials(reference, request),
            progress=output.report,
        )
        return self._images.resolve(name, platform)

    async def look(self, name: str, platform: Platform | None, request: BuildRequest) -> Base:
        """Return what an image is like, pulled or not."""
        if not request.pull:
            try:
                image = self._images.resolve(name, platform)
                return Base(config=image.config, platform=platform_of(image))
            except NotFound:
                pass
        reference = Reference.parse(name).with_default_tag()
        found = await self._pulls.configuration(
            reference.familiar(), platform=platform, auth=await _credentials(reference, request)
        )
        own = Platform(
            os=found.os or "linux", architecture=found.architecture, variant=found.variant
        )
        return Base(config=found.config or ImageConfig(), platform=own.normal())


async def _credentials(reference: Reference, request: BuildRequest) -> str:
    auth = request.registries.get(reference.domain)
    return await request.offers.credentials(reference.domain) if auth is None else auth
