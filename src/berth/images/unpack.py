"""Jobs that read untrusted blobs, in a worker confined to the directory they fill.

While one thread decompresses, another hashes, and the main one extracts: those let go of the GIL.
"""

from __future__ import annotations

import hashlib
import os
import queue
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from berth.errors import BerthError, Corrupt
from berth.images.compressions import compression_of
from berth.images.layer import Extractor, write_all
from berth.images.streams import (
    ByteStream,
    file_chunks,
    growing_chunks,
    plain_chunks,
)
from berth.images.tar import TarReader
from berth.runtime.worker import FILE_CAPABILITIES, confine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from berth.images.streams import Bytes

    Report = Callable[[Mapping[str, object]], None]

CAPABILITIES = (*FILE_CAPABILITIES, "CAP_SYS_ADMIN")  # trusted.* attributes
QUEUED_CHUNKS = 4


class Hasher:
    """Hashes chunks in a thread of its own, and writes them to a file when there is one."""

    def __init__(self, copy_to: int | None = None) -> None:
        self._copy_to = copy_to
        self._error: OSError | None = None
        self._hash = hashlib.sha256()
        self._queue: queue.Queue[Bytes] = queue.Queue(QUEUED_CHUNKS)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while chunk := self._queue.get():
            self._hash.update(chunk)
            if self._copy_to is not None and self._error is None:
                try:
                    write_all(self._copy_to, chunk)
                except OSError as error:
                    self._error = error  # for whoever waits for the end

    def update(self, chunk: Bytes) -> None:
        """Add a chunk; waits while too many are queued."""
        if chunk:
            self._queue.put(chunk)

    def digest(self) -> str:
        """Return the digest of everything. Call it once, at the end. OSError: it was not written."""
        self._queue.put(b"")
        self._thread.join()
        if self._error is not None:
            raise self._error
        return f"sha256:{self._hash.hexdigest()}"


def ahead(chunks: Iterator[Bytes]) -> Iterator[Bytes]:
    """Yield the chunks, made by a thread that runs ahead by a few."""
    made: queue.Queue[Bytes | BaseException] = queue.Queue(QUEUED_CHUNKS)

    def run() -> None:
        try:
            for chunk in chunks:
                if chunk:
                    made.put(chunk)
            made.put(b"")
        except BaseException as error:  # noqa: BLE001 - raised where the chunks are wanted
            made.put(error)

    threading.Thread(target=run, daemon=True).start()
    while True:
        item = made.get()
        if isinstance(item, BaseException):
            raise item
        if not item:
            return
        yield item


class Layer:
    """The plain bytes of a layer's blob, and the digests of both forms."""

    def __init__(
        self,
        chunks: Iterator[Bytes],
        *,
        compressed: bool,
        copy_to: int | None = None,
        verified: bool = False,
    ) -> None:
        """Begin; ``verified``: somebody else sees to it that the blob is what its digest says."""
        self._compressed = compressed
        self._blob = None if verified and compressed else Hasher(copy_to)
        self._plain = Hasher() if compressed or self._blob is None else self._blob
        self.blob_size = 0  # so far
        self._raw = self._blob_bytes(chunks)
        self._chunks = self._plain_bytes()

    def _blob_bytes(self, chunks: Iterator[Bytes]) -> Iterator[Bytes]:
        for chunk in chunks:
            if self._blob is not None:
                self._blob.update(chunk)
            self.blob_size += len(chunk)
            yield chunk

    def _plain_bytes(self) -> Iterator[Bytes]:
        if not self._compressed:
            yield from self._raw
            return
        for chunk in ahead(plain_chunks(self._raw)):
            self._plain.update(chunk)
            yield chunk

    def stream(self) -> ByteStream:
        """Return the plain tar."""
        return ByteStream(self._chunks)

    def drain(self) -> None:
        """Read what is left, whatever it is."""
        with suppress(BerthError):
            for _ in self._chunks:
                pass
        for _ in self._raw:  # when it did not decompress
            pass

    def finish(self) -> dict[str, object]:
        """Read what follows the tar's end; return the digests and the blob's size."""
        for _ in self._chunks:
            pass
        digest = self._blob.digest() if self._blob is not None else ""
        diff_id = self._plain.digest() if self._compressed else digest
        return {"digest": digest, "diff_id": diff_id, "blob_size": self.blob_size}


