"""What the state database keeps of an image, and of the image that is built in."""

from __future__ import annotations

import msgspec

from berth.oci.image import ImageConfig  # noqa: TC001 - msgspec reads it


class LayerRecord(msgspec.Struct, kw_only=True):
    """One layer: the blob it came as."""

    digest: str
    media_type: str
    size: int  # of the blob, in bytes


class Referrer(msgspec.Struct, kw_only=True):
    """An artifact about an image, or about another such artifact: what its ``subject`` is."""

    digest: str  # of its manifest
    media_type: str
    size: int
    subject: str
    artifact_type: str = ""
    annotations: dict[str, str] | None = None
    blobs: list[LayerRecord] = []


class Image(msgspec.Struct, kw_only=True):
    """An image as it is stored. Its documents' bytes are in the content store."""

    id: str  # the configuration's digest: sha256:…
    config: ImageConfig
    chain_id: str  # of the topmost layer; empty for the built-in image and for one without layers
    diff_ids: list[str]
    size_bytes: int  # of the files in its layers
    created: str  # RFC 3339
    names: list[str] = []  # familiar, with tag: busybox:latest
    architecture: str = "amd64"
    builtin: bool = False
    on_host: bool = (
        False  # its layers lie on the built-in image: it was committed from a container of that
    )
    os: str = "linux"
    variant: str = ""
    parent: str = ""  # the image it was committed from on this machine
    step: str = ""  # of the build that made it of the parent: a hash by which the next one finds it
    author: str = ""
    comment: str = ""
    layers: list[LayerRecord] = []
    manifest: str = ""  # digest of the manifest it came with
    manifest_type: str = ""
    repo_digests: list[str] = []  # familiar: busybox@sha256:…
    tagged_ns: int = 0  # when a name was last given
    referrers: list[Referrer] = []  # what was asked for of what refers to it, subjects first

    @property
    def short_id(self) -> str:
        """Twelve digits, as people see it."""
        return self.id.removeprefix("sha256:")[:12]

    @property
    def is_of_host(self) -> bool:
        """Whether it shows this machine's files, and so stays on it."""
        return self.builtin or self.on_host

    def blobs(self) -> list[str]:
        """Return the digests of all its blobs."""
        if self.builtin:
            return []
        blobs = [self.id, *(layer.digest for layer in self.layers)]
        for referrer in self.referrers:
            blobs += [referrer.digest, *(blob.digest for blob in referrer.blobs)]
        return [*blobs, self.manifest] if self.manifest else blobs

    def add_referrers(self, referrers: list[Referrer]) -> None:
        """Keep what refers to it, beside what is kept."""
        known = {one.digest for one in self.referrers}
        self.referrers = [*self.referrers, *(one for one in referrers if one.digest not in known)]

    def referring_to(self, manifest: str) -> list[Referrer]:
        """Return what refers to a manifest, and to what refers to it, subjects first."""
        found: dict[str, Referrer] = {}
        for referrer in self.referrers:
            if referrer.subject == manifest or referrer.subject in found:
                found[referrer.digest] = referrer
        return list(found.values())


class ImageUser(msgspec.Struct, frozen=True, kw_only=True):
    """A container that an image is wanted by."""

    container_id: str
    image_id: str
    running: bool = False
