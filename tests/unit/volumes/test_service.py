"""Volumes as records and directories."""

import asyncio

import pytest

from berth.state import State
from berth.volumes.service import VolumeService


@pytest.fixture
def state(tmp_path):
    state = State(tmp_path / "state.db")
    yield state
    state.close()


@pytest.fixture
def volumes(state, tmp_path):
    return VolumeService(state=state, data_root=tmp_path, runtime=None)


def test_a_name_can_be_taken_again_while_its_files_are_deleted(volumes, tmp_path):
    async def work():
        volumes.create("data")
        (volumes.path("data") / "old").write_text("old")
        removal = asyncio.ensure_future(volumes.remove("data", force=False, users=()))
        while any(volume.name == "data" for volume in volumes.all()):
            await asyncio.sleep(0)
        volumes.create("data")
        (volumes.path("data") / "new").write_text("new")
        await removal

    asyncio.run(work())
    assert [path.name for path in volumes.path("data").iterdir()] == ["new"]
    assert [path.name for path in (tmp_path / "volumes").iterdir()] == ["data"]


def test_what_a_removal_left_goes_when_the_engine_starts(volumes, tmp_path):
    volumes.create("data")
    left = tmp_path / "volumes" / ".removed-0123" / "_data"
    left.mkdir(parents=True)
    volumes.clean()
    assert [path.name for path in (tmp_path / "volumes").iterdir()] == ["data"]


def test_a_volume_whose_directory_is_gone_is_removed(volumes, tmp_path):
    volumes.create("data")
    volumes.path("data").rmdir()
    volumes.path("data").parent.rmdir()
    asyncio.run(volumes.remove("data", force=False, users=()))
    assert volumes.all() == []
