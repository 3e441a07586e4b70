"""Whether the store is what it says: every blob, image and layer verified, what is broken removed.

A layer's tree is compared with its blob unpacked anew, so that nothing has to be remembered of it.
"""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import TYPE_CHECKING

import msgspec

from berth.errors import BerthError, Corrupt, NotFound
from berth.images.records import LayerRecord  # noqa: TC001 - in an annotation that is read
from berth.oci.digest import Digest
from berth.oci.image import ImageDocument, Manifest, chain_ids, decode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from berth.content.store import ContentStore
    from berth.images.catalog import Catalog
    from berth.images.garbage import Garbage
    from berth.images.layers import LayerStore
    from berth.images.records import Image, ImageUser
    from berth.snapshots.store import Snapshots

REMOVED = "removed"
UNPACKED = "unpacked again"
MERGED = "merged again"


class Problem(msgspec.Struct, rename="pascal", kw_only=True):
    """Something that is broken, and what was done about it ("" for nothing)."""

    what: str
    problem: str
    repair: str = ""


class Report(msgspec.Struct, rename="pascal", kw_only=True):
    """What was looked at, and what was found."""

    blobs: int = 0
    images: int = 0
    layers: int = 0
    problems: list[Problem] = []


class StoreCheck:
    """One check of one engine's store. The engine goes on meanwhile."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        content: ContentStore,
        snapshots: Snapshots,
        layers: LayerStore,
        garbage: Garbage,
    ) -> None:
        self._catalog = catalog
        self._content = content
        self._snapshots = snapshots
        self._layers = layers
        self._garbage = garbage
        self._report = Report(problems=[])
        self._bad: set[str] = set()  # digests of blobs that are not what they should be

    async def run(self, *, users: Sequence[ImageUser], repair: bool) -> Report:
        """Look at everything. ``users`` are the containers there are: with ``repair`` theirs stays."""
        await self._check_blobs(repair=repair)
        for image in self._catalog.all():
            if not image.builtin:
                await self._check_image(image, users, repair=repair)
        if repair:
            await self._garbage.remove_layers()
        with ExitStack() as held:
            for chain_id in self._snapshots.layers():
                held.enter_context(self._layers.hold(chain_id))
            await self._check_layers(repair=repair)
        for user in users:
            for path in self._snapshots.absent(user.container_id):
                self._tell(f"container {user.container_id[:12]}", f"snapshots/{path} is missing")
        return self._report

    def _tell(self, what: str, problem: str, repair: str = "") -> None:
        self._report.problems.append(Problem(what=what, problem=problem, repair=repair))

    async def _check_blobs(self, *, repair: bool) -> None:
        for digest in list(self._content.digests()):
            try:
                problem = await asyncio.to_thread(self._content.verify, digest)
            except NotFound:
                continue  # removed meanwhile
            self._report.blobs += 1
            if problem:
                self._bad.add(digest)
                done = repair and self._content.remove(digest)
                self._tell(f"blob {digest}", problem, REMOVED if done else "")

    # Images

    async def _check_image(self, image: Image, users: Sequence[ImageUser], *, repair: bool) -> None:
        self._report.images += 1
        try:
            problem = await asyncio.to_thread(self._image_problem, image)
        except BerthError as error:
            problem = error.message
        if not problem or self._catalog.get(image.id) is not image:
            return
        name = (image.names or image.repo_digests or [image.short_id])[0]
        using = [user.container_id[:12] for user in users if user.image_id == image.id]
        if using:
            problem += f" (container {using[0]} uses it: pull or load it again)"
        elif repair:
            self._catalog.drop(image)
        self._tell(f"image {name}", problem, REMOVED if repair and not using else "")

    def _image_problem(self, image: Image) -> str:
        """Return what is wrong with an image's documents and references, "" for nothing."""
        for blob in image.blobs():
            if blob in self._bad or not self._content.has(Digest(blob)):
                return f"its blob {blob} is {'damaged' if blob in self._bad else 'missing'}"
        data = self._content.read(Digest(image.id))
        document = decode(data, ImageDocument, "image configuration")
        if document.rootfs.diff_ids != image.diff_ids:
            return "its configuration has other layers"
        if not image.manifest:
            return ""
        data = self._content.read(Digest(image.manifest))
        manifest = decode(data, Manifest, "manifest")
        parts = [manifest.config.digest, *(layer.digest for layer in manifest.layers)]
        if parts != [image.id, *(layer.digest for layer in image.layers)]:
            return "its manifest names other blobs"
        return ""

    # Layers

    def _sources(self) -> dict[str, tuple[LayerRecord, str]]:
        """Return of every chain ID the blob it was unpacked from, and its diff ID."""
        found: dict[str, tuple[LayerRecord, str]] = {}
        for image in self._catalog.all():
            parts = zip(chain_ids(image.diff_ids), image.layers, image.diff_ids, strict=False)
            for chain_id, layer, diff_id in parts:
                if layer.digest not in self._bad and self._content.has(Digest(layer.digest)):
                    found.setdefault(chain_id, (layer, diff_id))
        return found

    async def _check_layers(self, *, repair: bool) -> None:
        sources = self._sources()
        broken: dict[str, str] = {}
        for chain_id in self._snapshots.layers():
            self._report.layers += 1
            if absent := self._snapshots.absent(chain_id):
                broken[chain_id] = f"snapshots/{absent[0]} is missing"
            elif source := sources.get(chain_id):
                try:
                    problem = await self._layers.difference(chain_id, *source)
                except BerthError as error:
                    problem = error.message
                if problem:
                    broken[chain_id] = problem
        repaired = await self._replace(broken) if repair and broken else set()
        for chain_id in self._snapshots.layers():
            if chain_id not in broken:
                await self._check_merged(chain_id, repair=repair)
        for chain_id, problem in broken.items():
            if chain_id in repaired:
                self._tell(
                    f"layer {chain_id}", problem, UNPACKED if chain_id in sources else REMOVED
                )
            else:
                used = " (a container is on it)" if repair else ""
                self._tell(f"layer {chain_id}", problem + used)

    async def _check_merged(self, chain_id: str, *, repair: bool) -> None:
        try:
            problem = await self._layers.merged_difference(chain_id, repair=repair)
        except BerthError as error:
            self._tell(f"layer {chain_id}", error.message)
        else:
            if problem:
                what = f"the whole image on it: {problem}"
                self._tell(f"layer {chain_id}", what, MERGED if repair else "")

    def _thin_on(self, chain_ids: Sequence[str]) -> list[Digest]:
        """Return the thin blobs that are read from some trees."""
        return [digest for digest, chain_id in self._content.thin.all() if chain_id in chain_ids]

    async def _complete_blobs(self, chain_ids: Sequence[str]) -> bool:
        """Take from trees that are to go what thin blobs need; say whether none needs them any more.

        What cannot be completed goes as well, unless somebody holds it.
        """
        while thin := self._thin_on(chain_ids):  # one may become thin meanwhile
            for digest in thin:
                try:
                    await asyncio.to_thread(self._content.make_whole, digest)
                except (Corrupt, NotFound):
                    if not self._content.remove(digest) and digest in self._content.thin:
                        return False
        return True

    async def _replace(self, broken: dict[str, str]) -> set[str]:
        """Remove broken layers and what is on them, but below containers; unpack images again."""
        done: set[str] = set()
        for chain_id in broken:
            above = self._snapshots.above(chain_id)
            free = all(self._snapshots.is_layer(key) for key in above)
            if free and await self._complete_blobs(above):
                for key in above:
                    await self._snapshots.remove(key)
                done.add(chain_id)
        for image in self._catalog.all():
            if not image.builtin and done.intersection(chain_ids(image.diff_ids)):
                await self._layers.restore(image)
        return done
