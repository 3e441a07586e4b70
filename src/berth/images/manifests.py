"""Images as their manifests: what one name stands for on several platforms, as clients of API 1.47 see it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from berth.images import documents
from berth.images.catalog import platform_of
from berth.images.save import manifest_of
from berth.oci.digest import Digest
from berth.oci.platform import choose, this_machine

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from berth.content.store import ContentStore
    from berth.images.documents import Json
    from berth.images.records import Image

    Users = Mapping[str, Sequence[str]]  # ids of containers, by the id of their image


def groups(images: Iterable[Image]) -> list[list[Image]]:
    """Return the images in order, those that have a name in common together."""
    found: list[list[Image]] = []
    for image in images:
        for group in found:
            if any(name in other.names for other in group for name in image.names):
                group.append(image)
                break
        else:
            found.append([image])
    return found


def summary(group: Sequence[Image], content: ContentStore, users: Users) -> Json:
    """Return images of one name as /images/json lists them: as the one that suits this machine."""
    position = choose(this_machine(), [platform_of(image) for image in group])
    shown = documents.summary(
        group[position or 0], containers=sum(len(users.get(image.id, ())) for image in group)
    )
    shown["RepoTags"] = sorted({name for image in group for name in image.names})
    shown["RepoDigests"] = sorted({name for image in group for name in image.repo_digests})
    shown["Size"] = sum(image.size_bytes for image in group)
    shown["Manifests"] = described(group, content, users)
    return shown


def described(group: Sequence[Image], content: ContentStore, users: Users) -> list[Json]:
    """Return the manifest of each image."""
    return [_manifest(image, content, users.get(image.id, ())) for image in group]


def _manifest(image: Image, content: ContentStore, containers: Sequence[str]) -> Json:
    if image.builtin:
        digest, size, media_type, stored = image.id, 0, "", 0
    else:
        data, media_type = manifest_of(image, content)
        digest, size = str(Digest.of(data)), len(data)
        blobs = (image.id, *(layer.digest for layer in image.layers))
        stored = size + sum(content.size(Digest(blob)) for blob in blobs)
    variant = {"variant": image.variant} if image.variant else {}
    platform = {"architecture": image.architecture, "os": image.os, **variant}
    return {
        "ID": digest,
        "Descriptor": {
            "mediaType": media_type,
            "digest": digest,
            "size": size,
            "platform": platform,
        },
        "Available": True,
        "Size": {"Content": stored, "Total": stored + image.size_bytes},
        "Kind": "image",
        "ImageData": {
            "Platform": platform,
            "Containers": [*containers],
            "Size": {"Unpacked": image.size_bytes},
            "UnpackedSize": image.size_bytes,  # which the description of the API demands
        },
    }
