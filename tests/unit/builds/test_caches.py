from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from berth.builds.caches import CacheRecord, Caches
from berth.errors import Failed


@pytest.fixture
def caches(state, tmp_path):
    made = Caches(state=state, data_root=tmp_path)
    made.clear()
    return made


def wanted(id_="a", base=""):
    return CacheRecord(id=id_, base=base, description="", created_ns=0, used_ns=0)


async def fill(path):
    path.mkdir()
    (path / "first").write_text("x")


def use(caches, sharing="shared", **more):
    return caches.use(wanted(**more), sharing, fill)


def run(test):
    asyncio.run(asyncio.wait_for(test, 20))


def test_a_cache_is_found_again_by_its_id_and_what_it_began_with(caches, state, tmp_path):
    async def test():
        async with (
            use(caches) as first,
            use(caches, base="b") as based,
            use(caches, id_="/x/..") as other,
        ):
            assert len({first, based, other}) == 3
            assert {path.parent.parent for path in (first, based, other)} == {tmp_path / "caches"}
            (first / "kept").touch()
        again = Caches(state=state, data_root=tmp_path)
        again.clear()
        async with use(again) as found:
            assert sorted(path.name for path in found.iterdir()) == ["first", "kept"]

    run(test())


def test_shared_ones_are_used_together_and_private_ones_are_not(caches):
    async def test():
        async with use(caches) as one, use(caches) as two, use(caches, "private") as three:
            assert one == two != three
            async with use(caches, "private") as four:
                assert four not in (one, three)
        async with use(caches, "private") as again:
            assert again in (one, three, four)

    run(test())


def test_a_locked_one_is_waited_for(caches):
    async def test():
        order, stack = [], AsyncExitStack()
        first = await stack.enter_async_context(use(caches, "locked"))

        async def second(sharing):
            async with use(caches, sharing) as found:
                assert found == first
                order.append(sharing)

        tasks = [asyncio.create_task(second(sharing)) for sharing in ("locked", "shared")]
        await asyncio.sleep(0)
        order.append("first")
        await stack.aclose()
        await asyncio.gather(*tasks)
        assert order[0] == "first"
        assert sorted(order[1:]) == ["locked", "shared"]

    run(test())


def test_two_who_come_first_get_the_same_one(caches):
    async def test():
        begun, go = asyncio.Event(), asyncio.Event()

        async def slowly(path):
            begun.set()
            await go.wait()
            await fill(path)

        async def first():
            async with caches.use(wanted(), "shared", slowly) as found:
                return found

        async def second():
            async with use(caches) as found:
                return found

        one = asyncio.create_task(first())
        await begun.wait()
        two = asyncio.create_task(second())
        await asyncio.sleep(0)
        go.set()
        assert await one == await two

    run(test())


def test_one_that_cannot_be_made_leaves_nothing(caches, tmp_path):
    async def breaks(path):
        path.mkdir()
        raise Failed("no")

    async def test():
        with pytest.raises(Failed):
            async with caches.use(wanted(), "shared", breaks):
                raise AssertionError
        assert not list((tmp_path / "caches").iterdir())
        async with use(caches) as found:
            assert (found / "first").exists()

    run(test())


def test_one_in_use_is_not_removed(caches, tmp_path):
    async def test():
        for id_ in ("a", "b"):
            async with use(caches, id_=id_) as path:
                (path / "data").write_bytes(b"x" * 100_000)
        async with use(caches, id_="b"):
            used, idle = sorted(await caches.entries(), key=lambda entry: not entry.in_use)
            assert (used.in_use, idle.in_use, idle.kind) == (True, False, "exec.cachemount")
            assert used.used_ns > idle.used_ns
            assert idle.size_bytes >= 100_000
            assert not await caches.remove(used.id)
            assert await caches.remove(idle.id)
            assert not await caches.remove(idle.id)
        assert [path.name for path in (tmp_path / "caches").iterdir()] == [used.id]

    run(test())


def test_caches_are_shown_and_removed_while_others_come_and_go(caches):
    async def test():
        async with AsyncExitStack() as held:
            for number in range(8):
                async with use(caches, id_=str(number)):
                    pass
            names = [entry.id for entry in await caches.entries()]
            shown, _, *removed = await asyncio.gather(
                caches.entries(),
                held.enter_async_context(use(caches, id_="new")),
                *(caches.remove(name) for name in [*names, *names]),
            )
            assert len(shown) in (8, 9)
            assert sum(removed) == 8
            assert [entry.in_use for entry in await caches.entries()] == [True]

    run(test())
