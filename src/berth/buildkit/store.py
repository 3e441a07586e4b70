"""What builds have left in the engine, and the engine itself, as BuildKit's clients are told of them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from berth import __version__
from berth.buildkit import messages
from berth.builds.pruning import TRUE
from berth.errors import NotFound
from berth.images.catalog import created_ns
from berth.oci.platform import this_machine
from berth.oci.times import SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from google.protobuf.message import Message

    from berth.buildkit.filters import Filter
    from berth.builds.pruning import Pruning
    from berth.builds.service import Builds
    from berth.engine.services import Services
    from berth.images.records import Image

# buildx lets its docker driver export archives and push itself where a worker has this label.
SNAPSHOTTER = "org.mobyproject.buildkit.worker.snapshotter"
HOST_GATEWAY = "org.mobyproject.buildkit.worker.moby.host-gateway-ip"
DEFAULT_NETWORK = "bridge"
KIND = "regular"


class Store:
    """The one worker that there is."""

    def __init__(self, services: Services, builds: Builds) -> None:
        self._id = services.instance.name
        self._images = services.images
        self._network = services.network
        self._settings = services.settings
        self._builds = builds

    def version(self) -> Message:
        """Return what clients show as the version of BuildKit."""
        return messages.of("Version")(package="berth", version=__version__)

    def worker(self) -> Message:
        """Return what the engine is."""
        here = this_machine()
        driver, _ = self._images.storage
        found = messages.of("Worker")(
            ID=self._id,
            BuildkitVersion=self.version(),
            Labels={SNAPSHOTTER: driver, HOST_GATEWAY: self._gateway()},
        )
        found.platforms.add(Architecture=here.architecture, OS=here.os, Variant=here.variant)
        return found

    def _gateway(self) -> str:
        """Return where commands of RUN reach this machine: one address, for buildx takes no more."""
        if said := self._settings.now.host_gateway_ips:
            return next((one for one in said if ":" not in one), said[0])
        try:
            return self._network.inspect(DEFAULT_NETWORK).gateway
        except NotFound:
            return ""

    async def usage(self, wanted: Filter) -> Sequence[Message]:
        """Return the steps of builds that are kept, and what their commands have cached."""
        by_id = {image.id: image for image in self._images.all()}
        needed = needed_by_names(by_id)
        steps = [
            record_of(
                image, own_bytes(image, by_id), self._description(image), needed=image.id in needed
            )
            for image in by_id.values()
            if image.step
        ]
        records = [*steps, *map(cache_of, await self._builds.caches())]
        return [record for record in records if wanted.chooses(fields_of(record))]

    def _description(self, image: Image) -> str:
        """Return what a step says of itself."""
        history = self._images.history(image)
        return str(history[0]["CreatedBy"]) if history else ""

    async def prune(self, wanted: Pruning, chosen: Filter) -> Sequence[Message]:
        """Remove what builds have left; return what that was."""
        before = {record.ID: record for record in await self.usage(chosen)}
        if not chosen.chooses_all:
            wanted = replace(wanted, ids=frozenset(before))
        done = await self._builds.prune(wanted)
        deleted = done["CachesDeleted"]
        assert isinstance(deleted, list)
        other = messages.of("UsageRecord")
        return [before.get(id_) or other(ID=id_, RecordType=KIND) for id_ in deleted]


def fields_of(record: Message) -> dict[str, str]:
    """Return what filters see of a record."""
    texts = {
        "id": record.ID,
        "parents": ";".join(record.Parents),
        "description": record.Description,
        "type": record.RecordType,
    }
    switches = {
        "inuse": record.InUse,
        "mutable": record.Mutable,
        "immutable": not record.Mutable,
        "shared": record.Shared,
        "private": not record.Shared,
    }
    found = {name: text for name, text in texts.items() if text}
    return found | {name: TRUE for name, is_so in switches.items() if is_so}


def needed_by_names(images: Mapping[str, Image]) -> set[str]:
    """Return the images that have a name, and those that they were made of."""
    needed: set[str] = set()
    for image in images.values():
        at: Image | None = image if image.names else None
        while at is not None and at.id not in needed:
            needed.add(at.id)
            at = images.get(at.parent)
    return needed


def own_bytes(image: Image, images: Mapping[str, Image]) -> int:
    """Return the bytes of the files that an image adds to its parent's."""
    parent = images.get(image.parent)
    return image.size_bytes - (parent.size_bytes if parent else 0)


def cache_of(document: Mapping[str, object]) -> Message:
    """Return a cache, as /system/df shows it, as clients show it."""
    created, used = (
        {"seconds": created_ns(str(document[key])) // SECOND_NS}
        for key in ("CreatedAt", "LastUsedAt")
    )
    plain = ("ID", "Description", "InUse", "Shared", "Size", "UsageCount")
    return messages.of("UsageRecord")(
        RecordType=document["Type"],
        CreatedAt=created,
        LastUsedAt=used,
        **{key: document[key] for key in plain},
    )


def record_of(image: Image, size_bytes: int, description: str, *, needed: bool) -> Message:
    """Return a step as clients show it. ``needed``: an image with a name is made of it."""
    made = created_ns(image.created) // SECOND_NS
    return messages.of("UsageRecord")(
        ID=image.id,
        InUse=needed,
        Shared=needed,
        Size=size_bytes,
        CreatedAt={"seconds": made},
        LastUsedAt={"seconds": made},
        Description=description,
        RecordType=KIND,
        Parents=[image.parent] if image.parent else [],
    )
