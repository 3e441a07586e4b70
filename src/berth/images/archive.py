"""Reading image archives: a job that finds the images in one and writes their blobs to files.

docker-archive (``manifest.json``, as `docker save`, podman and skopeo write it) and OCI layout
(``index.json``), plain or compressed. Nothing is extracted by name: members are looked up in an index, and
what an image needs is written as ``<algorithm>-<hex>`` into the worker's root directory, verified and synced.
"""

from __future__ import annotations

import errno
import os
import posixpath
from typing import TYPE_CHECKING

import msgspec

from berth.errors import Corrupt, Failed, InvalidArgument
from berth.images import tar
from berth.images.layer import clean, write_all
from berth.images.streams import FileStream, compression, compression_of, file_chunks, plain_chunks
from berth.images.unpack import ahead
from berth.oci.digest import CANONICAL, Digest
from berth.oci.image import (
    INDEXES,
    MAX_DOCUMENT_BYTES,
    NAME_ANNOTATIONS,
    OCI_CONFIG,
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_LAYER_ZSTD,
    REFERENCE_TYPE_ANNOTATION,
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

    Report = Callable[[Mapping[str, object]], None]

PLAIN_FILE = "archive"
MAX_LINKS = 16
MAX_INDEX_DEPTH = 4
MAX_MEMBERS = 1_000_000
PIECE_BYTES = 1 << 20
LAYER_TYPES = {None: OCI_LAYER, "gzip": OCI_LAYER_GZIP, "zstd": OCI_LAYER_ZSTD}


class DockerEntry(msgspec.Struct, rename="pascal", kw_only=True):
    """An image in ``manifest.json``."""

    config: str
    repo_tags: list[str] | None = None
    layers: list[str] | None = None


class Found(msgspec.Struct, kw_only=True):
    """An image of an archive, its blobs written."""

    names: list[str]
    config: Descriptor
    layers: list[Descriptor]
    manifest: Descriptor | None = None  # where the archive has one

    def blobs(self) -> list[str]:
        """Return the digests of all its blobs."""
        parts = (self.config, *self.layers, *((self.manifest,) if self.manifest else ()))
        return [part.digest for part in parts]


class Outcome(msgspec.Struct, kw_only=True):
    """What :func:`read` returns."""

    images: list[Found]
    blobs: list[str]  # digests of the files written


def blob_file(digest: Digest) -> str:
    """Return the name of a blob's file in the job's directory."""
    return f"{digest.algorithm}-{digest.encoded}"


def read(argument: dict[str, object], fds: list[int], report: Report) -> Mapping[str, object]:
    """Find the images in the archive ``fds[0]``; write their blobs into the directory ``fds[1]``.

    Argument: ``platform``, which image of an index to take. Returns an :class:`Outcome`.
    """
    archive, directory = fds
    confine(directory)
    platform = msgspec.convert(argument["platform"], Platform)
    try:
        reader = ArchiveReader(plain(archive, report), platform, report)
        outcome = Outcome(images=reader.images(), blobs=[str(digest) for digest in reader.written])
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise Failed("read image archive: no space left on device") from error
        raise
    document: Mapping[str, object] = msgspec.to_builtins(outcome)
    return document


def plain(archive: int, report: Report) -> int:
    """Return a descriptor of the plain archive: itself, or a file beside the blobs."""
    if compression_of(archive) is None:
        return archive
    target = os.open(PLAIN_FILE, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    os.unlink(PLAIN_FILE)
    size = 0
    for chunk in ahead(plain_chunks(file_chunks(archive))):
        write_all(target, chunk)
        size += len(chunk)
        report({"bytes": size})
    return target


class ArchiveReader:
    """One plain archive; blobs go to the working directory."""

    def __init__(self, archive: int, platform: Platform, report: Report) -> None:
        self._archive = archive
        self._platform = platform
        self._report = report
        self._files: dict[str, tuple[int, int]] = {}  # offset and size
        self._links: dict[str, str] = {}
        self.written: set[str] = set()
        self._layers: dict[str, Descriptor] = {}  # by member
        self._index()

    def _index(self) -> None:
        stream = FileStream(self._archive)
        for count, member in enumerate(tar.TarReader(stream)):
            if count > MAX_MEMBERS:
                raise InvalidArgument(f"read image archive: more than {MAX_MEMBERS} members")
            path = clean(member.name)
            if member.kind == tar.REGULAR and member.regions is None:
                self._files[path] = (stream.offset, member.size)
            elif member.kind == tar.LINK:
                self._links[path] = clean(member.linkname)
            elif member.kind == tar.SYMLINK:
                # Older archives link equal layers: "../<id>/layer.tar".
                target = posixpath.join("/", posixpath.dirname(path), member.linkname)
                self._links[path] = posixpath.normpath(target).lstrip("/")

    def _locate(self, name: str) -> tuple[int, int]:
        path = clean(name)
        for _ in range(MAX_LINKS):
            if path in self._files:
                offset, size = self._files[path]
                if offset + size > os.fstat(self._archive).st_size:
                    raise tar.cut_off()
                return offset, size
            if path not in self._links:
                break
            path = self._links[path]
        raise InvalidArgument(f"read image archive: {name[:200]!r} is missing in it")

    def _document(self, name: str) -> bytes:
        offset, size = self._locate(name)
        if size > MAX_DOCUMENT_BYTES:
            raise InvalidArgument(f"read image archive: {name[:200]!r} is too large")
        return os.pread(self._archive, size, offset)

    def images(self) -> list[Found]:
        """Return every image for the platform, each with its blobs written."""
        if "manifest.json" in self._files or "manifest.json" in self._links:
            data = self._document("manifest.json")
            try:
                entries = msgspec.json.decode(data, type=list[DockerEntry])
            except msgspec.DecodeError as error:
                raise InvalidArgument(f"read image archive: manifest.json: {error}") from error
            return [self._docker_image(entry) for entry in entries]
        if "index.json" in self._files:
            index = decode(self._document("index.json"), Index, "image archive: index.json")
            return self._oci_images(index, [], 0)
        raise InvalidArgument(
            "read image archive: it has neither manifest.json nor index.json",
            hint="use import for the tar of a root file system",
        )

    # docker-archive

    def _docker_image(self, entry: DockerEntry) -> Found:
        data = self._document(entry.config)
        digest = Digest.of(data)
        self._check_document(data, len(entry.layers or []))
        self._write(digest, *self._locate(entry.config))
        layers = [self._docker_layer(name) for name in entry.layers or []]
        config = Descriptor(media_type=OCI_CONFIG, digest=str(digest), size=len(data))
        return Found(names=entry.repo_tags or [], config=config, layers=layers)

    def _docker_layer(self, name: str) -> Descriptor:
        if name not in self._layers:
            offset, size = self._locate(name)
            media_type = self._layer_type(offset)
            digest = self._write(None, offset, size)
            self._layers[name] = Descriptor(media_type=media_type, digest=str(digest), size=size)
        return self._layers[name]

    def _layer_type(self, offset: int) -> str:
        kind = compression(os.pread(self._archive, 6, offset))
        if kind not in LAYER_TYPES:
            raise InvalidArgument(f"read image archive: layers compressed with {kind}")
        return LAYER_TYPES[kind]

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
            if entry.media_type in INDEXES:
                nested = decode(self._blob(entry.digest), Index, "image archive: index")
                images = self._oci_images(nested, called, depth + 1)
            else:
                images = [self._oci_image(entry, called)]
            for image in images:
                known = found.setdefault(image.config.digest, image)
                known.names = list(dict.fromkeys([*known.names, *image.names]))
        return list(found.values())

    def _suiting(self, index: Index) -> Descriptor:
        chosen = choose(self._platform, [entry.platform for entry in index.manifests])
        if chosen is None:
            raise InvalidArgument(
                f"no matching manifest for {self._platform} in the manifest list entries"
            )
        return index.manifests[chosen]

    def _oci_image(self, entry: Descriptor, names: list[str]) -> Found:
        data = self._blob(entry.digest)
        manifest = decode(data, Manifest, "image archive: manifest")
        config = self._blob(manifest.config.digest)
        self._check_document(config, len(manifest.layers))
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
        if part.digest not in self.written:
            offset, part.size = self._locate(self._member_of(part.digest))
            self._write(Digest.parse(part.digest), offset, part.size)

    # Both

    def _check_document(self, data: bytes, layers: int) -> None:
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

    def _write(self, expected: Digest | None, offset: int, size: int) -> Digest:
        """Write a part of the archive as a blob, synced; Corrupt when it is not what was expected."""
        if expected in self.written:
            return Digest(expected or "")
        hasher = (expected or Digest(f"{CANONICAL}:")).hasher()
        target = os.open("part", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            end = offset + size
            while offset < end:
                piece = os.pread(self._archive, min(PIECE_BYTES, end - offset), offset)
                if not piece:
                    raise tar.cut_off()
                hasher.update(piece)
                write_all(target, piece)
                offset += len(piece)
                self._report({"bytes": offset})
            os.fsync(target)
        finally:
            os.close(target)
        digest = Digest(f"{expected.algorithm if expected else CANONICAL}:{hasher.hexdigest()}")
        if expected is not None and digest != expected:
            raise Corrupt(f"read image archive: blob {expected} has the digest {digest}")
        os.rename("part", blob_file(digest))
        self.written.add(digest)
        return digest


def names_of(entry: Descriptor) -> list[str]:
    """Return what an index entry is called; a tag without a repository is no name."""
    for key in NAME_ANNOTATIONS:
        name = (entry.annotations or {}).get(key)
        if name:
            return [name] if ":" in name or "/" in name else []
    return []
