from __future__ import annotations

import pytest

from berth.content.store import ContentStore
from berth.errors import Corrupt, InvalidArgument, NotFound
from berth.oci.digest import Digest


@pytest.fixture
def store(tmp_path):
    return ContentStore(tmp_path / "content")


def leftovers(store):
    return list(store.ingest_folder.iterdir())


def test_a_blob_is_there_once_it_is_committed(store):
    digest = Digest.of(b"hello")
    with store.ingest(digest, 5) as ingest:
        ingest.write(b"hel")
        ingest.write(memoryview(b"lo"))
        assert not store.has(digest)
        assert ingest.commit() == digest
    assert store.read(digest) == b"hello"
    assert store.size(digest) == 5
    assert leftovers(store) == []
    assert list(store.digests()) == [digest]


def test_what_is_not_committed_leaves_nothing(store):
    with store.ingest() as ingest:
        ingest.write(b"half")
    assert leftovers(store) == []
    assert list(store.digests()) == []


def test_other_bytes_than_announced_are_corrupt(store):
    with store.ingest(Digest.of(b"good")) as ingest:
        ingest.write(b"evil")
        with pytest.raises(Corrupt, match="have the digest"):
            ingest.commit()
    assert leftovers(store) == []


def test_a_blob_longer_than_announced_is_refused_at_once(store):
    with store.ingest(size=3) as ingest, pytest.raises(Corrupt, match="longer than 3"):
        ingest.write(b"four")


def test_a_blob_shorter_than_announced_is_refused(store):
    with store.ingest(size=5) as ingest:
        ingest.write(b"four")
        with pytest.raises(Corrupt, match="4 bytes instead of 5"):
            ingest.commit()


def test_reading_notices_what_the_disk_changed(store):
    digest = store.write(b"hello")
    store.path(digest).write_bytes(b"hellO")
    with pytest.raises(Corrupt, match="do not match"):
        store.read(digest)


def test_a_missing_blob_is_not_found(store):
    with pytest.raises(NotFound):
        store.read(Digest.of(b"none"))
    with pytest.raises(NotFound):
        store.size(Digest.of(b"none"))


def test_documents_are_bounded(store):
    digest = store.write(bytes(100))
    with pytest.raises(InvalidArgument, match="larger than 99"):
        store.read(digest, limit=99)


def test_what_a_crash_left_is_known(store):
    ingest = store.ingest()
    ingest.write(b"x")
    folder = store.temporary()
    (folder / "deep").mkdir(parents=True)
    assert len(store.leftovers()) == 2
    assert folder in store.leftovers()
    ingest.abort()
    assert store.leftovers() == [folder]


def test_files_are_taken_over_together(store):
    files = {}
    for data in (b"one", b"two"):
        path = store.temporary()
        path.write_bytes(data)
        files[Digest.of(data)] = path
    store.adopt_all(files)
    assert [store.read(digest) for digest in files] == [b"one", b"two"]
    assert store.leftovers() == []


def test_a_held_blob_stays(store):
    digest = store.write(b"x")
    with store.hold([digest]):
        with store.hold([digest]):
            pass
        assert not store.remove(digest)
    assert store.remove(digest)
    assert not store.remove(digest)
    assert not store.has(digest)
