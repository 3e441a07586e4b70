"""What nothing refers to any more: blobs that broken transfers left, layers of images that are gone.

Never taken are blobs that somebody holds (:meth:`ContentStore.hold`), layers that are being unpacked, and
layers under a container whose image was removed; those go with the container.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from berth.oci.image import chain_ids

if TYPE_CHECKING:
    from berth.content.store import ContentStore
    from berth.images.catalog import Catalog
    from berth.images.layers import LayerStore
    from berth.snapshots.store import Snapshots

# How long the finished layers of a broken pull wait for the next one.
KEPT_S = 24 * 3600.0


class Garbage:
    """Finds it and removes it."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        content: ContentStore,
        snapshots: Snapshots,
        layers: LayerStore,
    ) -> None:
        self._catalog = catalog
        self._content = content
        self._snapshots = snapshots
        self._layers = layers
        self.awaits_others = (
            False  # whether layers stay only for containers on them, or for a while
        )

    async def remove_layers(self) -> list[str]:
        """Remove layers without an image or container; return their chain IDs, topmost first."""
        images = self._catalog.all()
        wanted = {chain_id for image in images for chain_id in chain_ids(image.diff_ids)}
        busy = self._layers.busy()
        wanted |= self._trees_of_blobs(wanted | busy)
        gone = self._snapshots.unused(wanted | busy)
        self._drop_thin({*gone})
        for chain_id in gone:
            await self._snapshots.remove(chain_id)
        self.awaits_others = not wanted.issuperset(self._snapshots.layers())
        return gone

    def _trees_of_blobs(self, wanted: set[str]) -> set[str]:
        """Return the layers that stay for the blobs of which they have the bytes.

        A blob is read from another layer instead, if a wanted one is the same.
        """
        blobs: set[str] = set()
        same: dict[str, list[str]] = {}
        for image in self._catalog.all():
            blobs.update(image.blobs())
            for chain_id, diff_id in zip(chain_ids(image.diff_ids), image.diff_ids, strict=True):
                if self._snapshots.has(chain_id):
                    same.setdefault(diff_id, []).append(chain_id)
        needed = set()
        for digest, chain_id in self._content.thin.all():
            if chain_id in wanted or not (digest in blobs or self._content.is_held(digest)):
                continue
            if others := same.get(digest):
                self._content.thin.move(digest, others[0])
            else:
                needed.add(chain_id)
        return needed

    def drop_torn(self) -> None:
        """Remove thin blobs whose trees are missing: the images that have them are to be had again."""
        for digest, chain_id in self._content.thin.all():
            if not self._snapshots.has(chain_id):
                self._content.remove(digest)

    def _drop_thin(self, gone: set[str]) -> None:
        """Remove the blobs that are nothing without the trees that go."""
        for digest, chain_id in self._content.thin.all():
            if chain_id in gone:
                self._content.remove(digest)

    def remove_blobs(self, *, older_than_s: float = 0.0) -> int:
        """Remove blobs that no image has, and beginnings of blobs; return the bytes freed."""
        wanted = {blob for image in self._catalog.all() for blob in image.blobs()}
        freed = self._content.drop_partials(older_than_s=older_than_s)
        for digest in list(self._content.digests()):
            if digest in wanted or self._content.age_s(digest) < older_than_s:
                continue
            size = self._content.size(digest)
            freed += size if self._content.remove(digest) else 0
        return freed
