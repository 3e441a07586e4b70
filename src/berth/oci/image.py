"""Images as documents: descriptors, manifests, indexes and configurations.

OCI image-spec 1.1 and Docker's image manifest version 2, schema 2, which differ in media types only.
https://github.com/opencontainers/image-spec. Unknown members are passed over: the bytes themselves
are what is stored and hashed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import msgspec

from berth.errors import InvalidArgument
from berth.oci.digest import sha256
from berth.oci.platform import Platform  # noqa: TC001 - msgspec reads it

if TYPE_CHECKING:
    from collections.abc import Sequence

    from berth.oci.digest import Digest

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"

INDEXES = (OCI_INDEX, DOCKER_INDEX)
MANIFESTS = (OCI_MANIFEST, DOCKER_MANIFEST)
# Layers that their makers want nobody to pass on, and where they say those are (``urls``).
FOREIGN_LAYERS = (
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
)
# What a configuration may be called; old builders did not know better.
CONFIGS = (OCI_CONFIG, DOCKER_CONFIG, "application/octet-stream", "")
MAX_DOCUMENT_BYTES = 8 << 20

# Annotations of an index entry that say what the image is called.
NAME_ANNOTATIONS = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
REFERENCE_TYPE_ANNOTATION = "vnd.docker.reference.type"


class Descriptor(msgspec.Struct, rename="camel", kw_only=True, omit_defaults=True):
    """What a piece of content is, and its name."""

    media_type: str = ""
    digest: str
    size: int = 0
    urls: list[str] | None = None
    annotations: dict[str, str] | None = None
    platform: Platform | None = None
    artifact_type: str = ""


def is_foreign(layer: Descriptor) -> bool:
    """Say whether a layer is fetched from its maker and never passed on."""
    return layer.media_type in FOREIGN_LAYERS and bool(layer.urls)


class Manifest(msgspec.Struct, rename="camel", kw_only=True):
    """One image for one platform."""

    schema_version: int = 2
    media_type: str = OCI_MANIFEST
    config: Descriptor
    layers: list[Descriptor]
    annotations: dict[str, str] | msgspec.UnsetType = msgspec.UNSET


class Artifact(msgspec.Struct, rename="camel", kw_only=True):
    """A manifest of something else than an image, which may be about another manifest: its subject."""

    media_type: str = OCI_MANIFEST
    artifact_type: str = ""
    config: Descriptor
    layers: list[Descriptor] = []
    subject: Descriptor | None = None
    annotations: dict[str, str] | None = None

    @property
    def type(self) -> str:
        """What it is; those of before version 1.1 say it by their configuration."""
        return self.artifact_type or self.config.media_type


class Index(msgspec.Struct, rename="camel", kw_only=True):
    """Several manifests, or indexes again."""

    schema_version: int = 2
    media_type: str = OCI_INDEX
    manifests: list[Descriptor]
    annotations: dict[str, str] | msgspec.UnsetType = msgspec.UNSET


class Healthcheck(msgspec.Struct, rename="pascal", kw_only=True, omit_defaults=True):
    """How to ask whether a container is well; times in nanoseconds."""

    test: list[str] | None = None
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class ImageConfig(msgspec.Struct, rename="pascal", kw_only=True, omit_defaults=True):
    """The part of an image's configuration that its containers get (image-spec, config.md)."""

    user: str = ""
    exposed_ports: dict[str, object] | None = None
    env: list[str] | None = None
    entrypoint: list[str] | None = None
    cmd: list[str] | None = None
    volumes: dict[str, object] | None = None
    working_dir: str = ""
    labels: dict[str, str] | None = None
    stop_signal: str | None = None
    healthcheck: Healthcheck | None = None
    shell: list[str] | None = None
    on_build: list[str] | None = None


class RootFs(msgspec.Struct, kw_only=True):
    """The layers by the digests of their plain tars, lowest first."""

    type: str = "layers"
    diff_ids: list[str] = []


class History(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What one step of the build did."""

    created: str | None = None
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False


class ImageDocument(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The configuration blob; its digest is the image's ID."""

    architecture: str = ""
    os: str = ""  # always written, as the specification wants; old images without it are for Linux
    variant: str = ""
    created: str | None = None
    author: str = ""
    comment: str = ""
    config: ImageConfig | None = None
    rootfs: RootFs = msgspec.field(default_factory=RootFs)
    history: list[History] | None = None

    @property
    def is_for_linux(self) -> bool:
        """Whether it runs here."""
        return self.os in ("", "linux")


Document = TypeVar("Document", Manifest, Artifact, Index, ImageDocument)


def decode(data: bytes, kind: type[Document], what: str) -> Document:
    """Read a document; InvalidArgument naming ``what`` when it is not one."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"read {what}: {error}") from error


def chain_ids(diff_ids: Sequence[str]) -> list[str]:
    """Return the chain ID of each layer on those before it (image-spec, config.md, "Layer ChainID")."""
    chain: list[str] = []
    for diff_id in diff_ids:
        if not chain:
            chain.append(diff_id)
        else:
            text = f"{chain[-1]} {diff_id}".encode()
            chain.append("sha256:" + sha256(text).hex())
    return chain


def descriptor(data: bytes, media_type: str, digest: Digest) -> Descriptor:
    """Describe ``data``."""
    return Descriptor(media_type=media_type, digest=str(digest), size=len(data))
