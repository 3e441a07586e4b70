"""Writing image archives: docker-archive and OCI layout in one, as `docker save` writes since version 25.

Every blob is there once, as it is stored. Archives of the same images are equal byte for byte.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from berth.errors import InvalidArgument, NotFound
from berth.images.catalog import platform_of
from berth.images.removal import repository
from berth.oci.digest import Digest
from berth.oci.image import (
    MANIFESTS,
    NAME_ANNOTATIONS,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_LAYER_ZSTD,
    OCI_MANIFEST,
    Descriptor,
    Index,
    Manifest,
)
from berth.oci.platform import Platform
from berth.oci.reference import Reference

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from berth.content.store import ContentStore
    from berth.images.annotations import Annotations
    from berth.images.catalog import Catalog
    from berth.images.records import Image, LayerRecord, Referrer

PIECE_BYTES = 1 << 20
BLOCK = 512
LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
END = bytes(2 * BLOCK)


def header(name: str, size: int, *, directory: bool = False) -> bytes:
    """Return a member's header. Owner root, the epoch for a time."""
    import tarfile  # a megabyte of berthd that most never need

    member = tarfile.TarInfo(name)
    member.size = size
    member.mode = 0o755 if directory else 0o644
    if directory:
        member.type = tarfile.DIRTYPE
    return member.tobuf(tarfile.GNU_FORMAT)


def small_file(name: str, data: bytes) -> bytes:
    """Return a member with its data."""
    return header(name, len(data)) + data + bytes(-len(data) % BLOCK)


def blob_path(digest: str) -> str:
    """Return where a layout has a blob."""
    return "blobs/" + digest.replace(":", "/")


def plain_type(layer: LayerRecord) -> str:
    """Return OCI's media type for a layer."""
    if layer.media_type.endswith("gzip"):
        return OCI_LAYER_GZIP
    return OCI_LAYER_ZSTD if layer.media_type.endswith("zstd") else OCI_LAYER


def manifest_of(image: Image, content: ContentStore) -> tuple[bytes, str]:
    """Return the image's manifest and media type: the one it came with, else one made for it."""
    if image.manifest and content.has(Digest(image.manifest)) and image.manifest_type in MANIFESTS:
        return content.read(Digest(image.manifest)), image.manifest_type
    made = Manifest(
        config=Descriptor(
            media_type=OCI_CONFIG, digest=image.id, size=content.size(Digest(image.id))
        ),
        layers=[
            Descriptor(media_type=plain_type(layer), digest=layer.digest, size=layer.size)
            for layer in image.layers
        ],
    )
    return msgspec.json.encode(made), OCI_MANIFEST


def entries_of(
    image: Image, digest: str, size: int, media_type: str, names: Sequence[str]
) -> list[Descriptor]:
    """Return the index's entries for an image: one a name, or one without."""
    platform = Platform(os=image.os, architecture=image.architecture, variant=image.variant)
    entries = []
    for name in names or [""]:
        reference = Reference.parse(name) if name else None
        values = (str(reference), reference.tag or "") if reference else ()
        annotations = dict(zip(NAME_ANNOTATIONS, values, strict=False)) or None
        entries.append(
            Descriptor(
                media_type=media_type,
                digest=digest,
                size=size,
                platform=platform,
                annotations=annotations,
            )
        )
    return entries


def index_of(
    images: Sequence[Image], content: ContentStore, annotations: Annotations | None = None
) -> bytes:
    """Return the index of images that are one for several platforms."""
    entries: list[Descriptor] = []
    for image in images:
        data, media_type = noted_manifest(image, content, annotations)
        [entry] = entries_of(image, str(Digest.of(data)), len(data), media_type, [])
        if annotations is not None:
            annotations.on_entry(entry, image)
        entries.append(entry)
    own = (annotations.of_index() if annotations else None) or msgspec.UNSET
    return msgspec.json.encode(Index(manifests=entries, annotations=own))


def noted_manifest(
    image: Image, content: ContentStore, annotations: Annotations | None
) -> tuple[bytes, str]:
    """Return the image's manifest and media type, with annotations."""
    data, media_type = manifest_of(image, content)
    return annotations.applied(image, data, media_type) if annotations else (data, media_type)


