"""Annotations that images get when they leave: of manifests and indexes, and of what names these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from berth.images.catalog import platform_of
from berth.oci.image import (
    DOCKER_LAYER_GZIP,
    OCI_CONFIG,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
    Manifest,
    decode,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from berth.images.records import Image
    from berth.oci.image import Descriptor

MANIFEST, MANIFEST_DESCRIPTOR = "manifest", "manifest-descriptor"
INDEX, INDEX_DESCRIPTOR = "index", "index-descriptor"
KINDS = (MANIFEST, MANIFEST_DESCRIPTOR, INDEX, INDEX_DESCRIPTOR)


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotation:
    """One of them; ``platform``: "" for all."""

    kind: str
    platform: str
    key: str
    value: str


@dataclass(frozen=True, slots=True)
class Annotations:
    """All of them."""

    entries: Sequence[Annotation] = ()

    def of_index(self, kind: str = INDEX) -> dict[str, str]:
        """Return those of an index, or of what names it."""
        return {one.key: one.value for one in self.entries if one.kind == kind}

    def of_entry(self, image: Image) -> dict[str, str]:
        """Return those of what names an image's manifest."""
        return self.of(image, MANIFEST_DESCRIPTOR)

    def on_entry(self, entry: Descriptor, image: Image | None) -> None:
        """Add those of what names an image's manifest, or an index (None)."""
        more = self.of_entry(image) if image else self.of_index(INDEX_DESCRIPTOR)
        if more:
            entry.annotations = {**(entry.annotations or {}), **more}

    def of(self, image: Image, kind: str = MANIFEST) -> dict[str, str]:
        """Return those of an image's manifest, or of what names it; those for its platform alone count."""
        platform = str(platform_of(image))
        chosen = [one for one in self.entries if one.kind == kind]
        ordered = sorted(chosen, key=lambda one: one.platform == platform)
        return {one.key: one.value for one in ordered if one.platform in ("", platform)}

    def applied(self, image: Image, data: bytes, media_type: str) -> tuple[bytes, str]:
        """Return an image's manifest with them; Docker's kind has none, so it becomes OCI's."""
        wanted = self.of(image)
        if not wanted:
            return data, media_type
        found = decode(data, Manifest, "manifest")
        before = {} if found.annotations is msgspec.UNSET else found.annotations
        found.media_type, found.annotations = OCI_MANIFEST, {**before, **wanted}
        found.config.media_type = OCI_CONFIG
        for layer in found.layers:
            if layer.media_type == DOCKER_LAYER_GZIP:
                layer.media_type = OCI_LAYER_GZIP
        return msgspec.json.encode(found), OCI_MANIFEST
