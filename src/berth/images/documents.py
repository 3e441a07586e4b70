"""What the API shows of images, under Docker's JSON names."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from berth.images.catalog import created_ns
from berth.oci.times import SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from berth.images.records import Image
    from berth.oci.image import Descriptor, History, ImageDocument
    from berth.oci.platform import Platform

Json = dict[str, object]
NEVER = "0001-01-01T00:00:00Z"


def config(image: Image) -> Json:
    """Return an image's configuration with the members that clients look for, even when empty."""
    shown: Json = msgspec.to_builtins(image.config)
    defaults: Json = {
        "Env": [],
        "Cmd": None,
        "Entrypoint": None,
        "Labels": None,
        "Volumes": None,
        "WorkingDir": "",
        "User": "",
        "OnBuild": None,
    }
    return {**defaults, **shown}


def summary(image: Image, *, containers: int = -1, shared_bytes: int = -1) -> Json:
    """Return an image as /images/json lists it; -1 is what was not counted."""
    return {
        "Id": image.id,
        "ParentId": image.parent,
        "RepoTags": image.names,
        "RepoDigests": image.repo_digests,
        "Created": created_ns(image.created) // SECOND_NS,
        "Size": image.size_bytes,
        "SharedSize": shared_bytes,
        "Labels": image.config.labels,
        "Containers": containers,
    }


def inspect(image: Image, *, driver: str) -> Json:
    """Return an image as /images/{name}/json shows it."""
    tagged = datetime.fromtimestamp(image.tagged_ns // 1_000_000_000, UTC)
    document: Json = {
        "Id": image.id,
        "RepoTags": image.names,
        "RepoDigests": image.repo_digests,
        "Parent": image.parent,
        "Comment": image.comment,
        "Created": image.created,
        "DockerVersion": "",
        "Author": image.author,
        "Config": config(image),
        "Architecture": image.architecture,
        "Os": image.os,
        "Size": image.size_bytes,
        "GraphDriver": {"Data": None, "Name": driver},
        "RootFS": {"Type": "layers", "Layers": image.diff_ids},
        "Metadata": {
            "LastTagTime": f"{tagged:%Y-%m-%dT%H:%M:%SZ}" if image.tagged_ns else NEVER,
        },
    }
    if image.variant:
        document["Variant"] = image.variant
    return document


def distribution(descriptor: Descriptor, platforms: Sequence[Platform]) -> Json:
    """Return what a registry has under a name, as /distribution/{name}/json shows it."""
    return {
        "Descriptor": {
            "mediaType": descriptor.media_type,
            "digest": descriptor.digest,
            "size": descriptor.size,
        },
        "Platforms": [
            {
                "architecture": platform.architecture,
                "os": platform.os,
                **({"variant": platform.variant} if platform.variant else {}),
            }
            for platform in platforms
        ],
    }


def history(image: Image, document: ImageDocument, sizes: Sequence[int]) -> list[Json]:
    """Return the steps of an image, the last first. ``sizes`` are the layers' bytes, lowest first."""
    rows: list[Json] = []
    left = list(sizes)
    for step in document.history or []:
        size = 0 if step.empty_layer or not left else left.pop(0)
        rows.append(_step(step, size))
    if not rows:
        rows = [_row(image.created, "", size, image.comment) for size in left or [0]]
    rows.reverse()
    rows[0]["Id"] = image.id
    rows[0]["Tags"] = image.names or None
    return rows


def _step(step: History, size: int) -> Json:
    return _row(step.created or "", step.created_by, size, step.comment)


def _row(created: str, created_by: str, size: int, comment: str) -> Json:
    return {
        "Id": "<missing>",
        "Created": created_ns(created) // SECOND_NS,
        "CreatedBy": created_by,
        "Tags": None,
        "Size": size,
        "Comment": comment,
    }
