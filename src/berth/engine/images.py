"""Images as clients change them: what is done to them is told to listeners."""

from __future__ import annotations

from typing import TYPE_CHECKING

from berth.oci.reference import Reference

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence

    from berth.engine.events import Events
    from berth.images.disposal import Deleted, Step
    from berth.images.records import Image, ImageUser
    from berth.images.service import ImageService
    from berth.oci.platform import Platform


class Images:
    """The images of an engine."""

    def __init__(
        self, service: ImageService, events: Events, *, users: Callable[[], list[ImageUser]]
    ) -> None:
        self._service = service
        self._events = events
        self._users = users

    def _emit(self, action: str, image: Image, name: str = "") -> None:
        attributes = {**(image.config.labels or {}), "name": name or image.id}
        self._events.emit("image", action, image.id, attributes)

    def tag(self, ref: str, name: str, *, among: Collection[str] = ()) -> None:
        """Give an image one more name; ``among``: ids of those for several platforms that share it."""
        image = self._service.tag(ref, name, among=among)
        self._emit("tag", image, Reference.parse(name).with_default_tag().familiar())

    async def remove(
        self, ref: str, *, platforms: Sequence[Platform], force: bool, prune: bool
    ) -> Sequence[Deleted]:
        """Remove a name, and with the last one the image; of every platform, or of some.

        ``prune``: and the images without a name that it was made of.
        """
        everything: list[Deleted] = []
        for image, done in await self._service.remove(
            ref, platforms=platforms, force=force, prune=prune, users=self._users()
        ):
            self._tell_removed(image, done)
            everything += [step for step in done if step not in everything]
        return everything

    def _tell_removed(self, image: Image, done: Sequence[Deleted]) -> None:
        for step in done:
            if "Untagged" in step:
                self._emit("untag", image)
            elif step["Deleted"] == image.id:
                self._events.emit("image", "delete", image.id, {"name": image.id})

    async def prune(self, filters: Mapping[str, Sequence[str]]) -> Mapping[str, object]:
        """Remove what no container uses."""
        before = {image.id: image for image in self._service.all()}
        found = await self._service.prune(filters=filters, users=self._users())
        for id_ in before.keys() - {image.id for image in self._service.all()}:
            self._events.emit("image", "delete", id_, {"name": id_})
        self._events.emit("image", "prune", "", {"reclaimed": str(found["SpaceReclaimed"])})
        return found

    def steps(self) -> list[Step]:
        """Return the steps of builds that have no name."""
        return self._service.steps(users=self._users())

    async def remove_step(self, id_: str) -> bool:
        """Remove a step, unless somebody has named or used it by now; say whether it is gone."""
        return await self._service.remove_step(id_, users=self._users())

    async def import_rootfs(
        self,
        body: AsyncIterator[bytes],
        *,
        reference: str | None,
        message: str,
        changes: Sequence[str],
        platform: str | None,
    ) -> Image:
        """Make an image of a tar of a root file system."""
        image = await self._service.import_rootfs(
            body, reference=reference, message=message, changes=changes, platform=platform
        )
        if reference:
            self._emit("tag", image, Reference.parse(reference).with_default_tag().familiar())
        self._emit("import", image)
        return image

    async def load(
        self,
        body: AsyncIterator[bytes],
        *,
        platform: Platform | None,
        progress: Callable[[Mapping[str, object]], None],
    ) -> list[str]:
        """Load an archive; return what was loaded, a line each, for people."""
        lines = []
        for image, names in await self._service.load(body, platform=platform, progress=progress):
            self._emit("load", image)
            lines += [f"Loaded image: {name}" for name in names]
            if not names:
                lines.append(f"Loaded image ID: {image.id}")
        return lines

    def save(
        self, refs: Sequence[str], platform: Platform | None, *, referrers: bool
    ) -> AsyncIterator[bytes]:
        """Return an archive of images, with ``referrers`` of what refers to them as well."""
        images, chunks = self._service.save(refs, platform, referrers=referrers)
        for image in images:
            self._emit("save", image)
        return chunks
