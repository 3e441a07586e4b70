"""Image archives, already unpacked to a directory: which images are in there, in which files.

Both kinds are understood: docker-archive (``manifest.json``) and OCI layout (``index.json``). Names in
them are hostile: every path is opened inside the directory.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

from berth.errors import InvalidArgument
from berth.kernel.mounts import open_in_root

MAX_DOCUMENT_BYTES = 8 << 20
INDEX_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
NAME_ANNOTATIONS = ("io.containerd.image.name", "org.opencontainers.image.ref.name")

Document = dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """One image of an archive."""

    id: str
    config: Document
    names: list[str]
    layers: list[Path]
    diff_ids: list[str]


class _DockerEntry(msgspec.Struct, rename="pascal", kw_only=True):
    config: str
    repo_tags: list[str] | None = None
    layers: list[str]


class _Descriptor(msgspec.Struct, rename="camel", kw_only=True):
    digest: str
    media_type: str = ""
    annotations: dict[str, str] | None = None
    platform: dict[str, object] | None = None


class _Index(msgspec.Struct, kw_only=True):
    manifests: list[_Descriptor]


class _Manifest(msgspec.Struct, kw_only=True):
    config: _Descriptor
    layers: list[_Descriptor]


def read_archive(folder: Path, architecture: str) -> list[Archive]:
    """Return the images of the unpacked archive ``folder``, for this architecture."""
    root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if (folder / "manifest.json").is_file():
            entries = msgspec.json.decode(_read(root, "manifest.json"), type=list[_DockerEntry])
            return [_docker_image(root, folder, entry) for entry in entries]
        if (folder / "index.json").is_file():
            return _oci_images(root, folder, architecture)
    except (msgspec.DecodeError, OSError) as error:
        raise InvalidArgument(f"read image archive: {error}") from error
    finally:
        os.close(root)
    raise InvalidArgument(
        "read image archive: it has neither manifest.json nor index.json;"
        " use import for the tar of a root file system"
    )


def _read(root: int, path: str) -> bytes:
    fd = open_in_root(root, path, os.O_RDONLY | os.O_NONBLOCK)
    with open(fd, "rb") as file:
        data = file.read(MAX_DOCUMENT_BYTES + 1)
    if len(data) > MAX_DOCUMENT_BYTES:
        raise InvalidArgument(f"read image archive: {path!r} is too large")
    return data


def _image(
    root: int, folder: Path, config_path: str, names: list[str], layers: list[str]
) -> Archive:
    data = _read(root, config_path)
    config = msgspec.json.decode(data, type=Document)
    rootfs = config.get("rootfs")
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(diff_ids, list) or len(diff_ids) != len(layers):
        raise InvalidArgument("read image archive: layers and diff IDs do not match")
    return Archive(
        id="sha256:" + hashlib.sha256(data).hexdigest(),
        config=config,
        names=names,
        layers=[_locate(root, folder, path) for path in layers],
        diff_ids=[str(diff_id) for diff_id in diff_ids],
    )


def _locate(root: int, folder: Path, path: str) -> Path:
    """Return where ``path`` really is below ``folder``: older archives link equal layers."""
    fd = open_in_root(root, path, os.O_PATH)
    try:
        real = Path(os.readlink(f"/proc/self/fd/{fd}"))
    finally:
        os.close(fd)
    assert real.is_relative_to(folder)
    return real


def _docker_image(root: int, folder: Path, entry: _DockerEntry) -> Archive:
    return _image(root, folder, entry.config, entry.repo_tags or [], entry.layers)


def _blob(digest: str) -> str:
    algorithm, _, encoded = digest.partition(":")
    if not algorithm.isalnum() or not encoded.isalnum():
        raise InvalidArgument(f"read image archive: invalid digest {digest!r}")
    return f"blobs/{algorithm}/{encoded}"


def _oci_images(root: int, folder: Path, architecture: str) -> list[Archive]:
    index = msgspec.json.decode(_read(root, "index.json"), type=_Index)
    images = []
    for descriptor in index.manifests:
        manifest_path = _blob(_for_platform(root, descriptor, architecture).digest)
        manifest = msgspec.json.decode(_read(root, manifest_path), type=_Manifest)
        annotations = descriptor.annotations or {}
        name = next((annotations[key] for key in NAME_ANNOTATIONS if key in annotations), None)
        layers = [_blob(layer.digest) for layer in manifest.layers]
        names = [name] if name else []
        images.append(_image(root, folder, _blob(manifest.config.digest), names, layers))
    return images


def _for_platform(root: int, descriptor: _Descriptor, architecture: str) -> _Descriptor:
    if descriptor.media_type not in INDEX_TYPES:
        return descriptor
    nested = msgspec.json.decode(_read(root, _blob(descriptor.digest)), type=_Index)
    for candidate in nested.manifests:
        platform = candidate.platform or {}
        if platform.get("os") == "linux" and platform.get("architecture") == architecture:
            return candidate
    raise InvalidArgument(f"no matching manifest for linux/{architecture} in the archive")
