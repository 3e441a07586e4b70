"""From a reference to the manifest of one platform: which blobs an image is. Blocking."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from berth.errors import Corrupt, InvalidArgument, NotFound, Unsupported
from berth.oci.digest import CANONICAL, Digest
from berth.oci.image import (
    CONFIGS,
    INDEXES,
    MANIFESTS,
    MAX_DOCUMENT_BYTES,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    decode,
)
from berth.oci.platform import choose

if TYPE_CHECKING:
    from berth.oci.platform import Platform
    from berth.registry.session import Session

MAX_DEPTH = 4
MAX_SIZE = (1 << 63) - 1
PLUGIN = "application/vnd.docker.plugin.v1+json"


class _Probe(msgspec.Struct, rename="camel"):
    """Enough of a document to tell which kind it is."""

    schema_version: int = 0
    media_type: str = ""
    manifests: list[msgspec.Raw] | None = None
    config: object = None
    layers: list[msgspec.Raw] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """The documents on the way to an image, the one that was asked for first, and the last, read."""

    documents: tuple[tuple[Descriptor, bytes], ...]
    manifest: Manifest

    @property
    def top(self) -> Descriptor:
        """What the reference names: an index or a manifest."""
        return self.documents[0][0]

    @property
    def bottom(self) -> Descriptor:
        """The manifest."""
        return self.documents[-1][0]


def resolve(session: Session, platform: Platform) -> Resolved:
    """Fetch and verify manifests. NotFound: no such image, or not for this platform."""
    which = session.reference.digest or session.reference.tag or ""
    documents: list[tuple[Descriptor, bytes]] = []
    for _ in range(MAX_DEPTH):
        data, media_type = session.manifest(which)
        expected = Digest.parse(which) if ":" in which else None
        descriptor = describe(data, media_type, expected)
        documents.append((descriptor, data))
        if descriptor.media_type in MANIFESTS:
            manifest = decode(data, Manifest, f"manifest {descriptor.digest}")
            check_is_image(manifest)
            return Resolved(documents=tuple(documents), manifest=manifest)
        index = decode(data, Index, f"index {descriptor.digest}")
        position = choose(platform, [entry.platform for entry in index.manifests])
        if position is None:
            raise NotFound(f"no matching manifest for {platform} in the manifest list entries")
        which = index.manifests[position].digest
    raise InvalidArgument(f"read index: more than {MAX_DEPTH} levels")


def check_is_image(manifest: Manifest) -> None:
    """InvalidArgument, in Docker's words, for an artifact that is something else."""
    kind = manifest.config.media_type
    if kind not in CONFIGS:
        known = "plugin" if kind == PLUGIN else "unknown"
        raise InvalidArgument(
            f'Encountered remote "{kind}"({known}) when fetching',
            hint="it is an artifact and no image: tools like oras fetch those",
        )
    for part in (manifest.config, *manifest.layers):
        if not 0 <= part.size <= MAX_SIZE:
            raise InvalidArgument(f"read manifest: {part.digest[:160]} has {part.size} bytes")


def describe(data: bytes, media_type: str, expected: Digest | None) -> Descriptor:
    """Verify a document and say what it is; what it says itself counts more than the server's word."""
    if len(data) > MAX_DOCUMENT_BYTES:
        raise InvalidArgument(f"manifest is larger than {MAX_DOCUMENT_BYTES} bytes")
    hasher = (expected or Digest(f"{CANONICAL}:")).hasher(len(data))
    hasher.update(data)
    digest = f"{expected.algorithm if expected else CANONICAL}:{hasher.hexdigest()}"
    if expected is not None and digest != expected:
        raise Corrupt(f"manifest verification failed for digest {expected}")
    kind = _kind(data, media_type)
    return Descriptor(media_type=kind, digest=digest, size=len(data))


def _check_is_one_kind(probe: _Probe, said: str) -> None:
    """InvalidArgument for a document that one reader would take for an index and another for a manifest."""
    is_index = probe.manifests is not None
    is_manifest = probe.config is not None or probe.layers is not None
    kind = probe.media_type or said
    if (is_index and (is_manifest or kind in MANIFESTS)) or (is_manifest and kind in INDEXES):
        raise InvalidArgument("read manifest: it is an index and an image's manifest at once")


def _kind(data: bytes, media_type: str) -> str:
    try:
        probe = msgspec.json.decode(data, type=_Probe)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"read manifest: {error}") from error
    if probe.schema_version == 1:
        raise Unsupported(
            "image manifest version 2, schema 1 is not supported: push the image anew"
        )
    _check_is_one_kind(probe, media_type)
    if probe.media_type:
        media_type = probe.media_type
    elif media_type not in (*INDEXES, *MANIFESTS):
        media_type = OCI_INDEX if probe.manifests is not None else OCI_MANIFEST
    if media_type not in (*INDEXES, *MANIFESTS):
        raise Unsupported(f"unsupported manifest media type {media_type!r}")
    return media_type
