"""Annotations as clients ask for them: attributes of exporters, ``annotation-index.key`` and so on. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from berth.errors import InvalidArgument
from berth.images.annotations import (
    INDEX,
    INDEX_DESCRIPTOR,
    KINDS,
    MANIFEST,
    Annotation,
    Annotations,
)
from berth.images.catalog import platform_of
from berth.oci.platform import Platform

if TYPE_CHECKING:
    from collections.abc import Mapping

    from berth.buildkit.jobs import Result

KEY = re.compile(r"annotation(?:-([a-z-]+))?(?:\[([A-Za-z0-9_/-]+)\])?\.(\S+)")


def annotations_of(attrs: Mapping[str, str], found: Result) -> Annotations:
    """Return what a client asks for. InvalidArgument, in BuildKit's words: what was built has no such."""
    entries = []
    platforms = {str(platform_of(image)) for image in found.images}
    for name, value in attrs.items():
        match = KEY.fullmatch(name)
        if match is None:
            continue
        kind, platform = match[1] or MANIFEST, match[2] or ""
        if kind not in KINDS:
            raise InvalidArgument(f"unrecognized annotation type {kind}")
        if platform:
            platform = str(Platform.parse(platform))
            if platform not in platforms:
                raise InvalidArgument(f"invalid annotation: no platform {platform} found in source")
        if kind in (INDEX, INDEX_DESCRIPTOR) and not found.several:
            raise InvalidArgument("index annotations not supported for single platform export")
        entries.append(Annotation(kind=kind, platform=platform, key=match[3], value=value))
    return Annotations(entries)
