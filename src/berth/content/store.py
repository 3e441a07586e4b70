"""The content store: immutable blobs, named by their digests.

``<root>/blobs/<algorithm>/<hex>`` holds what is complete, ``<root>/ingest`` what is not. A blob appears
by a rename after it was verified and synced, so what has a name is whole; what a crash leaves in
``ingest`` is known by :meth:`ContentStore.leftovers`. ``<root>/partial/<algorithm>-<hex>`` is the beginning
of a blob, kept so that the rest is enough: :meth:`ContentStore.resume`. ``<root>/thin`` belongs to
:mod:`berth.content.thin`.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

from berth.content.thin import ThinBlobs
from berth.errors import Corrupt, Failed, InvalidArgument, NotFound
from berth.kernel.filecopies import sync_folder
from berth.oci.digest import CANONICAL, LENGTHS, Digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path
    from types import TracebackType

    from berth.content.thin import Trees

READ_BYTES = 1 << 20
BLOB_MODE = 0o600
BLOCK_BYTES = 512  # of st_blocks


def no_trees(chain_id: str) -> Path:
    """Know of no layer's tree."""
    raise NotFound(f"no snapshot {chain_id}")


class ContentStore:
    """The blobs under one directory. Methods block for disk time only; writers are independent."""

    def __init__(self, root: Path, trees: Trees = no_trees) -> None:
        """Begin; ``trees`` tells where the tree of a chain ID is, for blobs that are thin."""
        self._blobs = root / "blobs"
        self.ingest_folder = root / "ingest"
        self._partial = root / "partial"
        self._resumed: set[str] = set()  # names in ``partial`` that somebody writes to
        self._held: Counter[str] = Counter()
        for folder in (root, self._blobs, self.ingest_folder, self._partial):
            folder.mkdir(mode=0o700, exist_ok=True)
        self.thin = ThinBlobs(root / "thin", trees)
        for digest, _ in self.thin.all():
            if not self.has(digest):
                self.thin.forget(digest)

    def leftovers(self) -> list[Path]:
        """Return what was being written when an earlier engine ended, for the caller to remove."""
        return list(self.ingest_folder.iterdir())

    def path(self, digest: Digest) -> Path:
        """Return where the blob is, or would be."""
        return self._blobs / digest.algorithm / digest.encoded

    def has(self, digest: Digest) -> bool:
        """Say whether the blob is here."""
        return self.path(digest).is_file()

    def size(self, digest: Digest) -> int:
        """Return the blob's size in bytes; NotFound when it is not here."""
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            raise NotFound(f"content {digest}: not found") from None

    def ingest(self, expected: Digest | None = None, size: int | None = None) -> Ingest:
        """Begin a blob. With ``expected`` or ``size``, committing anything else is Corrupt."""
        return Ingest(self, self.temporary(), expected, size)

    def resume(self, expected: Digest, size: int) -> Ingest:
        """Go on with a blob whose beginning may be here; one writer at a time. Reads what there is."""
        name = f"{expected.algorithm}-{expected.encoded}"
        self._resumed.add(name)
        try:
            ingest = Ingest(self, self._partial / name, expected, size, kept=True)
            ingest.read_back()
        except BaseException:
            self._resumed.discard(name)
            raise
        return ingest

    def end_of(self, partial: Path) -> None:
        """Note that nobody writes to a partial blob any more."""
        self._resumed.discard(partial.name)

    def drop_partials(self, *, older_than_s: float) -> int:
        """Remove beginnings of blobs that nobody is writing; return the bytes freed."""
        freed = 0
        for path in list(self._partial.iterdir()):
            status = path.stat()
            if path.name in self._resumed or time.time() - status.st_mtime < older_than_s:
                continue
            path.unlink()
            freed += status.st_blocks * BLOCK_BYTES
        return freed

    def open_blob(self, digest: Digest) -> BinaryIO:
        """Open the blob, unverified: for whoever hashes what it reads. A thin one is no file."""
        return self._open(digest)[0]

    def _open(self, digest: Digest) -> tuple[BinaryIO, bool]:
        """Open the blob; say whether it is thin."""
        if digest not in self.thin:
            try:
                file = self.path(digest).open("rb")
            except FileNotFoundError:
                raise NotFound(f"content {digest}: not found") from None
            if digest not in self.thin:
                return file, False
            file.close()  # another thread has made it thin: this may be what it has left
        return self.thin.open(digest, self.path(digest)), True

    def open_file(self, digest: Digest) -> BinaryIO:
        """Open the blob, unverified, as a file; a thin one is copied into one without a name."""
        blob, is_thin = self._open(digest)
        if not is_thin:
            return blob
        path = self.temporary()
        with blob, path.open("x+b") as file:
            path.unlink()
            while data := _read(blob, digest):
                file.write(data)
            file.seek(0)
            return os.fdopen(os.dup(file.fileno()), "rb")

    def make_thin(self, digest: Digest, chain_id: str, thin: Path, index: Path) -> None:
        """Put a synced file without the ranges of an index in the place of a blob's."""
        self.thin.add(digest, chain_id, index)
        thin.rename(self.path(digest))

    def make_whole(self, digest: Digest) -> None:
        """Give a thin blob all of its bytes, verified; Corrupt when they are not to be had any more.

        Failed when the disk takes them not: it stays as it is then.
        """
        with self.open_blob(digest) as blob, self.ingest(digest, self.size(digest)) as ingest:
            while data := _read(blob, digest):
                ingest.write(data)
            ingest.commit()

    def read(self, digest: Digest, *, limit: int = 8 << 20) -> bytes:
        """Return a small blob, verified; InvalidArgument when it is larger than ``limit`` bytes."""
        with self.open_blob(digest) as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise InvalidArgument(f"content {digest}: larger than {limit} bytes")
        hasher = digest.hasher(len(data))
        hasher.update(data)
        if hasher.hexdigest() != digest.encoded:
            raise Corrupt(f"content {digest}: the stored bytes do not match")
        return data

    def verify(self, digest: Digest) -> str:
        """Return what is wrong with a blob of any size, "" for nothing; NotFound when it is not here."""
        hasher = digest.hasher()
        try:
            with self.open_blob(digest) as file:
                while data := file.read(READ_BYTES):
                    hasher.update(data)
        except Corrupt as error:
            return error.message
        except OSError as error:
            self.size(digest)  # or it is gone
            return f"cannot be read: {(error.strerror or str(error)).lower()}"
        if hasher.hexdigest() != digest.encoded:
            return f"the stored bytes have the digest {digest.algorithm}:{hasher.hexdigest()}"
        return ""

    def write(self, data: bytes) -> Digest:
        """Store ``data`` unless it is here."""
        digest = Digest.of(data)
        if not self.has(digest):
            with self.ingest(digest, len(data)) as ingest:
                ingest.write(data)
                ingest.commit()
        return digest

    def adopt(self, file: Path, digest: Digest) -> None:
        """Take over a synced file of this file system whose digest the caller has verified."""
        target = self.path(digest)
        target.parent.mkdir(mode=0o700, exist_ok=True)
        file.rename(target)
        sync_folder(target.parent)
        self.thin.forget(digest)

    def age_s(self, digest: Digest) -> float:
        """Return how long ago the blob was written; NotFound when it is not here."""
        try:
            return time.time() - self.path(digest).stat().st_mtime
        except FileNotFoundError:
            raise NotFound(f"content {digest}: not found") from None

    def adopt_all(self, files: Mapping[Digest, Path]) -> None:
        """Take over files as :meth:`adopt` does, with one wait for the disk."""
        folders = {self.path(digest).parent for digest in files}
        for folder in folders:
            folder.mkdir(mode=0o700, exist_ok=True)
        for digest, file in files.items():
            file.rename(self.path(digest))
        for folder in folders:
            sync_folder(folder)
        for digest in files:
            self.thin.forget(digest)

    def remove(self, digest: Digest) -> bool:
        """Remove a blob unless it is held; say whether it went."""
        if self.is_held(digest):
            return False
        path = self.path(digest)
        try:
            path.unlink()
        except FileNotFoundError:
            self.thin.forget(digest)
            return False
        if digest in self.thin:
            sync_folder(path.parent)  # a file with holes is never there without its index
            self.thin.forget(digest)
        return True

    def is_held(self, digest: Digest) -> bool:
        """Say whether somebody holds a blob."""
        return self._held[digest] > 0

    @contextmanager
    def hold(self, digests: Iterable[str]) -> Iterator[None]:
        """Keep blobs, also ones that are still to come, from being removed."""
        held = Counter(digests)
        self._held += held
        try:
            yield
        finally:
            self._held -= held

    def digests(self) -> Iterator[Digest]:
        """Iterate over all blobs."""
        for algorithm in LENGTHS:
            folder = self._blobs / algorithm
            if folder.is_dir():
                yield from (Digest(f"{algorithm}:{entry.name}") for entry in folder.iterdir())

    def temporary(self) -> Path:
        """Return an unused path in the ingest directory; the caller removes what it makes there."""
        return self.ingest_folder / os.urandom(8).hex()


