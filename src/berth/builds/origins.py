"""What FROM, ``COPY --from`` and ``--mount=from=`` name: stages, named contexts, and images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from berth.errors import BerthError, Failed, InvalidArgument, NotFound
from berth.images.records import Image

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from berth.builds.bases import Bases
    from berth.builds.context import Context
    from berth.builds.output import Output
    from berth.builds.requests import BuildRequest
    from berth.builds.stage import StageState
    from berth.dockerfile.stages import Dockerfile
    from berth.oci.platform import Platform

    Origin = Image | Context


class Origins:
    """Finds them for one build."""

    def __init__(
        self,
        bases: Bases,
        request: BuildRequest,
        output: Output,
        dockerfile: Dockerfile,
        before: int,
        results: Callable[[int], Awaitable[StageState | None]],
    ) -> None:
        """``results``: returns the end of a stage by its index, None of one that is not built."""
        self._bases = bases
        self._request = request
        self._output = output
        self._dockerfile = dockerfile
        self._before = before
        self._results = results

    def context(self, name: str) -> str | Context | None:
        """Return what the client says to take for a name: an image's name, or files; None for nothing."""
        return self._request.context(name)

    async def stage(self, name: str, before: int) -> StageState | None:
        """Return the end of a stage that is ``before`` another; None when there is none of this name."""
        found = self._dockerfile.find(name, before)
        return None if found is None else await self._results(found.index)

    async def image(self, name: str, platform: Platform | None) -> Image:
        """Return an image that is no stage."""
        return await self._bases.find(name, platform, self._request, self._output)

    async def find(self, name: str) -> Origin:
        """Return what files are to come from; nothing that shows this machine's."""
        found = await self._find(name)
        if isinstance(found, Image) and found.is_of_host:
            raise InvalidArgument(
                f"invalid from flag value {name}: it shows this machine's files, and they stay on it"
            )
        return found

    async def _find(self, name: str) -> Origin:
        instead = self.context(name)
        if instead is not None and not isinstance(instead, str):
            return instead
        stage = None if instead else await self.stage(name, self._before)
        if stage is not None:
            return stage.image
        if name.isdecimal() and not instead:
            raise NotFound(f"invalid from flag value {name}: invalid context value")
        try:
            return await self.image(instead or name, self._request.platform)
        except BerthError as error:
            raise Failed(f"invalid from flag value {name}: {error.message}") from error
