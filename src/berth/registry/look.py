"""What a reference leads to in a registry, without pulling it. Blocking."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from berth.errors import Corrupt, InvalidArgument
from berth.oci.digest import Digest
from berth.oci.image import INDEXES, ImageDocument, Index, Manifest, decode
from berth.oci.platform import Platform
from berth.registry.resolve import describe, resolve

if TYPE_CHECKING:
    from berth.oci.image import Descriptor
    from berth.registry.session import Session


class Looked(NamedTuple):
    """The manifest or index, and the platforms it is for."""

    descriptor: Descriptor
    platforms: list[Platform]


class _Tags(msgspec.Struct):
    tags: list[str] | None = None


def tags(session: Session) -> list[str]:
    """Ask for the tags of a repository."""
    found: list[str] = []
    try:
        for data in session.pages("tags/list"):
            found += msgspec.json.decode(data, type=_Tags).tags or []
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"read tags: {error}") from error
    return found


def look(session: Session) -> Looked:
    """Ask. NotFound: there is no such thing."""
    which = session.reference.digest or session.reference.tag or ""
    data, media_type = session.manifest(which)
    descriptor = describe(data, media_type, Digest.parse(which) if ":" in which else None)
    if descriptor.media_type in INDEXES:
        index = decode(data, Index, f"index {descriptor.digest}")
        return Looked(descriptor, [entry.platform for entry in index.manifests if entry.platform])
    document = _document(session, decode(data, Manifest, f"manifest {descriptor.digest}").config)
    platform = Platform(
        os=document.os or "linux", architecture=document.architecture, variant=document.variant
    )
    return Looked(descriptor, [platform])


def configuration(session: Session, platform: Platform) -> ImageDocument:
    """Ask for the configuration of an image. NotFound: there is none for this platform."""
    return _document(session, resolve(session, platform).manifest.config)


def _document(session: Session, config: Descriptor) -> ImageDocument:
    text = session.document(f"blobs/{Digest.parse(config.digest)}")
    if str(Digest.of(text)) != config.digest:
        raise Corrupt(f"image configuration {config.digest}: the registry has other bytes")
    return decode(text, ImageDocument, "image configuration")
