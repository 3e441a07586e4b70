"""Volumes as the API sees them: named, used by containers, shown and removed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from berth.engine.filters import PruneFilter, has_labels, matches
from berth.errors import InvalidArgument
from berth.images.catalog import flag
from berth.oci import times

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from berth.engine.containers import Containers
    from berth.engine.models import VolumeCreate
    from berth.engine.services import Services
    from berth.volumes.service import Volume

Document = dict[str, object]
FILTERS = ("dangling", "driver", "label", "name")


class Volumes:
    """The volumes of an engine."""

    def __init__(self, services: Services, containers: Containers) -> None:
        self._service = services.volumes
        self._events = services.events
        self._containers = containers

    def document(self, volume: Volume) -> Document:
        """Return a volume as the API shows it."""
        return {
            "CreatedAt": times.rfc3339(volume.created_ns),
            "Driver": volume.driver,
            "Labels": volume.labels,
            "Mountpoint": str(self._service.path(volume.name)),
            "Name": volume.name,
            "Options": volume.options,
            "Scope": "local",
        }

    def list(self, filters: Mapping[str, Sequence[str]]) -> Document:
        """Return the volumes that pass."""
        for key in filters:
            if key not in FILTERS:
                raise InvalidArgument(f"invalid filter '{key}'")
        if "dangling" in filters:
            flag("dangling", filters["dangling"])  # refused also where there is no volume
        found = [volume for volume in self._service.all() if self._passes(volume, filters)]
        return {"Volumes": [self.document(volume) for volume in found], "Warnings": None}

    def _passes(self, volume: Volume, filters: Mapping[str, Sequence[str]]) -> bool:
        if (names := filters.get("name")) and not any(matches(name, volume.name) for name in names):
            return False
        if (drivers := filters.get("driver")) and volume.driver not in drivers:
            return False
        if "dangling" in filters:
            unused = not self._containers.users_of(volume.name)
            if unused != flag("dangling", filters["dangling"]):
                return False
        return has_labels(volume.labels, filters.get("label", ()))

    def inspect(self, name: str) -> Document:
        """Return one volume."""
        return self.document(self._service.find(name))

    def create(self, request: VolumeCreate) -> Document:
        """Make a volume, or return the one that has the name."""
        known = {volume.name for volume in self._service.all()}
        volume = self._service.create(
            request.name,
            driver=request.driver,
            labels=request.labels,
            options=request.driver_opts,
        )
        if volume.name not in known:
            self._events.emit("volume", "create", volume.name, {"driver": volume.driver})
        return self.document(volume)

    async def remove(self, name: str, *, force: bool) -> None:
        """Remove a volume that no container has."""
        await self._service.remove(name, force=force, users=self._containers.users_of(name))
        self._events.emit("volume", "destroy", name, {"driver": "local"})

    async def prune(self, filters: Mapping[str, Sequence[str]]) -> Document:
        """Remove the volumes that no container has: anonymous ones, with all=true every one."""
        passes = PruneFilter(filters, more=("all",))
        if "until" in filters:
            raise InvalidArgument("invalid filter 'until'")
        everything = "all" in filters and flag("all", filters["all"])
        removed, reclaimed = [], 0
        for volume in self._service.all():
            if not (everything or volume.anonymous) or self._containers.users_of(volume.name):
                continue
            if volume.options:  # no space of this machine's, perhaps
                continue
            if passes(volume.labels, volume.created_ns):
                size = await self._service.size_bytes(volume.name)
                await self.remove(volume.name, force=True)
                reclaimed += size
                removed.append(volume.name)
        self._events.emit("volume", "prune", "", {"reclaimed": str(reclaimed)})
        return {"VolumesDeleted": removed or None, "SpaceReclaimed": reclaimed}

    async def with_usage(self) -> Sequence[Document]:
        """Return the volumes without options with their sizes and the number of containers that have them."""
        found = []
        for volume in self._service.all():
            if volume.options:
                continue
            usage = {
                "Size": await self._service.size_bytes(volume.name),
                "RefCount": len(self._containers.users_of(volume.name)),
            }
            found.append({**self.document(volume), "UsageData": usage})
        return found
