from __future__ import annotations

import errno
import io
import os
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from berth.content.store import ContentStore
from berth.content.thin import Index, Range, ranges_between
from berth.errors import Corrupt, NotFound
from berth.images.thinwork import in_tree
from berth.kernel.filecopies import copy_range

if TYPE_CHECKING:
    from berth.oci.digest import Digest

CHAIN = "sha256:" + "c" * 64
OTHER = "sha256:" + "d" * 64
LARGE = os.urandom(300_000)
SECOND = os.urandom(64 << 10)


def archive(entries: list[tuple[str, bytes]]) -> bytes:
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w") as made:
        for name, data in entries:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            made.addfile(entry, io.BytesIO(data))
    return body.getvalue()


@pytest.fixture
def tree(tmp_path):
    folder = tmp_path / "tree"
    (folder / "usr").mkdir(parents=True)
    (folder / "usr/large").write_bytes(LARGE)
    (folder / "second").write_bytes(SECOND)
    (folder / "small").write_bytes(b"small")
    return folder


@pytest.fixture
def store(tmp_path, tree):
    trees = {CHAIN: tree, OTHER: tmp_path / "other"}
    return ContentStore(tmp_path / "content", trees.__getitem__)


DATA = archive([("./usr/large", LARGE), ("second", SECOND), ("small", b"small")])


def ranges(data: bytes, tree) -> list[Range]:
    """Return what of an archive is in a tree, as the job finds it."""
    source = tree.parent / "archive"
    source.write_bytes(data)
    before = os.open(".", os.O_RDONLY)
    fd = os.open(source, os.O_RDONLY)
    os.chdir(tree)
    try:
        return list(in_tree(fd))
    finally:
        os.fchdir(before)
        os.close(before)
        os.close(fd)


def make_thin(store, digest: Digest, tree) -> None:
    files = ranges(DATA, tree)
    made, index = store.temporary(), store.temporary()
    index.write_bytes(msgspec.json.encode(Index(files)))
    with store.path(digest).open("rb") as blob, made.open("wb") as target:
        target.truncate(len(DATA))
        for start, end in ranges_between(files, len(DATA)):
            copy_range(blob.fileno(), target.fileno(), start, end)
    store.make_thin(digest, CHAIN, made, index)


def test_a_blob_that_becomes_thin_while_it_is_opened_is_read_by_its_index(store, tree, monkeypatch):
    digest, path = store.write(DATA), store.path

    def made_thin_first(asked: Digest) -> Path:
        monkeypatch.undo()
        make_thin(store, digest, tree)
        return path(asked)

    for opened in (store.verify, lambda digest: store.open_file(digest).read() != DATA):
        monkeypatch.setattr(store, "path", made_thin_first)
        assert not opened(digest)
        assert digest in store.thin
        store.make_whole(digest)


@pytest.fixture
def thin(store, tree) -> Digest:
    digest = store.write(DATA)
    make_thin(store, digest, tree)
    return digest


def test_large_files_are_left_out(store, thin, tree):
    assert [one.path for one in ranges(DATA, tree)] == ["usr/large", "second"]
    status = store.path(thin).stat()
    assert status.st_size == len(DATA) == store.size(thin)
    assert status.st_blocks * 512 < len(DATA) - len(LARGE)
    assert store.path(thin).read_bytes() != DATA


def test_a_thin_blob_reads_as_it_was(store, thin):
    assert store.verify(thin) == ""
    assert store.read(thin) == DATA
    with store.open_blob(thin) as blob:
        for offset in (0, 511, 512, 70_000, 300_500, len(DATA) - 3):
            blob.seek(offset)
            assert blob.read(90_001) == DATA[offset : offset + 90_001]
        blob.seek(-5, os.SEEK_END)
        assert blob.read() == DATA[-5:]
        assert blob.seek(len(DATA) + 7) == len(DATA) + 7
        assert blob.read(1) == b""


