"""What a worker says of the archive that it has read: its images, and what it has made of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from berth.images.records import Referrer  # noqa: TC001 - msgspec reads it
from berth.oci.image import Descriptor  # noqa: TC001 - msgspec reads it

if TYPE_CHECKING:
    from berth.oci.digest import Digest


class Found(msgspec.Struct, kw_only=True):
    """An image of an archive, its blobs written."""

    names: list[str]
    config: Descriptor
    layers: list[Descriptor]
    manifest: Descriptor | None = None  # where the archive has one
    referrers: list[Referrer] = []

    def blobs(self) -> list[str]:
        """Return the digests of all its blobs."""
        parts = (self.config, *self.layers, *((self.manifest,) if self.manifest else ()))
        found = [part.digest for part in parts]
        for one in self.referrers:
            found += [one.digest, *(blob.digest for blob in one.blobs)]
        return found


class ReadyTree(msgspec.Struct, kw_only=True):
    """A layer that is extracted already, in ``NAME/fs``."""

    name: str
    diff_id: str
    size: int
    root: bool


class Outcome(msgspec.Struct, kw_only=True):
    """What :func:`berth.images.archive.read` returns."""

    images: list[Found]
    blobs: list[str]  # digests of the files written
    trees: list[ReadyTree]


def blob_file(digest: Digest) -> str:
    """Return the name of a blob's file in the job's directory."""
    return f"{digest.algorithm}-{digest.encoded}"
