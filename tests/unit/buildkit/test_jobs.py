"""The builds under way: found by the ids that clients have given them."""

from __future__ import annotations

import asyncio

import pytest

from berth.buildkit import jobs
from berth.buildkit.jobs import Jobs
from berth.errors import Conflict, NotFound


def run(work):
    return asyncio.run(asyncio.wait_for(work, 20))


async def said(found, ref):
    journal = await found.journal(ref)
    return [message.vertexes[0].name async for message in journal.read()]


async def build(found, ref, name):
    async with found.open(ref, None) as job:
        await job.journal.tell(vertexes={"name": name})


def test_one_who_asks_before_it_begins_waits():
    async def work():
        found = Jobs()
        asking = asyncio.create_task(said(found, "one"))
        await asyncio.sleep(0)
        await build(found, "one", "step")
        return await asking

    assert run(work()) == ["step"]


def test_what_a_build_said_is_told_when_it_is_over_already():
    async def work():
        found = Jobs()
        await build(found, "one", "step")
        return await said(found, "one")

    assert run(work()) == ["step"]


def test_an_ended_build_is_forgotten_and_a_later_one_of_its_id_is_not(monkeypatch):
    async def work():
        found = Jobs()
        monkeypatch.setattr(jobs, "WAIT_S", 0.05)
        await build(found, "one", "step")
        monkeypatch.setattr(jobs, "WAIT_S", 5)
        async with found.open("one", None) as job:
            with pytest.raises(Conflict):
                await build(found, "one", "step")
            await asyncio.sleep(0.1)
            assert await found.find("one") is job
            assert await found.journal("one") is job.journal
        monkeypatch.setattr(jobs, "WAIT_S", 0.05)
        await build(found, "two", "step")
        await asyncio.sleep(0.1)
        with pytest.raises(NotFound):
            await found.journal("two")
        with pytest.raises(NotFound):
            await found.find("one")

    run(work())
