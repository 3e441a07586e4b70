"""`docker commit`: a container becomes an image."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from berth.engine import status
from berth.engine.metrics import timed
from berth.images.catalog import familiar
from berth.images.changes import apply_changes
from berth.images.commits import Commit
from berth.images.transfer import remove_ingest
from berth.oci.image import Healthcheck, ImageConfig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from berth.engine.containers import Containers
    from berth.engine.files import Files
    from berth.engine.models import ContainerConfig, ContainerRecord
    from berth.engine.services import Services
    from berth.images.records import Image

MERGED = ("exposed_ports", "labels", "volumes")
KEPT = ("user", "working_dir", "stop_signal", "healthcheck", "shell", "on_build")


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitRequest:
    """What is wanted; ``config`` and ``changes`` count more than what the container has."""

    config: ContainerConfig
    changes: Sequence[str] = ()
    reference: str | None = None
    author: str = ""
    comment: str = ""
    pause: bool = True


class Commits:
    """Makes images of containers."""

    def __init__(self, services: Services, containers: Containers, files: Files) -> None:
        self._services = services
        self._containers = containers
        self._files = files

    @timed("commit")
    async def commit(self, ref: str, request: CommitRequest) -> Image:
        """Make an image of a container."""
        record = self._containers.find(ref)
        images = self._services.images
        parent = images.resolve(record.image_id)
        name = familiar(request.reference) if request.reference else None
        wanted = apply_changes(image_config(request.config), [*request.changes])
        own = image_config(record.config, env=record.env)
        path = images.content.temporary()
        try:
            async with self._quiet(record, pause=request.pause):
                layer = await self._files.layer(record.id, path)
            commit = Commit(
                layer=path,
                digest=layer.digest,
                size=layer.size,
                config=merged(wanted, own),
                author=request.author,
                comment=request.comment,
                created_by=" ".join(own.cmd or ()),
            )
            image = await images.derived.commit(parent, commit, name=name)
        finally:
            remove_ingest(path)
        more = {"comment": request.comment, "imageID": image.id}
        if name:
            named = {**(image.config.labels or {}), "name": name}
            self._services.events.emit("image", "tag", image.id, named)
        self._containers.emit(record, "commit", **more, imageRef=name or "")
        return image

    @asynccontextmanager
    async def _quiet(self, record: ContainerRecord, *, pause: bool) -> AsyncIterator[None]:
        """Pause a running container meanwhile, unless that is not wanted."""
        if not pause or record.status != status.RUNNING:
            yield
            return
        self._containers.pause(record.id)
        try:
            yield
        finally:
            if record.status == status.PAUSED:
                self._containers.unpause(record.id)


def _words(command: list[str] | str | None) -> list[str] | None:
    return [command] if isinstance(command, str) else command


def image_config(config: ContainerConfig, *, env: list[str] | None = None) -> ImageConfig:
    """Return a container's configuration as an image has it."""
    check = config.healthcheck
    return ImageConfig(
        user=config.user,
        exposed_ports=config.exposed_ports,
        env=env if env is not None else config.env,
        entrypoint=_words(config.entrypoint),
        cmd=_words(config.cmd),
        volumes=config.volumes,
        working_dir=config.working_dir,
        labels=config.labels,
        stop_signal=config.stop_signal,
        healthcheck=msgspec.convert(check, Healthcheck, from_attributes=True) if check else None,
        shell=config.shell,
        on_build=config.on_build,
    )


def merged(wanted: ImageConfig, own: ImageConfig) -> ImageConfig:
    """Return ``wanted`` with what it does not say from the container's own, by Docker's rules."""
    result = msgspec.structs.replace(wanted)
    for name in KEPT:
        if not getattr(result, name):
            setattr(result, name, getattr(own, name))
    for name in MERGED:
        both = {**(getattr(own, name) or {}), **(getattr(result, name) or {})}
        setattr(result, name, both or None)
    said = {entry.partition("=")[0] for entry in result.env or ()}
    more = [entry for entry in own.env or () if entry.partition("=")[0] not in said]
    result.env = [*(result.env or ()), *more] or None
    if not result.entrypoint:
        result.cmd = result.cmd or own.cmd
        if result.entrypoint is None:
            result.entrypoint = own.entrypoint
    return result
