"""An image as a registry gets it: its manifest, and blobs that are worth sending.

An image that came with a manifest leaves with the same bytes. Layers that came plain are compressed; what
they became is remembered, so that the next push finds them in the registry without compressing again.
"""

from __future__ import annotations

import asyncio
import zlib
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from berth.errors import InvalidArgument
from berth.images.removal import repository
from berth.images.save import manifest_of, plain_type
from berth.oci.digest import Digest
from berth.oci.image import (
    DOCKER_CONFIG,
    DOCKER_LAYER_GZIP,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
    Descriptor,
    Manifest,
    decode,
)
from berth.oci.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Protocol

    from berth.content.store import ContentStore
    from berth.images.catalog import Catalog
    from berth.images.records import Image, LayerRecord
    from berth.state import State

    class Compressor(Protocol):
        """What zlib and isal have in common."""

        def compress(self, data: bytes, /) -> bytes:
            """Return what is ready."""

        def flush(self) -> bytes:
            """Return the rest."""


READ_BYTES = 128 << 10  # larger pieces leave holes in the heap, and berthd keeps those
GZIP_WINDOW = 16 + zlib.MAX_WBITS
LEVEL = 1
MAX_NEIGHBOURS = 3


class CompressedRecord(msgspec.Struct, kw_only=True):
    """What a plain blob became."""

    digest: str
    size: int


class Shipment(NamedTuple):
    """An image ready to leave. Its blobs are in the content store; whoever sends them holds them."""

    manifest: bytes
    media_type: str
    config: Descriptor
    layers: list[Descriptor]
    diff_ids: list[str]
    neighbours: dict[str, list[str]]  # of a layer's digest: repositories there that have it

    def blobs(self) -> list[str]:
        """Return the digests of all its blobs."""
        return [part.digest for part in (self.config, *self.layers)]


class Shipping:
    """Prepares images to be pushed."""

    def __init__(self, *, state: State, content: ContentStore, catalog: Catalog) -> None:
        self._content = content
        self._catalog = catalog
        self._compressed = state.table("compressed", CompressedRecord)

    async def prepare(self, image: Image, target: Reference) -> Shipment:
        """Make what is missing for a push to ``target``."""
        if image.is_of_host:
            why = "is" if image.builtin else "lies on one that is"
            raise InvalidArgument(
                f"push {target.familiar()}: the image {why} built in and never leaves this machine"
            )
        if image.manifest and self._content.has(Digest(image.manifest)):
            data, media_type = manifest_of(image, self._content)
            manifest = decode(data, Manifest, "manifest")
        else:
            layers = [await self._worth_sending(layer) for layer in image.layers]
            manifest = self._manifest(image, layers)
            data, media_type = msgspec.json.encode(manifest), manifest.media_type
        neighbours = {
            layer.digest: self._neighbours(layer.digest, target) for layer in manifest.layers
        }
        return Shipment(
            data, media_type, manifest.config, manifest.layers, image.diff_ids, neighbours
        )

    def _manifest(self, image: Image, layers: list[Descriptor]) -> Manifest:
        """Describe it as Docker does, where Docker has a word for every layer."""
        size = self._content.size(Digest(image.id))
        if any(layer.media_type != OCI_LAYER_GZIP for layer in layers):
            config = Descriptor(media_type=OCI_CONFIG, digest=image.id, size=size)
            return Manifest(media_type=OCI_MANIFEST, config=config, layers=layers)
        config = Descriptor(media_type=DOCKER_CONFIG, digest=image.id, size=size)
        for layer in layers:
            layer.media_type = DOCKER_LAYER_GZIP
        return Manifest(media_type=DOCKER_MANIFEST, config=config, layers=layers)

    async def _worth_sending(self, layer: LayerRecord) -> Descriptor:
        kind = plain_type(layer)
        if kind != OCI_LAYER:
            return Descriptor(media_type=kind, digest=layer.digest, size=layer.size)
        known = self._compressed.get(layer.digest)
        if known is None or not self._content.has(Digest(known.digest)):
            known = await asyncio.to_thread(self._compress, Digest(layer.digest))
            self._compressed.put(layer.digest, known)
        return Descriptor(media_type=OCI_LAYER_GZIP, digest=known.digest, size=known.size)

    def _compress(self, plain: Digest) -> CompressedRecord:
        packer = compressor()
        with self._content.open_blob(plain) as blob, self._content.ingest() as ingest:
            while data := blob.read(READ_BYTES):
                ingest.write(packer.compress(data))
            ingest.write(packer.flush())
            digest = ingest.commit()
            return CompressedRecord(digest=str(digest), size=ingest.written)

    def _neighbours(self, digest: str, target: Reference) -> list[str]:
        """Return repositories of the registry that should have the blob."""
        found: dict[str, None] = {}
        for image in self._catalog.all():
            if digest not in self._sent_as(image.layers):
                continue
            for name in image.repo_digests:
                other = Reference.parse(repository(name))
                if other.domain == target.domain and other.path != target.path:
                    found[other.path] = None
        return list(found)[:MAX_NEIGHBOURS]

    def _sent_as(self, layers: Sequence[LayerRecord]) -> set[str]:
        digests = {layer.digest for layer in layers}
        known = (self._compressed.get(digest) for digest in list(digests))
        return digests | {record.digest for record in known if record is not None}


def compressor() -> Compressor:
    """Return what makes gzip."""
    try:
        from isal import isal_zlib
    except ImportError:  # no wheel for this machine: zlib, at a sixth of the speed
        return zlib.compressobj(LEVEL, zlib.DEFLATED, GZIP_WINDOW)
    fast: Compressor = isal_zlib.compressobj(LEVEL, zlib.DEFLATED, GZIP_WINDOW)
    return fast