def unpack(argument: dict[str, object], fds: list[int], report: Report) -> Mapping[str, object]:
    """Unpack the layer blob ``fds[0]`` into the empty directory ``fds[1]``.

    Argument: ``digest`` and ``diff_id``, what these have to be (empty: whatever they are), and ``plain``:
    whiteouts are kept as plain files. Reports ``bytes``, how much of the blob is done. Returns ``digest``,
    ``diff_id``, ``blob_size``, ``size`` (bytes in files) and ``root``: whether the archive describes the root
    directory itself.
    """
    blob, directory = fds
    os.umask(0)
    confine(directory, keep_capabilities=CAPABILITIES)
    return extract_layer(blob, directory, argument, report)


def follow(argument: dict[str, object], fds: list[int], report: Report) -> Mapping[str, object]:
    """Unpack the layer blob ``fds[0]`` into the empty directory ``fds[2]`` while it is being written.

    ``fds[1]`` is a pipe: how many bytes there are, eight bytes each time, and its end. Argument and result
    are those of :func:`unpack` without ``digest``, which whoever writes the blob looks at.
    """
    blob, counts, directory = fds
    os.umask(0)
    confine(directory, keep_capabilities=CAPABILITIES)
    layer = Layer(
        growing_chunks(blob, counts), compressed=compression_of(blob) is not None, verified=True
    )
    return extract_from(layer, directory, argument, report)


def unpack_several(
    argument: dict[str, object], fds: list[int], report: Report
) -> Mapping[str, object]:
    """Unpack the layer blobs ``fds[1:]`` into ``N/fs`` of the empty directory ``fds[0]``, N from 0.

    A worker costs more than a small layer. Argument: ``layers``, of each what :func:`unpack` takes. Returns
    ``layers``, of each what that returns, nothing for one that it refuses. Reports ``layer``, which is done.
    """
    directory, *blobs = fds
    os.umask(0)
    confine(directory, keep_capabilities=CAPABILITIES)
    wanted = argument["layers"]
    assert isinstance(wanted, list)
    outcomes: list[dict[str, object]] = []
    for number, (blob, one) in enumerate(zip(blobs, wanted, strict=True)):
        os.mkdir(f"/{number}", 0o700)
        os.mkdir(f"/{number}/fs", 0o755)
        root = os.open(f"/{number}/fs", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            outcomes.append(extract_layer(blob, root, one, lambda _: None))
            report({"layer": number})
        except BerthError:
            outcomes.append({})
        finally:
            os.close(root)
    return {"layers": outcomes}


def extract_layer(
    blob: int, directory: int, argument: Mapping[str, object], report: Report
) -> dict[str, object]:
    """Do what :func:`unpack` says, unconfined."""
    layer = Layer(file_chunks(blob), compressed=compression_of(blob) is not None)
    return extract_from(layer, directory, argument, report)


def extract_from(
    layer: Layer, directory: int, argument: Mapping[str, object], report: Report
) -> dict[str, object]:
    """Extract a layer, and compare its digests with what they have to be."""
    plain = bool(argument.get("plain"))
    extractor = Extractor(directory, lambda: report({"bytes": layer.blob_size}), plain=plain)
    extractor.extract(TarReader(layer.stream()))
    outcome = layer.finish()
    for key, text in (("digest", "blob digest"), ("diff_id", "diffID")):
        expected = argument.get(key)
        if expected and expected != outcome[key]:
            raise Corrupt(f"invalid {text} for layer: expected {expected!r}, got {outcome[key]!r}")
    return {**outcome, "size": extractor.size_bytes, "root": extractor.has_root}


def expand(argument: dict[str, object], fds: list[int], report: Report) -> Mapping[str, object]:
    """Decompress ``fds[0]`` into the empty file ``fds[1]``, with ``fds[2]`` for a root directory."""
    del argument
    source, target, root = fds
    confine(root)
    size = 0
    for chunk in ahead(plain_chunks(file_chunks(source))):
        write_all(target, chunk)
        size += len(chunk)
        report({"bytes": size})
    return {"size": size}
