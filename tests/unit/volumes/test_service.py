"""Volumes as records and directories."""

import asyncio
import os
import tracemalloc
from types import SimpleNamespace

import pytest

from berth.engine import storage
from berth.engine.models import MountPoint
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


def test_a_tree_deeper_than_paths_can_name_goes_and_holds_nobody_up(volumes, tmp_path):
    for name in ("data", "left"):
        volumes.create(name)
        (volumes.path(name) / "file").write_text("12345")
        fd = os.open(volumes.path(name), os.O_RDONLY)
        for _ in range(3000):
            os.mkdir("a", dir_fd=fd)
            deeper = os.open("a", os.O_RDONLY, dir_fd=fd)
            os.close(fd)
            fd = deeper
        os.close(fd)
    assert asyncio.run(volumes.size_bytes("data")) == 5
    asyncio.run(volumes.remove("data", force=False, users=()))
    (tmp_path / "volumes/left").rename(tmp_path / "volumes/.removed-0123")
    volumes.clean()
    assert list((tmp_path / "volumes").iterdir()) == []


def test_names_in_a_volume_take_none_of_the_engines_memory(volumes):
    volumes.create("data")
    for number in range(3000):
        os.symlink("x", volumes.path("data") / f"{number:0200}")

    async def work():
        tracemalloc.start()
        await volumes._fill(volumes.path("data"), [], "/data", subpath="")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    assert asyncio.run(work()) < 100_000


def test_the_size_is_that_of_the_volumes_files_alone(volumes, tmp_path):
    volumes.create("data")
    data, outside = volumes.path("data"), tmp_path / "outside"
    outside.mkdir()
    (outside / "large").write_text("x" * 1000)
    (data / "folder").mkdir()
    (data / "folder/file").write_text("12345")
    os.link(data / "folder/file", data / "again")
    (data / "link").symlink_to(outside)
    link = (data / "link").lstat().st_size
    assert asyncio.run(volumes.size_bytes("data")) == 5 + link


def test_a_volume_whose_directory_is_gone_is_removed(volumes, tmp_path):
    volumes.create("data")
    volumes.path("data").rmdir()
    volumes.path("data").parent.rmdir()
    asyncio.run(volumes.remove("data", force=False, users=()))
    assert volumes.all() == []


class Projects:
    """Limits of a file system with quotas, by the directories that have them."""

    are_possible = True

    def __init__(self):
        self.limits = {}
        self.projects = {}  # by inode: directories are renamed

    def set(self, folder, size_bytes):
        number = len(self.limits) + 1
        self.limits[number], self.projects[folder.stat().st_ino] = size_bytes, number

    def project_of(self, folder):
        return self.projects.get(folder.stat().st_ino, 0) if folder.exists() else 0

    def give_up(self, project):
        self.limits.pop(project, None)


def test_a_container_cannot_give_up_the_limit_of_another_volume(volumes, monkeypatch):
    limits = Projects()
    monkeypatch.setattr(volumes, "_limits", limits)
    volumes.create("others", options={"size": "1M"})
    volumes.create("own", options={"size": "2M"})
    limits.projects[volumes.path("own").stat().st_ino] = 1  # as far as a container gets
    asyncio.run(volumes.remove("own", force=False, users=()))
    assert limits.limits == {1: 1 << 20}


def test_a_container_with_a_limited_volume_has_a_quota(volumes, monkeypatch, tmp_path):
    limits = Projects()
    monkeypatch.setattr(volumes, "_limits", limits)
    volumes.create("small", options={"size": "1M"})
    volumes.create("large", options={"size": "0"})
    services = SimpleNamespace(volumes=volumes, limits=limits)
    rootfs = SimpleNamespace(base=tmp_path, upper="1/fs")
    for name, has_quota in (("small", True), ("large", False), ("missing", False)):
        point = MountPoint(kind="volume", target="/v", source="", volume=name)
        record = SimpleNamespace(mount_points=[point])
        assert storage.has_quota(record, rootfs, services) is has_quota
