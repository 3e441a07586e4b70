from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

from berth.content.store import ContentStore
from berth.images.records import Image, LayerRecord
from berth.images.thinning import MIN_BYTES, Thinning
from berth.oci.image import ImageConfig


class Trees:
    """A store of snapshots with one layer, whose tree is empty."""

    def __init__(self, base):
        self.base = base

    def has(self, chain_id):
        return True

    def tree(self, chain_id):
        return "."


class Workers:
    """Workers that never end by themselves."""

    def __init__(self):
        self.began = asyncio.Event()
        self.ended = asyncio.Event()

    async def run(self, *_):
        self.began.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.set()


def image_of(digest):
    layer = LayerRecord(digest=digest, media_type="x", size=MIN_BYTES)
    parts = {"chain_id": digest, "diff_ids": [digest], "layers": [layer]}
    return Image(id="i", config=ImageConfig(), size_bytes=0, created="", **parts)


@asynccontextmanager
async def being_thinned(folder):
    """Yield a blob that a worker is at, its store, who had it begin, and the workers."""
    content = ContentStore(folder / "content")
    digest = content.write(bytes(MIN_BYTES))
    workers = Workers()
    thinning = Thinning(content=content, snapshots=Trees(folder), layers=workers)
    thinning.want(image_of(digest))
    await workers.began.wait()
    yield digest, content, thinning, workers
    await thinning.close()
    assert workers.ended.is_set()
    assert content.leftovers() == []


def test_a_worker_ends_when_its_blob_goes(tmp_path):
    async def scenario():
        async with being_thinned(tmp_path) as (digest, content, thinning, workers):
            thinning.leave_gone()
            await asyncio.sleep(0)
            assert not workers.ended.is_set()
            content.remove(digest)
            thinning.leave_gone()
            await workers.ended.wait()

    asyncio.run(scenario())


def test_it_ends_with_the_engine(tmp_path):
    async def scenario():
        async with being_thinned(tmp_path) as (digest, content, _, _):
            pass
        assert content.has(digest)

    asyncio.run(scenario())