def test_as_a_file_it_is_a_copy(store, thin):
    with store.open_file(thin) as file:
        assert os.pread(file.fileno(), len(DATA) + 1, 0) == DATA
        assert os.fstat(file.fileno()).st_nlink == 0
    assert list(store.ingest_folder.iterdir()) == []


def test_it_is_whole_again_when_it_is_written_again(store, thin):
    store.write(DATA)  # there already
    assert thin in store.thin
    with store.ingest(thin) as ingest:
        ingest.write(DATA)
        ingest.commit()
    assert thin not in store.thin
    assert store.path(thin).read_bytes() == DATA


def test_it_can_be_made_whole(store, thin):
    store.make_whole(thin)
    assert thin not in store.thin
    assert store.path(thin).read_bytes() == DATA


@pytest.mark.parametrize(
    "damage",
    [
        lambda tree: (tree / "second").unlink(),
        lambda tree: (tree / "usr/large").write_bytes(LARGE[:-1]),
        lambda tree: (tree / "usr/large").write_bytes(LARGE[:-1] + b"?"),
        lambda tree: (tree / "second").rename(tree / "x") and (tree / "second").symlink_to("x"),
        lambda tree: tree.rename(tree.with_name("moved")),
    ],
    ids=["missing", "cut", "changed", "link", "tree"],
)
def test_damage_of_the_tree_is_found(store, thin, tree, damage):
    damage(tree)
    assert store.verify(thin)
    with pytest.raises(Corrupt):
        store.make_whole(thin)
    assert list(store.ingest_folder.iterdir()) == []
    assert store.remove(thin)
    with pytest.raises(NotFound):
        store.open_blob(thin)


def test_it_is_read_from_another_tree(store, thin, tree):
    store.thin.move(thin, OTHER)
    with pytest.raises(Corrupt, match="is missing"):
        store.open_blob(thin)
    tree.rename(tree.with_name("other"))
    assert store.read(thin) == DATA


def test_the_index_goes_with_the_blob(store, thin, tmp_path):
    assert store.remove(thin)
    assert list((tmp_path / "content/thin").iterdir()) == []
    assert store.thin.all() == []


def test_an_engine_that_starts_knows_them(store, thin, tree, tmp_path):
    again = ContentStore(tmp_path / "content", {CHAIN: tree}.__getitem__)
    assert again.thin.all() == [(thin, CHAIN)]
    assert again.read(thin) == DATA
    again.path(thin).unlink()  # and it was killed then
    assert ContentStore(tmp_path / "content").thin.all() == []


def test_an_index_beside_a_whole_file_changes_nothing(store, tree):
    digest = store.write(DATA)
    index = store.temporary()
    index.write_bytes(msgspec.json.encode(Index(ranges(DATA, tree))))
    store.thin.add(digest, CHAIN, index)
    assert store.read(digest) == DATA


def test_only_what_is_the_same_is_left_out(tree):
    large = LARGE[:-1] + b"?"
    twice = [("second", b"x" * len(SECOND)), ("second", SECOND)]
    data = archive([("usr/large", large), *twice, ("../second", SECOND), ("small", b"small")])
    (found,) = ranges(data, tree)
    assert found.path == "second"
    assert data[found.offset : found.offset + found.size] == SECOND


def test_neither_links_nor_other_kinds_are_followed(tree):
    (tree / "usr/large").unlink()
    os.mkfifo(tree / "usr/large")
    (tree / "link").symlink_to("usr")
    (tree / "second").rename(tree / "usr/second")
    data = archive([("usr/large", LARGE), ("link/second", SECOND), ("no/such", SECOND)])
    assert ranges(data, tree) == []


def test_a_full_disk_takes_nothing_away(store, thin, monkeypatch):
    def refuse(digest, size):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store, "ingest", refuse)
    with pytest.raises(OSError, match="No space"):
        store.make_whole(thin)
    assert thin in store.thin
    assert store.read(thin) == DATA


def test_a_blob_that_cannot_be_removed_stays_readable(store, thin, monkeypatch):
    def refuse(self, missing_ok=False):
        raise PermissionError

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(PermissionError):
        store.remove(thin)
    assert store.read(thin) == DATA
