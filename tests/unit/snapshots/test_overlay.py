import asyncio

from berth.snapshots.overlay import OverlaySnapshots
from berth.state import State


def test_unused_layers_are_those_that_carry_nothing_wanted(tmp_path):
    async def check():
        snapshots = OverlaySnapshots(state=State(tmp_path / "state.db"), data_root=tmp_path)
        for name, parent in (("base", None), ("left", "base"), ("right", "base"), ("top", "left")):
            snapshots.commit(name, snapshots.partial(), parent=parent)
        assert snapshots.unused({"top", "right"}) == []
        assert snapshots.unused({"right"}) == ["top", "left"]
        assert snapshots.unused(set()) == ["top", "right", "left", "base"]
        snapshots.prepare("container", snapshots.lower_of("top"))
        assert snapshots.unused(set()) == ["right"]
        await snapshots.remove("container")
        assert snapshots.unused({"left"}) == ["top", "right"]
        await snapshots.settle()

    asyncio.run(check())
