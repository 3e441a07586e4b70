"""Images made of others on this machine: by `commit`, and by the steps of builds."""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import msgspec

from berth.errors import InvalidArgument
from berth.images import commits
from berth.images.catalog import platform_of
from berth.images.commits import Commit
from berth.images.layers import NOTHING_READY, Ready, Teller, quiet
from berth.images.records import LayerRecord
from berth.images.transfer import record
from berth.oci.digest import Digest
from berth.oci.image import MAX_DOCUMENT_BYTES, OCI_LAYER, ImageDocument, RootFs, decode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from berth.content.store import ContentStore
    from berth.images.catalog import Catalog
    from berth.images.layers import LayerStore
    from berth.images.records import Image
    from berth.oci.platform import Platform
    from berth.snapshots.store import Snapshots


class Keep(Protocol):
    """Records an image and names it."""

    def __call__(self, image: Image, names: Sequence[str]) -> Image:
        """Return the image as it is kept."""


class Derived:
    """Makes and finds them."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        content: ContentStore,
        snapshots: Snapshots,
        layers: LayerStore,
        keep: Keep,
        is_whole: Callable[[str], bool],
    ) -> None:
        self._catalog = catalog
        self._content = content
        self._snapshots = snapshots
        self._layers = layers
        self._keep = keep
        self._is_whole = is_whole

    @property
    def has_layers_as_made(self) -> bool:
        """Whether what a container has written is a layer's files as it is."""
        return self._snapshots.driver.writes_layers

    @contextmanager
    def detached(self, key: str, size_bytes: int) -> Iterator[Ready | None]:
        """Give the files of a snapshot that nobody has mounted, and end it; None when they are no layer's."""
        if not self.has_layers_as_made:
            yield None
            return
        folder = self._snapshots.detach(key)
        try:
            yield Ready(folder, {"size": size_bytes, "root": False})
        finally:
            self._snapshots.discard(folder)

    def view(self, key: str) -> dict[str, object]:
        """Return where the image is that a view shows, as workers are told of it."""
        return {"base": str(self._snapshots.base), "lower": list(self._snapshots.view(key))}

    def find(self, parent: Image, step: str) -> Image | None:
        """Return the youngest image that a build has made of ``parent`` with this step."""
        made = self._catalog.made(parent.id, step)
        return next((image for image in made if self._is_whole(image.id)), None)

    def is_of(self, image: Image, ancestor: Image) -> bool:
        """Say whether an image is another or was made of it, step by step."""
        step: Image | None = image
        while step is not None and step.id != ancestor.id:
            step = self._catalog.get(step.parent)
        return step is not None

    async def commit(
        self, parent: Image, commit: Commit, *, name: str | None = None, tree: Ready | None = None
    ) -> Image:
        """Make an image of what was changed in ``parent``. The layer's file is used up, and ``tree``.

        ``tree``: the layer's files, for they need not be unpacked then.
        """
        created = commit.created or now_text()
        made = commits.document(commit, parent, self._document(parent), created=created)
        layers = [*parent.layers]
        if commit.layer is not None and not commit.is_empty:
            layers.append(LayerRecord(digest=commit.digest, media_type=OCI_LAYER, size=commit.size))
        with self._content.hold([layer.digest for layer in layers]):
            if commit.layer is not None and not commit.is_empty:
                self._content.adopt(commit.layer, Digest(commit.digest))
            ready = {commit.digest: tree} if tree and not commit.is_empty else NOTHING_READY
            return await self._store(parent, commit, made, layers, name, ready)

    async def graft(self, parent: Image, commit: Commit, donor: Image) -> Image:
        """Make an image of ``parent`` and the topmost layer of another image, if that has one."""
        layers = [*parent.layers, *donor.layers[-1:]]
        if donor.diff_ids:
            commit = replace(commit, digest=donor.diff_ids[-1])
        created = commit.created or now_text()
        made = commits.document(commit, parent, self._document(parent), created=created)
        return await self._store(parent, commit, made, layers, None, NOTHING_READY)

    async def for_platform(self, image: Image, platform: Platform) -> Image:
        """Return the same image, said to be for a platform."""
        if platform_of(image) == platform.normal():
            return image
        made = msgspec.structs.replace(
            self._document(image),
            os=platform.os,
            architecture=platform.architecture,
            variant=platform.variant,
        )
        commit = Commit(config=image.config, step=f"platform {platform}")
        return await self._store(image, commit, made, [*image.layers], None, NOTHING_READY)

    async def repeat(self, parent: Image, commit: Commit, like: Image) -> Image | None:
        """Make the image that follows ``parent`` in the history of another; None when none does.

        The commit says what it is to be like; its layer is the other image's.
        """
        if like.builtin or like.is_of_host or parent.is_of_host or not self._is_whole(like.id):
            return None
        mine, other = self._document(parent), self._document(like)
        steps, count = mine.history or [], len(mine.history or [])
        theirs = other.history or []
        layers = len(parent.diff_ids)
        same = steps == theirs[:count] and parent.diff_ids == like.diff_ids[:layers]
        if not same or len(theirs) == count or theirs[count].created_by != commit.created_by:
            return None
        layers += not theirs[count].empty_layer
        made = msgspec.structs.replace(
            other,
            author=commit.author,
            config=commit.config,
            created=theirs[count].created,
            history=theirs[: count + 1],
            rootfs=RootFs(diff_ids=like.diff_ids[:layers]),
        )
        return await self._store(parent, commit, made, like.layers[:layers], None, NOTHING_READY)

    def _document(self, image: Image) -> ImageDocument:
        if not image.id or image.builtin:
            return ImageDocument()
        data = self._content.read(Digest(image.id))
        return decode(data, ImageDocument, "image configuration")

    async def _store(
        self,
        parent: Image,
        commit: Commit,
        made: ImageDocument,
        layers: list[LayerRecord],
        name: str | None,
        ready: Mapping[str, Ready],
    ) -> Image:
        data = msgspec.json.encode(made)
        if len(data) > MAX_DOCUMENT_BYTES:
            raise InvalidArgument(
                f"the image's configuration would have more than {MAX_DOCUMENT_BYTES >> 20} MiB"
            )
        with self._content.hold([*(layer.digest for layer in layers), str(Digest.of(data))]):
            digest = await asyncio.to_thread(self._content.write, data)
            size = await self._layers.unpack(layers, made.rootfs.diff_ids, Teller(quiet), ready)
            image = record(made, digest, layers, None, size)
            image.on_host, image.parent = parent.is_of_host, parent.id
            image.step = commit.step
            return self._keep(image, [name] if name else [])


def now_text() -> str:
    """Return the time as configurations have it."""
    now = time.time_ns()
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 1_000_000_000))
    return f"{moment}.{now % 1_000_000_000:09d}Z"
