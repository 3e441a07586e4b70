"""What the state database keeps of an image, and of the image that is built in."""

from __future__ import annotations

import msgspec

from berth.oci.image import ImageConfig  # noqa: TC001 - msgspec reads it


class LayerRecord(msgspec.Struct, kw_only=True):
    """One layer: the blob it came as."""

    digest: str
    media_type: str
    size: int  # of the blob, in bytes


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
    author: str = ""
    comment: str = ""
    layers: list[LayerRecord] = []
    manifest: str = ""  # digest of the manifest it came with
    manifest_type: str = ""
    repo_digests: list[str] = []  # familiar: busybox@sha256:…
    tagged_ns: int = 0  # when a name was last given

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
        return [*blobs, self.manifest] if self.manifest else blobs


class ImageUser(msgspec.Struct, frozen=True, kw_only=True):
    """A container that an image is wanted by."""

    container_id: str
    image_id: str
    running: bool = False
