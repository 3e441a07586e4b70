"""Several images in a registry become one for several platforms. Blocking."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import msgspec

from berth.errors import InvalidArgument
from berth.oci.digest import Digest
from berth.oci.image import (
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    INDEXES,
    OCI_INDEX,
    Descriptor,
    Index,
    Manifest,
    decode,
)
from berth.oci.platform import Platform
from berth.registry.look import look
from berth.registry.resolve import describe

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from urllib3.response import BaseHTTPResponse

    from berth.registry.session import Session

TAKEN = (HTTPStatus.CREATED, HTTPStatus.ACCEPTED, HTTPStatus.OK)


class Part(msgspec.Struct):
    """An image that is to be part: what is in the registry, and what was said of its platform."""

    descriptor: Descriptor
    data: bytes
    path: str  # the repository that it is in


def raw(session: Session) -> tuple[Descriptor, bytes]:
    """Return a manifest or index as it is."""
    which = session.reference.digest or session.reference.tag or ""
    data, media_type = session.manifest(which)
    expected = Digest.parse(which) if ":" in which else None
    return describe(data, media_type, expected), data


def part(session: Session, platform: Platform | None) -> Part:
    """Return an image of a registry as part of an index. InvalidArgument: it is an index itself."""
    descriptor, data = raw(session)
    if descriptor.media_type in INDEXES:
        raise InvalidArgument(f"{session.reference.familiar()} is a manifest list")
    (own,) = look(session).platforms
    if platform is not None:
        own = Platform(
            os=platform.os,
            architecture=platform.architecture or own.architecture,
            variant=platform.variant or own.variant,
        )
    descriptor.platform = own
    return Part(descriptor, data, session.reference.path)


def assemble(session: Session, parts: Sequence[Part], annotations: Mapping[str, str]) -> Descriptor:
    """Make the session's tag an index of the parts, which come into its repository."""
    for one in parts:
        if one.path != session.reference.path:
            _bring(session, one)
    kinds = {one.descriptor.media_type for one in parts}
    kind = DOCKER_INDEX if kinds == {DOCKER_MANIFEST} else OCI_INDEX
    kind = OCI_INDEX if annotations else kind
    entries = [one.descriptor for one in parts]
    own = dict(annotations) or msgspec.UNSET
    index = Index(media_type=kind, manifests=entries, annotations=own)
    data = msgspec.json.encode(index)
    put(session, session.reference.tag or "", data, kind)
    return Descriptor(media_type=kind, digest=str(Digest.of(data)), size=len(data))


def _bring(session: Session, one: Part) -> None:
    """Bring an image from another repository of the registry, without its bytes passing here."""
    manifest = decode(one.data, Manifest, f"manifest {one.descriptor.digest}")
    for blob in (manifest.config, *manifest.layers):
        query = urlencode({"mount": blob.digest, "from": one.path})
        answer = session.call("POST", session.url(f"blobs/uploads/?{query}"), TAKEN)
        if answer.status != HTTPStatus.CREATED:
            raise InvalidArgument(
                f"the registry does not mount {blob.digest} from {one.path}: push the image to"
                f" {session.reference.familiar_name} first"
            )
    put(session, one.descriptor.digest, one.data, one.descriptor.media_type)


def put(session: Session, which: str, data: bytes, media_type: str) -> BaseHTTPResponse:
    """Put a manifest or index under a tag or its digest."""
    url = session.url(f"manifests/{which}")
    return session.call("PUT", url, TAKEN, headers={"Content-Type": media_type}, body=lambda: data)
