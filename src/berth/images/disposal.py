"""How images go: names taken away, and with the last one the image, its layers and its blobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from berth.errors import InvalidArgument
from berth.images import removal
from berth.images.catalog import flag
from berth.oci.digest import Digest
from berth.oci.image import chain_ids

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from berth.content.store import ContentStore
    from berth.images.catalog import Catalog
    from berth.images.garbage import Garbage
    from berth.images.records import Image, ImageUser
    from berth.images.thinning import Thinning
    from berth.oci.platform import Platform

Deleted = dict[str, str]  # {"Untagged": name} or {"Deleted": id}


class Step(NamedTuple):
    """A step of a build that has no name."""

    image: Image
    size_bytes: int  # that it adds to its parent's
    in_use: bool  # by a container
    shared: bool  # an image with a name, or one in use, is made of it


class Disposal:
    """Removes images of one engine."""

    def __init__(
        self, *, catalog: Catalog, content: ContentStore, garbage: Garbage, thinning: Thinning
    ) -> None:
        self._catalog = catalog
        self._content = content
        self._garbage = garbage
        self._thinning = thinning

    async def remove(
        self,
        ref: str,
        *,
        platforms: Sequence[Platform],
        force: bool,
        prune: bool,
        users: Sequence[ImageUser],
    ) -> list[tuple[Image, Sequence[Deleted]]]:
        """Remove a name, and with the last one the image: of every platform, or of some.

        ``prune``: and the images without a name that it was made of. Returns what was done to which image.
        All is decided before anything is done.
        """
        if platforms:
            found = {(image := self._catalog.resolve(ref, p)).id: image for p in platforms}
            images = list(found.values())
        else:
            images = self._catalog.named(ref)
        plans = [
            (
                image,
                removal.plan(
                    image,
                    ref,
                    self._catalog.names_it(ref, image),
                    force=force,
                    users=users,
                    is_parent=image.id in self._catalog.parents(),
                ),
            )
            for image in images
        ]
        done = []
        for image, plan in plans:
            steps = await self._carry_out(image, plan.names, deleted=plan.deleted)
            if plan.deleted and prune:
                steps = [*steps, *await self._prune_parents(image, users)]
            done.append((image, steps))
        return done

    async def _prune_parents(self, image: Image, users: Sequence[ImageUser]) -> Sequence[Deleted]:
        """Remove the images that one was made of, as far as they have no name and no other use."""
        used = {user.image_id for user in users}
        done: Sequence[Deleted] = []
        parent = self._catalog.get(image.parent)
        while parent is not None and parent.id not in {*used, *self._catalog.parents()}:
            if parent.builtin or parent.names or parent.repo_digests:
                break
            done = [*done, *await self._carry_out(parent, [], deleted=True)]
            parent = self._catalog.get(parent.parent)
        return done

    async def _carry_out(
        self, image: Image, names: Sequence[str], *, deleted: bool
    ) -> Sequence[Deleted]:
        done: Sequence[Deleted] = [{"Untagged": name} for name in names]
        if not deleted:
            for name in names:
                self._catalog.take_name(image, name)
            return done
        self._catalog.drop(image)
        chain = set(chain_ids(image.diff_ids))
        gone = [chain_id for chain_id in await self._garbage.remove_layers() if chain_id in chain]
        self.drop_blobs(image.blobs())
        return [*done, *({"Deleted": id_} for id_ in (image.id, *gone))]

    def drop_blobs(self, blobs: Sequence[str]) -> None:
        """Remove those of the blobs that no image has."""
        wanted = {blob for image in self._catalog.all() for blob in image.blobs()}
        for blob in {*blobs} - wanted:
            self._content.remove(Digest(blob))
        self._thinning.leave_gone()

    async def prune(
        self, *, filters: Mapping[str, Sequence[str]], users: Sequence[ImageUser]
    ) -> Mapping[str, object]:
        """Remove images that no container uses: those without a name, with dangling=false all.

        Without a filter that picks images, also what broken transfers have left.
        """
        dangling = flag("dangling", filters["dangling"]) if "dangling" in filters else True
        others = {key: values for key, values in filters.items() if key != "dangling"}
        if set(others) - {"label", "label!", "until"}:
            raise InvalidArgument(f"invalid filter '{sorted(others)[0]}'")
        used = {user.image_id for user in users}
        deleted: Sequence[Deleted] = []
        reclaimed = 0
        for image in self._catalog.select(others):  # the youngest first, so children before parents
            if image.builtin or image.id in used or (dangling and image.names):
                continue
            if image.id in self._catalog.parents():
                continue
            names = [*image.names, *image.repo_digests]
            reclaimed += self._own_bytes(image)
            deleted = [*deleted, *await self._carry_out(image, names, deleted=True)]
        reclaimed += 0 if others else self._garbage.remove_blobs()
        return {"ImagesDeleted": deleted or None, "SpaceReclaimed": reclaimed}

    def _own_bytes(self, image: Image) -> int:
        """Return the bytes that are gone with an image: those of its parent's layers are not."""
        parent = self._catalog.get(image.parent)
        return image.size_bytes - (parent.size_bytes if parent else 0)

    def steps(self, *, users: Sequence[ImageUser]) -> list[Step]:
        """Return the steps of builds that have no name."""
        used = {user.image_id for user in users}
        by_id = {image.id: image for image in self._catalog.all()}
        shared: set[str] = set()
        for image in by_id.values():
            is_step = image.step and not image.names and not image.repo_digests
            at = None if is_step and image.id not in used else image
            while at is not None and at.id not in shared:
                shared.add(at.id)
                at = by_id.get(at.parent)
        return [
            Step(image, self._own_bytes(image), image.id in used, image.id in shared)
            for image in by_id.values()
            if image.step and not image.names and not image.repo_digests
        ]

    async def remove_step(self, id_: str, *, users: Sequence[ImageUser]) -> bool:
        """Remove a step, unless somebody has named or used it by now; say whether it is gone.

        What is made of it stays, as images of their own.
        """
        image = self._catalog.get(id_)
        if image is None or image.names or id_ in {user.image_id for user in users}:
            return False
        for child in self._catalog.all():
            if child.parent == id_:
                self._catalog.put(msgspec.structs.replace(child, parent=""))
        await self._carry_out(image, [], deleted=True)
        return True
