from __future__ import annotations

import asyncio

import pytest

from berth.buildkit import journal as journals
from berth.buildkit.journal import AHEAD_BYTES, MAX_READERS, PAST_BYTES, Journal, Vertex
from berth.errors import Unavailable

CHUNK = bytes(AHEAD_BYTES // 8)


def run(work):
    return asyncio.run(asyncio.wait_for(work, 20))


async def begun(journal):
    """Read along until everything was said; return what was."""
    return [message async for message in journal.read()]


def test_a_reader_who_comes_late_reads_it_all():
    async def work():
        journal = Journal()
        vertex = Vertex(journal, "step")
        await vertex.start()
        await vertex.log(b"out", stderr=False)
        await vertex.finish(cached=True)
        journal.end()
        return await begun(journal)

    first, log, last = run(work())
    assert first.vertexes[0].name == "step"
    assert not first.vertexes[0].HasField("completed")
    assert (log.logs[0].msg, log.logs[0].stream) == (b"out", 1)
    assert last.vertexes[0].cached
    assert last.vertexes[0].digest == first.vertexes[0].digest


def test_a_slow_reader_holds_the_build_back_and_one_who_leaves_does_not():
    async def work():
        journal = Journal()
        vertex = Vertex(journal, "step")
        reading = journal.read()
        await vertex.start()
        await anext(reading)

        async def write():
            for _ in range(24):
                await vertex.log(CHUNK, stderr=True)

        writing = asyncio.create_task(write())
        for _ in range(100):
            await asyncio.sleep(0)
        assert not writing.done()
        await reading.aclose()
        await writing
        return True

    assert run(work())


def test_a_reader_that_takes_nothing_misses_output_and_nothing_else(monkeypatch):
    monkeypatch.setattr(journals, "STALL_S", 0.01)

    async def work():
        journal = Journal()
        vertex, reading = Vertex(journal, "step"), journal.read()
        await vertex.start()
        shown = [await anext(reading)]
        for _ in range(24):
            await vertex.log(CHUNK, stderr=True)
        vertex.progress("left out", 1)
        await vertex.finish()
        shown += [await anext(reading) for _ in range(10)]
        other = Vertex(journal, "next")
        await other.start()
        await other.log(b"heard", stderr=False)
        journal.end()
        return shown + [message async for message in reading], vertex

    shown, vertex = run(work())
    started, *logs, finished, gap, another, heard = shown
    assert [log.logs[0].msg for log in logs] == [CHUNK] * 8
    assert (started.vertexes[0].name, finished.vertexes[0].HasField("completed")) == ("step", True)
    assert b"output is missing here" in gap.logs[0].msg
    assert gap.logs[0].vertex == vertex._digest
    assert (another.vertexes[0].name, heard.logs[0].msg) == ("next", b"heard")


def test_what_is_kept_and_for_how_many_is_bounded():
    async def work():
        journal = Journal()
        vertex = Vertex(journal, "step")
        for _ in range(40):
            await vertex.log(CHUNK, stderr=True)
        readers = [journal.read() for _ in range(MAX_READERS)]
        shown = [await anext(reader) for reader in readers]
        with pytest.raises(Unavailable, match="read along already"):
            await anext(journal.read())
        await readers[0].aclose()
        again = journal.read()
        shown.append(await anext(again))
        journal.end()
        return shown + [message async for message in again]

    shown = run(work())
    size = sum(message.ByteSize() for message in shown[MAX_READERS:])
    assert PAST_BYTES - 2 * len(CHUNK) < size <= PAST_BYTES


def test_what_is_not_over_ends_with_its_vertex():
    async def work():
        journal = Journal()
        vertex = Vertex(journal, "step")
        await vertex.start()
        vertex.progress("transferring", 1)
        vertex.progress("transferring", 5)
        vertex.progress("told", 0, done=True)
        await vertex.finish()
        journal.end()
        return [s for message in await begun(journal) for s in message.statuses]

    found = run(work())
    assert [(s.ID, s.current, s.HasField("completed")) for s in found] == [
        *(("transferring", 1, False), ("told", 0, True), ("transferring", 5, True)),
    ]
