"""The images that builds begin with and copy from: those that are here, and those that registries have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from berth.errors import NotFound
from berth.oci.reference import Reference

if TYPE_CHECKING:
    from berth.builds.output import Output
    from berth.builds.requests import BuildRequest
    from berth.engine.pulls import Pulls
    from berth.images.records import Image
    from berth.images.service import ImageService
    from berth.oci.platform import Platform


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
        auth = request.registries.get(reference.domain)
        if auth is None:
            auth = await request.offers.credentials(reference.domain)
        await self._pulls.pull(
            reference.familiar(),
            platform=str(platform) if platform else "",
            auth=auth,
            progress=output.report,
        )
        return self._images.resolve(name, platform)