class Ingest:
    """A blob being written; a context manager that removes what was not committed."""

    def __init__(
        self,
        store: ContentStore,
        path: Path,
        expected: Digest | None,
        size: int | None,
        *,
        kept: bool = False,
    ) -> None:
        """Begin at ``path``; with ``kept`` the file may be there."""
        self._store = store
        self._expected = expected
        self._size = size
        self.path = path
        self._kept = kept
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | (0 if kept else os.O_EXCL)
        self._fd = os.open(self.path, flags, BLOB_MODE)
        self._hash = (expected or Digest(f"{CANONICAL}:")).hasher(size)
        self.written = 0

    def read_back(self) -> None:
        """Take what the file has as written; all of it is forgotten when it is too much."""
        while data := os.read(self._fd, READ_BYTES):
            self._hash.update(data)
            self.written += len(data)
            if self._size is not None and self.written > self._size:
                os.ftruncate(self._fd, 0)
                os.lseek(self._fd, 0, os.SEEK_SET)
                self._hash = (self._expected or Digest(f"{CANONICAL}:")).hasher()
                self.written = 0

    def write(self, data: bytes | memoryview) -> None:
        """Append ``data``; Corrupt as soon as it is more than announced, Failed on a full disk."""
        self.written += len(data)
        if self._size is not None and self.written > self._size:
            raise Corrupt(f"content {self._expected or ''}: longer than {self._size} bytes")
        self._hash.update(data)
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            raise Failed(f"write content: {(error.strerror or str(error)).lower()}") from error

    def commit(self) -> Digest:
        """Verify, sync and name the blob. Blocks for the disk."""
        if self._size is not None and self.written != self._size:
            raise Corrupt(
                f"content {self._expected or ''}: {self.written} bytes instead of {self._size}"
            )
        algorithm = self._expected.algorithm if self._expected else CANONICAL
        digest = Digest(f"{algorithm}:{self._hash.hexdigest()}")
        if self._expected is not None and digest != self._expected:
            raise Corrupt(f"content {self._expected}: the bytes have the digest {digest}")
        try:
            os.fsync(self._fd)
            self._store.adopt(self.path, digest)
        except OSError as error:
            raise Failed(f"write content: {(error.strerror or str(error)).lower()}") from error
        self._close()
        return digest

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            if self._kept:
                self._store.end_of(self.path)

    def suspend(self) -> None:
        """Keep what there is for the next :meth:`ContentStore.resume`. Idempotent."""
        if self.written:
            self._close()
        else:
            self.abort()

    def abort(self) -> None:
        """Remove it, unless it was committed. Idempotent."""
        if self._fd >= 0:
            self.path.unlink(missing_ok=True)
            self._close()

    def __enter__(self) -> Ingest:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.abort()


def _read(blob: BinaryIO, digest: Digest) -> bytes:
    try:
        return blob.read(READ_BYTES)
    except OSError as error:
        raise Corrupt(f"content {digest}: the layer's tree has not all of it") from error
