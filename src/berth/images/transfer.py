"""Images that come in: archives, root file systems and what a registry sent."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import msgspec

from berth.errors import BerthError, Corrupt, InvalidArgument
from berth.images.arrivals import Found, Outcome, blob_file
from berth.images.compressions import BZIP2, GZIP, XZ, ZSTD, compression_of
from berth.images.feeding import feed, open_pipe
from berth.images.layers import NOTHING_READY, Ready, disk_error
from berth.images.records import Image, LayerRecord
from berth.kernel.filecopies import sync_folder
from berth.oci.digest import Digest
from berth.oci.image import (
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_LAYER_ZSTD,
    Descriptor,
    ImageConfig,
    ImageDocument,
    Manifest,
    chain_ids,
    decode,
)
from berth.oci.platform import Platform, this_machine
from berth.runtime.removal import remove_tree

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping
    from pathlib import Path

    from berth.content.store import ContentStore
    from berth.images.layers import LayerStore, Teller
    from berth.snapshots.store import Snapshots

READ = "berth.images.archive:read"
SPOOL_BYTES = 1 << 20
BLOB_TYPES = {None: OCI_LAYER, GZIP: OCI_LAYER_GZIP, ZSTD: OCI_LAYER_ZSTD}
EPOCH = "1970-01-01T00:00:00Z"


class Transfer:
    """Turns incoming bytes into blobs, snapshots and image records (which the caller names and keeps)."""

    def __init__(self, *, content: ContentStore, snapshots: Snapshots, layers: LayerStore) -> None:
        self._content = content
        self._snapshots = snapshots
        self._layers = layers

    async def spool(self, body: AsyncIterator[bytes]) -> Path:
        """Write a body to a file in the ingest directory; the caller removes it."""
        path = self._content.temporary()
        try:
            with path.open("xb", buffering=0) as file:
                pending = bytearray()
                async for chunk in body:
                    pending += chunk
                    if len(pending) >= SPOOL_BYTES:
                        await asyncio.to_thread(_write_all, file.fileno(), bytes(pending))
                        pending.clear()
                _write_all(file.fileno(), bytes(pending))
        except OSError as error:
            path.unlink(missing_ok=True)
            raise disk_error(error, "receive archive") from error
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return path

    # docker import

    async def import_layer(self, file: Path, name: str) -> tuple[str, LayerRecord, int]:
        """Make the root file system ``file`` a layer; returns diff ID, blob and bytes in its files."""
        partial = self._snapshots.partial()
        try:
            file, media_type = await self._storable(file, name)
            outcome = await self._layers.unpack_file(file, partial)
            digest, diff_id = Digest(str(outcome["digest"])), str(outcome["diff_id"])
            with self._content.hold([digest]):
                await asyncio.to_thread(self._adopt, file, digest)
            if not self._snapshots.has(diff_id):
                self._layers.commit(diff_id, partial, None, outcome)
        finally:
            self._snapshots.discard(partial)
        size = self._content.size(digest)
        record = LayerRecord(digest=str(digest), media_type=media_type, size=size)
        return diff_id, record, self._snapshots.size(diff_id)

    async def _storable(self, file: Path, name: str) -> tuple[Path, str]:
        """Return the file itself, or expanded beside it when layers are not compressed so."""
        fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            kind = compression_of(fd)
        finally:
            os.close(fd)
        if kind not in (XZ, BZIP2):
            return file, BLOB_TYPES[kind]
        expanded = file.with_name(name)
        await self._layers.expand(file, expanded)
        return expanded, OCI_LAYER

    def _adopt(self, file: Path, digest: Digest) -> None:
        if self._content.has(digest):
            return
        try:
            fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
            self._content.adopt(file, digest)
        except OSError as error:
            raise disk_error(error, "store layer") from error

    # docker load

    async def read_archive(
        self,
        body: AsyncIterator[bytes],
        folder: Path,
        known: Iterable[str],
        platform: Platform | None,
    ) -> tuple[list[Found], dict[str, Ready]]:
        """Read an archive as it comes into ``folder``, which is empty; return its images and their layers.

        With ``platform`` only those for that. The images' blobs are in the store then, held by nobody.
        """
        reading, writing = open_pipe()
        async with asyncio.TaskGroup() as group:
            group.create_task(feed(body, writing))
            task = group.create_task(self._read(reading, folder, list(known), platform))
        outcome = task.result()
        if isinstance(outcome, BerthError):
            raise outcome
        blobs = [Digest.parse(text) for text in outcome.blobs]
        with self._content.hold(blobs):
            files = {digest: folder / blob_file(digest) for digest in blobs}
            await asyncio.to_thread(self._content.adopt_all, files)
        ready = {
            tree.diff_id: Ready(folder / tree.name, {"size": tree.size, "root": tree.root})
            for tree in outcome.trees
        }
        return outcome.images, ready

    async def _read(
        self, pipe: int, folder: Path, known: list[str], platform: Platform | None
    ) -> Outcome | BerthError:
        """Run the job; its error waits until the whole body has come, which clients expect."""
        argument = {
            "platform": msgspec.to_builtins(platform or this_machine()),
            "only": platform is not None,
            "known": known,
            "plain": self._snapshots.driver.has_plain_layers,
        }
        try:
            result = await self._layers.run(READ, argument, (pipe, folder), lambda _: None)
            return msgspec.convert(result, Outcome)
        except BerthError as error:
            return error
        finally:
            os.close(pipe)

    # From blobs to a record

    async def make_image(
        self,
        config: Descriptor,
        layers: list[Descriptor],
        manifest: Descriptor | None,
        teller: Teller,
        ready: Mapping[str, Ready] = NOTHING_READY,
    ) -> Image:
        """Unpack an image whose blobs are stored; return its record, not yet kept."""
        digest = Digest.parse(config.digest)
        document = decode(self._content.read(digest), ImageDocument, "image configuration")
        if not document.is_for_linux:
            raise InvalidArgument(f"cannot use {document.os} image on linux")
        diff_ids = document.rootfs.diff_ids
        if len(diff_ids) != len(layers):
            raise InvalidArgument(
                f"invalid manifest, layers length mismatch: expected {len(diff_ids)}, got {len(layers)}"
            )
        records = [
            LayerRecord(digest=part.digest, media_type=part.media_type, size=part.size)
            for part in layers
        ]
        size = await self._layers.unpack(records, diff_ids, teller, ready)
        return record(document, digest, records, manifest, size)

    def blobs_of(self, descriptor: Descriptor) -> list[str]:
        """Return the digests of an image's blobs, from its stored manifest."""
        data = self._content.read(Digest.parse(descriptor.digest))
        manifest = decode(data, Manifest, "manifest")
        parts = (descriptor, manifest.config, *manifest.layers)
        return [part.digest for part in parts]

    async def pulled(
        self, descriptor: Descriptor, teller: Teller, ready: Mapping[str, Ready]
    ) -> Image:
        """Return the record of an image whose manifest and blobs a registry client has stored."""
        digest = Digest.parse(descriptor.digest)
        manifest = decode(self._content.read(digest), Manifest, "manifest")
        missing = [
            part.digest
            for part in (manifest.config, *manifest.layers)
            if not self._content.has(Digest.parse(part.digest))
        ]
        if missing:
            raise Corrupt(f"unpack image {digest}: {missing[0]} is not in the content store")
        entry = Descriptor(
            media_type=manifest.media_type, digest=descriptor.digest, size=descriptor.size
        )
        return await self.make_image(manifest.config, manifest.layers, entry, teller, ready)


def record(
    document: ImageDocument,
    digest: Digest,
    layers: list[LayerRecord],
    manifest: Descriptor | None,
    size_bytes: int,
) -> Image:
    """Return the record of an image without a name."""
    diff_ids = document.rootfs.diff_ids
    return Image(
        id=str(digest),
        config=document.config or ImageConfig(),
        chain_id=chain_ids(diff_ids)[-1] if diff_ids else "",
        diff_ids=diff_ids,
        size_bytes=size_bytes,
        created=document.created or EPOCH,
        architecture=document.architecture or this_machine().architecture,
        os=document.os or "linux",
        variant=document.variant,
        author=document.author,
        comment=document.comment,
        layers=layers,
        manifest=manifest.digest if manifest else "",
        manifest_type=manifest.media_type if manifest else "",
    )


def platform_of(text: str | None) -> Platform:
    """Return the platform that a request names, this machine's when it names none."""
    return Platform.parse(text) if text else this_machine()


def remove_ingest(path: Path) -> None:
    """Remove a file or folder of the ingest directory."""
    if path.is_dir() and not path.is_symlink():
        remove_tree(str(path))
    else:
        path.unlink(missing_ok=True)
    sync_folder(path.parent)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
