"""Which names and images a removal takes away, by Docker's rules and in its words. Decides, does nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from berth.errors import Conflict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from berth.images.records import Image, ImageUser


class Removal:
    """The outcome of :func:`plan`."""

    __slots__ = ("deleted", "names")

    def __init__(self, names: list[str], *, deleted: bool) -> None:
        self.names = names  # to be untagged
        self.deleted = deleted  # and then the image itself


def repository(name: str) -> str:
    """Return a familiar name without tag and digest."""
    name = name.partition("@")[0]
    return name.rpartition(":")[0] if ":" in name.rpartition("/")[2] else name


def is_single(image: Image) -> bool:
    """Say whether an image has at most one tag, and names of one repository only."""
    repositories = {repository(name) for name in (*image.names, *image.repo_digests)}
    return len(image.names) <= 1 and len(repositories) <= 1


def plan(
    image: Image,
    ref: str,
    name: str | None,
    *,
    force: bool,
    users: Sequence[ImageUser],
    is_parent: bool = False,
) -> Removal:
    """Decide about removing ``ref``, which is ``name`` of the image or (None) its id. Raises Conflict.

    ``is_parent``: other images were made of it, so it stays; at most its name goes.
    """
    found = _plan(image, ref, name, force=force, users=users)
    if found.deleted and is_parent:
        if name is None:
            raise _refused(image, "cannot be forced", "image has dependent child images")
        return Removal(found.names, deleted=False)
    return found


def _plan(
    image: Image, ref: str, name: str | None, *, force: bool, users: Sequence[ImageUser]
) -> Removal:
    using = [user for user in users if user.image_id == image.id]
    if name is not None:
        return _by_name(image, ref, name, force=force, using=using)
    if image.builtin:
        raise _refused(image, "cannot be forced", "image is built in")
    _check(image, force=force, using=using, names=image.names if not is_single(image) else [])
    return Removal([*image.names, *image.repo_digests], deleted=True)


def _by_name(
    image: Image, ref: str, name: str, *, force: bool, using: Sequence[ImageUser]
) -> Removal:
    only = is_single(image)
    if image.builtin and (only or name == "host:latest"):
        raise _refused(image, "cannot be forced", "image is built in")
    if only and using and not force:
        raise Conflict(
            f'conflict: unable to remove repository reference "{ref}" (must force) - container'
            f" {using[0].container_id[:12]} is using its referenced image {image.short_id}"
        )
    taken = [name]
    if not any(repository(other) == repository(name) for other in image.names if other != name):
        # The last tag of a repository takes its digests along.
        taken += [d for d in image.repo_digests if d != name and repository(d) == repository(name)]
    left = set(image.names) | set(image.repo_digests)
    if left - set(taken) or any(user.running for user in using):
        return Removal(taken, deleted=False)
    return Removal(taken, deleted=True)


def _check(image: Image, *, force: bool, using: Sequence[ImageUser], names: list[str]) -> None:
    """Raise what speaks against deleting an image."""
    for user in using:
        if user.running:
            raise _refused(
                image,
                "cannot be forced",
                f"image is being used by running container {user.container_id[:12]}",
            )
    if force:
        return
    if names:
        raise _refused(image, "must be forced", "image is referenced in multiple repositories")
    if using:
        raise _refused(
            image,
            "must be forced",
            f"image is being used by stopped container {using[0].container_id[:12]}",
        )


def _refused(image: Image, severity: str, why: str) -> Conflict:
    return Conflict(f"conflict: unable to delete {image.short_id} ({severity}) - {why}")
