"""Reading image archives: a job that finds the images in one and writes their blobs to files.

docker-archive (``manifest.json``, as `docker save`, podman and skopeo write it) and OCI layout
(``index.json``), plain or compressed. Files of the archive get names of ours in the worker's root directory;
what an image needs is called ``<algorithm>-<hex>`` in the end, verified and synced.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import msgspec

from berth.errors import Corrupt, Failed, InvalidArgument, NotFound
from berth.images import tar
from berth.images.arrivals import Found, Outcome, ReadyTree, blob_file
from berth.images.members import Members
from berth.images.records import LayerRecord, Referrer
from berth.images.streams import ByteStream, file_chunks, pipe_chunks, plain_chunks
from berth.images.unpack import CAPABILITIES, ahead
from berth.oci.digest import CANONICAL, Digest
from berth.oci.image import (
    INDEXES,
    MANIFESTS,
    MAX_DOCUMENT_BYTES,
    NAME_ANNOTATIONS,
    OCI_CONFIG,
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_LAYER_ZSTD,
    REFERENCE_TYPE_ANNOTATION,
    Artifact,
    Descriptor,
    ImageDocument,
    Index,
    Manifest,
    decode,
)
from berth.oci.platform import Platform, choose
from berth.runtime.worker import confine

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from berth.images.members import Member

    Report = Callable[[Mapping[str, object]], None]

MAX_INDEX_DEPTH = 4
LAYER_TYPES = {None: OCI_LAYER, "gzip": OCI_LAYER_GZIP, "zstd": OCI_LAYER_ZSTD}


class DockerEntry(msgspec.Struct, rename="pascal", kw_only=True):
    """An image in ``manifest.json``."""

    config: str
    repo_tags: list[str] | None = None
    layers: list[str] | None = None


def read(argument: dict[str, object], fds: list[int], report: Report) -> Mapping[str, object]:
    """Take the archive that comes through the pipe ``fds[0]`` into the empty directory ``fds[1]``.

    Argument: ``platform``, which image of an index to take, ``only``, whether nothing for others is taken,
    ``known``, the digests (hex) of blobs whose trees are not wanted, and ``plain``, as for unpacking. Returns
    an :class:`Outcome`.
    """
    source, directory = fds
    os.umask(0)
    confine(directory, keep_capabilities=CAPABILITIES)
    platform = msgspec.convert(argument["platform"], Platform)
    known = msgspec.convert(argument["known"], frozenset[str])
    try:
        members = Members(directory, known, report, plain=bool(argument["plain"]))
        stream = ByteStream(ahead(plain_chunks(pipe_chunks(source))))
        members.take(tar.TarReader(stream))
        reader = ArchiveReader(members, platform, only=bool(argument["only"]))
        images = reader.images()
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise Failed("read image archive: no space left on device") from error
        raise
    outcome = Outcome(
        images=images,
        blobs=sorted(reader.written),
        trees=[
            ReadyTree(name=tree.name, diff_id=tree.diff_id, size=tree.size, root=tree.root)
            for tree in members.trees()
        ],
    )
    document: Mapping[str, object] = msgspec.to_builtins(outcome)
    return document


class ArchiveReader:
    """Finds the images among an archive's members."""

    def __init__(self, members: Members, platform: Platform, *, only: bool) -> None:
        self._members = members
        self._platform = platform
        self._only = only  # images for this platform
        self._artifacts: dict[str, Artifact] = {}  # manifests that have a subject, by digest
        self.written: set[str] = set()

    def _document(self, name: str) -> bytes:
        member = self._members.find(name)
        if member.size > MAX_DOCUMENT_BYTES:
            raise InvalidArgument(f"read image archive: {name[:200]!r} is too large")
        fd = self._members.open(member)
        try:
            return os.pread(fd, member.size, 0)
        finally:
            os.close(fd)

    def images(self) -> list[Found]:
        """Return every image for the platform, each with its blobs written."""
        found = self._images()
        if self._only and not found:
            raise NotFound(f"requested platform ({self._platform}) not found")
        return found

    def _images(self) -> list[Found]:
        if self._members.has("manifest.json"):
            data = self._document("manifest.json")
            try:
                entries = msgspec.json.decode(data, type=list[DockerEntry])
            except msgspec.DecodeError as error:
                raise InvalidArgument(f"read image archive: manifest.json: {error}") from error
            found = [image for entry in entries if (image := self._docker_image(entry))]
            if self._members.has("index.json"):
                self._add_referrers(found)
            return found
        if self._members.has("index.json"):
            index = decode(self._document("index.json"), Index, "image archive: index.json")
            self._look_for_artifacts(index)
            found = self._oci_images(index, [], 0)
            for image in found:
                self._attach(image)
            return found
        raise InvalidArgument(
            "read image archive: it has neither manifest.json nor index.json",
            hint="use import for the tar of a root file system",
        )

    # docker-archive

    def _docker_image(self, entry: DockerEntry) -> Found | None:
        data = self._document(entry.config)
        digest = Digest.of(data)
        if not self._suits(data, len(entry.layers or [])):
            return None
        self._keep(self._members.find(entry.config), digest)
        layers = [self._docker_layer(name) for name in entry.layers or []]
        config = Descriptor(media_type=OCI_CONFIG, digest=str(digest), size=len(data))
        return Found(names=entry.repo_tags or [], config=config, layers=layers)

    def _docker_layer(self, name: str) -> Descriptor:
        member = self._members.find(name)
        if member.compression not in LAYER_TYPES:
            raise InvalidArgument(
                f"read image archive: layers compressed with {member.compression}"
            )
        self._keep(member, Digest.parse(member.digest))
        media_type = LAYER_TYPES[member.compression]
        return Descriptor(media_type=media_type, digest=member.digest, size=member.size)

    # OCI layout

    def _oci_images(self, index: Index, names: list[str], depth: int) -> list[Found]:
        """Take every image of the top index; of a nested one, that of the platform."""
        if depth > MAX_INDEX_DEPTH:
            raise InvalidArgument("read image archive: indexes are nested too deeply")
        found: dict[str, Found] = {}
        for entry in index.manifests if depth == 0 else [self._suiting(index)]:
            called = [*names, *names_of(entry)]
            if entry.annotations and REFERENCE_TYPE_ANNOTATION in entry.annotations:
                continue
            if entry.digest in self._artifacts:
                continue
            if entry.media_type in INDEXES:
                nested = decode(self._blob(entry.digest), Index, "image archive: index")
                images = self._oci_images(nested, called, depth + 1)
            else:
                image = self._oci_image(entry, called)
                images = [image] if image else []
            for image in images:
                known = found.setdefault(image.config.digest, image)
                known.names = list(dict.fromkeys([*known.names, *image.names]))
        return list(found.values())

    # Artifacts

    def _look_for_artifacts(self, index: Index) -> None:
        """Find what is no image of its own, but refers to one."""
        for entry in index.manifests:
            if entry.media_type in MANIFESTS and self._members.has(self._member_of(entry.digest)):
                artifact = decode(self._blob(entry.digest), Artifact, "image archive: manifest")
                if artifact.subject is not None:
                    self._artifacts[entry.digest] = artifact

    def _add_referrers(self, images: list[Found]) -> None:
        """Give images of a docker-archive that is a layout, too, their manifests if others refer to those."""
        index = decode(self._document("index.json"), Index, "image archive: index.json")
        self._look_for_artifacts(index)
        if not self._artifacts:
            return
        by_config = {image.config.digest: image for image in images}
        for entry in index.manifests:
            if entry.media_type not in MANIFESTS or entry.digest in self._artifacts:
                continue
            manifest = decode(self._blob(entry.digest), Manifest, "image archive: manifest")
            image = by_config.get(manifest.config.digest)
            parts = [layer.digest for layer in manifest.layers]
            if image is not None and parts == [layer.digest for layer in image.layers]:
                image.manifest = Descriptor(
                    media_type=manifest.media_type, digest=entry.digest, size=entry.size
                )
                self._write_blob(image.manifest)
                self._attach(image)

    def _attach(self, image: Found) -> None:
        """Keep what refers to an image, and to what refers to it."""
        subjects = [image.manifest.digest] if image.manifest else []
        for subject in subjects:
            for digest, artifact in self._artifacts.items():
                if artifact.subject is None or artifact.subject.digest != subject:
                    continue
                parts = [artifact.config, *artifact.layers]
                own = Descriptor(media_type=artifact.media_type, digest=digest)
                for part in (own, *parts):
                    self._write_blob(part)
                image.referrers.append(
                    Referrer(
                        digest=digest,
                        media_type=artifact.media_type,
                        size=own.size,
                        subject=subject,
                        artifact_type=artifact.type,
                        annotations=artifact.annotations,
                        blobs=[
                            LayerRecord(digest=p.digest, media_type=p.media_type, size=p.size)
                            for p in parts
                        ],
                    )
                )
                subjects.append(digest)

    def _suiting(self, index: Index) -> Descriptor:
        chosen = choose(self._platform, [entry.platform for entry in index.manifests])
        if chosen is None:
            raise InvalidArgument(
                f"no matching manifest for {self._platform} in the manifest list entries"
            )
        return index.manifests[chosen]

    def _oci_image(self, entry: Descriptor, names: list[str]) -> Found | None:
        data = self._blob(entry.digest)
        manifest = decode(data, Manifest, "image archive: manifest")
        config = self._blob(manifest.config.digest)
        if not self._suits(config, len(manifest.layers)):
            return None
        entry = Descriptor(media_type=manifest.media_type, digest=entry.digest, size=len(data))
        for part in (entry, manifest.config, *manifest.layers):
            self._write_blob(part)
        return Found(names=names, config=manifest.config, layers=manifest.layers, manifest=entry)

    def _member_of(self, digest: str) -> str:
        parsed = Digest.parse(digest)
        return f"blobs/{parsed.algorithm}/{parsed.encoded}"

    def _blob(self, digest: str) -> bytes:
        data = self._document(self._member_of(digest))
        hasher = Digest.parse(digest).hasher()
        hasher.update(data)
        if hasher.hexdigest() != Digest.parse(digest).encoded:
            raise Corrupt(f"read image archive: blob {digest} has other content")
        return data

    def _write_blob(self, part: Descriptor) -> None:
        part.annotations = None
        member = self._members.find(self._member_of(part.digest))
        part.size = member.size
        self._keep(member, Digest.parse(part.digest))

    # Both

    def _suits(self, data: bytes, layers: int) -> bool:
        """Refuse a configuration that is none; say whether it is for a platform that is wanted."""
        document = decode(data, ImageDocument, "image configuration")
        if not document.is_for_linux:
            raise InvalidArgument(f"cannot load {document.os} image on linux")
        if len(document.rootfs.diff_ids) != layers:
            raise InvalidArgument(
                "invalid manifest, layers length mismatch:"
                f" expected {len(document.rootfs.diff_ids)}, got {layers}"
            )
        for diff_id in document.rootfs.diff_ids:
            Digest.parse(diff_id)
        own = Platform(architecture=document.architecture, variant=document.variant)
        return not self._only or choose(self._platform, [own]) is not None

    def _keep(self, member: Member, expected: Digest) -> None:
        """Make a member's file a blob's; Corrupt when it is not what was expected."""
        if expected in self.written:
            return
        digest = member.digest
        if expected.algorithm != CANONICAL:
            digest = self._hash(member, expected)
        if digest != expected:
            raise Corrupt(f"read image archive: blob {expected} has the digest {digest}")
        self._members.rename(member, blob_file(expected))
        self.written.add(str(expected))

    def _hash(self, member: Member, like: Digest) -> str:
        hasher = like.hasher()
        fd = self._members.open(member)
        try:
            for piece in file_chunks(fd):
                hasher.update(piece)
        finally:
            os.close(fd)
        return f"{like.algorithm}:{hasher.hexdigest()}"


def names_of(entry: Descriptor) -> list[str]:
    """Return what an index entry is called; a tag without a repository is no name."""
    for key in NAME_ANNOTATIONS:
        name = (entry.annotations or {}).get(key)
        if name:
            return [name] if ":" in name or "/" in name else []
    return []