class ArchiveWriter:
    """Plans an archive of some images, then yields its bytes."""

    def __init__(
        self,
        content: ContentStore,
        wanted: Sequence[tuple[Image, list[str]]],
        *,
        referrers: bool = False,
        together: bool = False,
        annotations: Annotations | None = None,
    ) -> None:
        """Plan it. ``wanted`` has each image with the names to be saved, maybe none.

        ``referrers``: with what is kept of what refers to them. ``together``: they are one image for
        several platforms, and have the names of the first; there is no docker-archive of such.
        """
        self._content = content
        self._documents: dict[str, bytes] = {}  # manifests, by digest
        self._blobs: dict[str, int] = {}  # sizes by digest, in order
        entries: list[Descriptor] = []
        docker = []
        for image, names in wanted:
            data, media_type = noted_manifest(image, content, annotations)
            digest = str(Digest.of(data))
            self._documents[digest] = data
            named = entries_of(image, digest, len(data), media_type, names)
            if annotations is not None:
                for entry in named:
                    annotations.on_entry(entry, image)
            entries += named
            for blob in (image.id, *(layer.digest for layer in image.layers)):
                self._blobs[blob] = content.size(Digest(blob))
            entries += self._take(image.referring_to(digest)) if referrers else []
            docker.append(
                {
                    "Config": blob_path(image.id),
                    "RepoTags": names or None,
                    "Layers": [blob_path(layer.digest) for layer in image.layers],
                }
            )
        if together:
            data = index_of([image for image, _ in wanted], content, annotations)
            digest = str(Digest.of(data))
            self._documents[digest] = data
            image, names = wanted[0]
            entries = entries_of(image, digest, len(data), OCI_INDEX, names)
            for entry in entries:
                entry.platform = None
                if annotations is not None:
                    annotations.on_entry(entry, None)
        self._index = msgspec.json.encode(Index(manifests=entries))
        self._docker = b"" if together else msgspec.json.encode(docker)

    def _take(self, referrers: Sequence[Referrer]) -> list[Descriptor]:
        """Plan artifacts; return their entries in the index."""
        for one in referrers:
            self._documents[one.digest] = self._content.read(Digest(one.digest))
            for blob in one.blobs:
                self._blobs[blob.digest] = blob.size
        return [
            Descriptor(
                media_type=one.media_type,
                digest=one.digest,
                size=one.size,
                annotations=one.annotations,
                artifact_type=one.artifact_type,
            )
            for one in referrers
        ]

    async def stream(self) -> AsyncIterator[bytes]:
        """Yield the archive."""
        yield self._head()
        for digest, size in self._blobs.items():
            if digest in self._documents:
                continue
            yield header(blob_path(digest), size)
            with self._content.open_blob(Digest(digest)) as blob:
                while piece := await asyncio.to_thread(blob.read, PIECE_BYTES):
                    yield piece
            yield bytes(-size % BLOCK)
        yield b"".join(self._tail())

    def _head(self) -> bytes:
        algorithms = {digest.partition(":")[0] for digest in (*self._blobs, *self._documents)}
        folders = ["blobs/", *(f"blobs/{name}/" for name in sorted(algorithms))]
        return b"".join(header(folder, 0, directory=True) for folder in folders)

    def _tail(self) -> Iterator[bytes]:
        for digest, data in self._documents.items():
            yield small_file(blob_path(digest), data)
        yield small_file("index.json", self._index)
        if self._docker:
            yield small_file("manifest.json", self._docker)
        yield small_file("oci-layout", LAYOUT)
        yield END


def selected(
    catalog: Catalog, refs: Sequence[str], platform: Platform | None
) -> list[tuple[Image, list[str]]]:
    """Return the images that are named, with their names in the archive.

    A name without a tag stands for all tags of the repository, as in Docker.
    """
    if not refs:
        raise InvalidArgument("save: no images named")
    wanted: dict[str, tuple[Image, list[str]]] = {}
    for ref in refs:
        for image, names in _named(catalog, ref, platform):
            if image.is_of_host:
                why = "is" if image.builtin else "lies on one that is"
                name = names[0] if names else image.short_id
                raise InvalidArgument(
                    f"save {name}: the image {why} built in and never leaves this machine"
                )
            _, before = wanted.get(image.id, (image, []))
            wanted[image.id] = (image, sorted({*before, *names}))
    return list(wanted.values())


def _named(catalog: Catalog, ref: str, platform: Platform | None) -> list[tuple[Image, list[str]]]:
    try:
        reference = Reference.parse(ref)
    except InvalidArgument:
        reference = None
    if reference is not None and reference.is_name_only:
        tagged = [
            (image, [name for name in image.names if repository(name) == reference.familiar_name])
            for image in catalog.all()
            if platform is None or platform_of(image) == platform
        ]
        if found := [(image, names) for image, names in tagged if names]:
            return found
    try:
        image = catalog.resolve(ref, platform)
    except NotFound as error:
        if reference is None:
            raise
        missing = f"No such image: {ref}" if reference.is_name_only else "reference does not exist"
        raise NotFound(missing) from error
    name = catalog.names_it(ref, image)
    return [(image, [name] if name and "@" not in name else [])]
