"""What refers to a manifest in a registry: signatures, bills of materials and other artifacts. Blocking.

distribution-spec 1.1, "Listing Referrers" and "Pushing Manifests with Subject". Registries without the API
have an index under a tag that is made of the subject's digest; clients keep it up to date.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec

from berth.errors import Corrupt, InvalidArgument, NotFound
from berth.oci.digest import Digest
from berth.oci.image import MANIFESTS, OCI_INDEX, Artifact, Descriptor, Index, decode
from berth.registry.assembling import put
from berth.registry.resolve import describe

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from berth.registry.session import Session

MAX_REFERRERS = 256  # of an image, those of its referrers included
MAX_DEPTH = 4
ALGORITHM_CHARS, DIGITS_CHARS = 32, 64  # of a tag


@dataclass(frozen=True, slots=True, kw_only=True)
class Attached:
    """An artifact that refers to another manifest."""

    descriptor: Descriptor
    data: bytes
    subject: str
    blobs: Sequence[Descriptor]

    def digests(self) -> list[str]:
        """Return the digests of all of it."""
        return [self.descriptor.digest, *(blob.digest for blob in self.blobs)]


def fallback_tag(subject: Digest) -> str:
    """Return the tag under which registries without the API have what refers to ``subject``."""
    return f"{subject.algorithm[:ALGORITHM_CHARS]}-{subject.encoded[:DIGITS_CHARS]}"


def find(session: Session, subject: Digest, *, kind: str = "") -> list[Descriptor]:
    """Ask for what refers to a manifest, of a type if one is given."""
    found = [entry for index in _indexes(session, subject, kind) for entry in index.manifests]
    if len(found) > MAX_REFERRERS:
        raise InvalidArgument(f"read referrers of {subject}: more than {MAX_REFERRERS}")
    return [entry for entry in found if not kind or entry.artifact_type == kind]


def _indexes(session: Session, subject: Digest, kind: str) -> Iterator[Index]:
    path = f"referrers/{subject}" + (f"?artifactType={quote(kind, safe='')}" if kind else "")
    try:
        for data in session.pages(path):
            yield decode(data, Index, f"referrers of {subject}")
    except NotFound:
        try:
            data, _ = session.manifest(fallback_tag(subject))
        except NotFound:
            return
        yield decode(data, Index, f"referrers of {subject}")


def gather(session: Session, subjects: Sequence[str]) -> list[Attached]:
    """Fetch and verify the manifests of all that refers to ``subjects``, and of what refers to those."""
    found: dict[str, Attached] = {}
    level = [Digest.parse(subject) for subject in subjects]
    for _ in range(MAX_DEPTH):
        following = []
        for subject in level:
            for entry in find(session, subject):
                if entry.media_type in MANIFESTS and entry.digest not in found:
                    found[entry.digest] = _fetch(session, subject, entry)
                    following.append(Digest.parse(entry.digest))
                if len(found) > MAX_REFERRERS:
                    raise InvalidArgument(f"pull referrers: more than {MAX_REFERRERS}")
        level = following
    return list(found.values())


def _fetch(session: Session, subject: Digest, entry: Descriptor) -> Attached:
    digest = Digest.parse(entry.digest)
    data, media_type = session.manifest(digest)
    descriptor = describe(data, media_type, digest)
    artifact = decode(data, Artifact, f"manifest {digest}")
    if artifact.subject is None or artifact.subject.digest != subject:
        raise Corrupt(f"pull referrers of {subject}: {digest} refers to something else")
    descriptor.artifact_type = artifact.type
    descriptor.annotations = artifact.annotations
    return Attached(
        descriptor=descriptor,
        data=data,
        subject=str(subject),
        blobs=(artifact.config, *artifact.layers),
    )


def attach(session: Session, one: Attached) -> None:
    """Put an artifact, whose blobs are there, beside its subject."""
    answer = put(session, one.descriptor.digest, one.data, one.descriptor.media_type)
    if not answer.headers.get("oci-subject"):
        _note(session, one)


def _note(session: Session, one: Attached) -> None:
    """Add it to the index of a registry that keeps none by itself. What else is in there stays as it is."""
    tag = fallback_tag(Digest.parse(one.subject))
    try:
        data, _ = session.manifest(tag)
        decode(data, Index, f"index {tag}")
        index = json.loads(data)
    except NotFound:
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
    known = {entry["digest"] for entry in index["manifests"]}
    if one.descriptor.digest not in known:
        index["manifests"].append(msgspec.to_builtins(one.descriptor))
        put(session, tag, msgspec.json.encode(index), OCI_INDEX)
