from __future__ import annotations

import asyncio

from berth.buildkit.journal import AHEAD, Journal, Vertex


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
        await journal.end()
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
            for _ in range(3 * AHEAD):
                await vertex.log(b"x", stderr=True)

        writing = asyncio.create_task(write())
        for _ in range(10 * AHEAD):
            await asyncio.sleep(0)
        assert not writing.done()
        await reading.aclose()
        await writing
        return True

    assert run(work())


def test_what_is_not_over_ends_with_its_vertex():
    async def work():
        journal = Journal()
        vertex = Vertex(journal, "step")
        await vertex.start()
        vertex.progress("transferring", 1)
        vertex.progress("transferring", 5)
        vertex.progress("told", 0, done=True)
        await vertex.finish()
        await journal.end()
        return [s for message in await begun(journal) for s in message.statuses]

    found = run(work())
    assert [(s.ID, s.current, s.HasField("completed")) for s in found] == [
        *(("transferring", 1, False), ("told", 0, True), ("transferring", 5, True)),
    ]
