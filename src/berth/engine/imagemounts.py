"""Images mounted into containers: each has a snapshot, which keeps its layers while the container exists."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from berth.runtime.requests import ImageTree

if TYPE_CHECKING:
    from berth.engine.models import ContainerRecord, MountPoint
    from berth.images.service import ImageService
    from berth.runtime.requests import Rootfs


def resolve(record: ContainerRecord, images: ImageService) -> None:
    """Find the images that a new container is to see; NotFound when there is none of a name."""
    for point in _points(record):
        point.image = images.resolve(point.source).id


def prepare(record: ContainerRecord, images: ImageService) -> None:
    """Make the snapshots of a new container's images."""
    for point in _points(record):
        images.prepare_view(images.resolve(point.image), _key(record, point))


async def fill(record: ContainerRecord, images: ImageService) -> None:
    """Make what takes time of a container's snapshots."""
    await images.fill_rootfs(record.id)
    for point in _points(record):
        await images.fill_rootfs(_key(record, point))


def rootfs(
    record: ContainerRecord, images: ImageService, lent: tuple[ImageTree, ...] = ()
) -> Rootfs:
    """Return a container's root with the images that it sees, and what it is ``lent``."""
    trees = tuple(
        ImageTree(
            lower=images.view(_key(record, point)),
            target=point.target,
            subpath=point.subpath,
        )
        for point in _points(record)
    )
    own = images.rootfs(record.id)
    return replace(own, images=(*trees, *lent)) if trees or lent else own


async def remove(record: ContainerRecord, images: ImageService) -> None:
    """Remove the snapshots of a container: its own and those of its images."""
    for point in _points(record):
        await images.remove_rootfs(_key(record, point))
    await images.remove_rootfs(record.id)


def images(record: ContainerRecord) -> list[str]:
    """Return the ids of the images that a container sees."""
    return [point.image for point in _points(record)]


def _points(record: ContainerRecord) -> list[MountPoint]:
    return [point for point in record.mount_points if point.kind == "image"]


def _key(record: ContainerRecord, point: MountPoint) -> str:
    return f"{record.id}{point.target}"
