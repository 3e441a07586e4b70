"""One stage under way: the image so far, the configuration of the next, and the arguments declared."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from berth.dockerfile.settings import Settings
from berth.errors import InvalidArgument, NotFound
from berth.images import commits
from berth.images.catalog import platform_of
from berth.images.commits import Commit
from berth.oci.platform import this_machine
from berth.oci.times import SECOND_NS, rfc3339

if TYPE_CHECKING:
    from collections.abc import Sequence

    from berth.builds.arguments import Scope
    from berth.builds.layers import Layer
    from berth.builds.requests import BuildRequest
    from berth.images.records import Image
    from berth.images.service import ImageService
    from berth.oci.platform import Platform

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NO_OPERATION = "#(nop) "


class StageState:
    """What changes while the instructions of a stage are carried out."""

    def __init__(
        self, image: Image | None, *, scope: Scope, escape: str, platform: Platform
    ) -> None:
        """``image``: None for scratch."""
        self.image = image or commits.nothing(platform)
        self.settings = Settings(self.image.config, escape)
        self.scope = scope
        self.uses_cache = True
        self.is_triggered = False  # while what the base image has kept is carried out
        self.triggers = list(self.image.config.on_build or ())
        config = self.settings.config
        config.on_build = None
        if not any(entry.startswith("PATH=") for entry in config.env or ()):
            config.env = [*(config.env or ()), PATH]

    @property
    def arguments(self) -> dict[str, str]:
        """The arguments that commands of RUN get as variables."""
        return self.scope.values(self.settings.environment())

    @property
    def variables(self) -> dict[str, str]:
        """What is put into the words of instructions."""
        return {**self.arguments, **self.settings.environment()}

    def plain(self, said: str, *, with_files: bool = False) -> list[str]:
        """Return what history says of an instruction that runs nothing; Docker has two ways to say it."""
        if with_files:
            return [*self.settings.shell, f"{NO_OPERATION}{said}"]
        return [*self.settings.shell, NO_OPERATION, said]


class Steps:
    """Finds what a step has led to before, or makes an image of it."""

    def __init__(self, images: ImageService, request: BuildRequest, epoch: int | None) -> None:
        """``epoch``: the second that everything is said to be made in."""
        self._images = images
        self._created = "" if epoch is None else rfc3339(epoch * SECOND_NS)
        self._derived = images.derived
        self._request = request

    def key(self, stage: StageState, command: Sequence[str], more: object = None) -> str:
        """Return what tells a step from others on the same image."""
        facts = [list(command), stage.settings.config, stage.settings.author, more]
        facts += [self._created] if self._created else []
        if not stage.image.id and (platform := platform_of(stage.image)) != this_machine():
            facts.append(str(platform))
        return hashlib.sha256(msgspec.json.encode(facts)).hexdigest()

    async def known(
        self, stage: StageState, key: str, command: Sequence[str], *, is_told: bool
    ) -> bool:
        """Go on with what was made of this step before, or in an image of the request; False for none.

        ``is_told``: an image's history says all of it that counts, so that it is found in one made elsewhere.
        """
        if not (self._request.use_cache and stage.uses_cache):
            return False
        found = self._derived.find(stage.image, key)
        if self._request.cache_from and (found is None or not self._request.cache_adds):
            commit = self._commit(stage, key, command) if is_told else None
            found = await self._of_sources(stage, found, commit)
        if found is not None:
            stage.image = found
        return found is not None

    async def _of_sources(
        self, stage: StageState, found: Image | None, commit: Commit | None
    ) -> Image | None:
        """Return what was found if one of the request's images is made of it, else what one has instead."""
        for name in self._request.cache_from:
            try:
                source = self._images.resolve(name, self._request.platform)
            except (InvalidArgument, NotFound):
                continue
            if found is not None and self._derived.is_of(source, found):
                return found
            if commit is None:
                continue
            if repeated := await self._derived.repeat(stage.image, commit, source):
                return repeated
        return None

    def _commit(self, stage: StageState, key: str, command: Sequence[str]) -> Commit:
        return Commit(
            config=stage.settings.config,
            author=stage.settings.author,
            created_by=" ".join(command),
            created=self._created,
            step=key,
        )

    async def commit(
        self, stage: StageState, key: str, command: Sequence[str], layer: Layer | None = None
    ) -> None:
        """Make an image of a step: of the configuration, and a layer if there is one."""
        commit, tree = self._commit(stage, key, command), None
        if layer is not None:
            commit = replace(commit, layer=layer.path, digest=layer.digest, size=layer.size)
            tree = layer.tree
        stage.image = await self._derived.commit(stage.image, commit, tree=tree)

    async def graft(
        self, stage: StageState, key: str, command: Sequence[str], donor: Image
    ) -> None:
        """Make an image of a step whose layer was made without regard to what is below it."""
        commit = self._commit(stage, key, command)
        stage.image = await self._derived.graft(stage.image, commit, donor)
