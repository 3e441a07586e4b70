"""What every storage driver does, at its interface: roots made of layers, changes seen, crashes mended."""

from __future__ import annotations

import asyncio
import io
import os
import tarfile
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from berth.content.store import ContentStore
from berth.engine import pipes, spec
from berth.engine.instance import Instance
from berth.errors import BerthError, Conflict, NotFound, Unsupported
from berth.images.layers import UNPACK, LayerStore
from berth.kernel import cgroups, filecopies
from berth.runtime.client import Runtime
from berth.snapshots.choice import open_snapshots
from berth.state import State
from support.archives import layer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from berth.snapshots.store import Snapshots

pytestmark = pytest.mark.root

DRIVERS = ("overlay2", "vfs")
COLOUR = {"pax_headers": {"SCHILY.xattr.user.colour": "blue"}}
CAPABLE = {"pax_headers": {"SCHILY.xattr.security.capability": "\x01\0\0\x02\0\x20" + "\0" * 14}}
MTIME = 1_500_000_000

BASE = [
    ("bin", None, {"mtime": MTIME}),
    ("bin/tool", b"tool\n", {"mode": 0o4755, "mtime": MTIME, **CAPABLE}),
    ("bin/same", b"", {"type": tarfile.LNKTYPE, "linkname": "bin/tool"}),
    ("gone", b"never seen", {}),
    ("gone-too", None, {}),
    ("gone-too/inner", b"never seen", {}),
    ("opaque", None, {"mode": 0o700}),
    ("opaque/below", b"never seen", {}),
    ("kept", None, {}),
    ("kept/file", b"kept\n", {"mtime": MTIME}),
    ("was-file", b"x", {}),
    ("was-folder", None, {}),
    ("was-folder/inner", b"never seen", {}),
]
TOP = [
    (".wh.gone", b"", {}),
    (".wh.gone-too", b"", {}),
    ("opaque", None, {"mode": 0o750, "uid": 7, "gid": 8, "mtime": MTIME}),
    ("opaque/.wh..wh..opq", b"", {}),
    ("opaque/above", b"seen\n", COLOUR),
    ("was-file", None, {"mtime": MTIME}),
    ("was-folder", b"now a file", {}),
    ("device", b"", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3, "mode": 0o620}),
    ("fifo", b"", {"type": tarfile.FIFOTYPE, "uid": 5}),
    ("link", b"", {"type": tarfile.SYMTYPE, "linkname": "kept/file", "uid": 5, "mtime": MTIME}),
]


class Place:
    """One data root: opened with a driver, crashed, opened again."""

    def __init__(self, folder: Path, driver: str) -> None:
        self.folder = folder
        self.driver = driver
        for name in ("data", "exec"):
            (folder / name).mkdir()

    @asynccontextmanager
    async def open(self, driver: str | None = None) -> AsyncIterator[Opened]:
        runtime = await Runtime.open(
            data_root=self.folder / "data",
            exec_root=self.folder / "exec",
            hidden=[],
            descriptors=1024,
            hierarchies=cgroups.detect(),
            defaults=spec.default(Instance.of(self.folder / "data").cgroup),
        )
        state = State(self.folder / "data/state.db")
        try:
            snapshots = await open_snapshots(
                state=state,
                data_root=self.folder / "data",
                runtime=runtime,
                wanted=self.driver if driver is None else driver,
            )
            await snapshots.open()
            yield Opened(snapshots, runtime)
            await snapshots.settle()
        finally:
            state.close()
            await runtime.close()


class Entry:
    """A file in an archive."""

    def __init__(self, archive: tarfile.TarFile, info: tarfile.TarInfo) -> None:
        self.info = info
        file = archive.extractfile(info) if info.isreg() else None
        self.data = file.read() if file else b""
        self.owner = info.uid, info.gid
        self.mode, self.mtime, self.kind = info.mode, info.mtime, info.type


class Opened:
    def __init__(self, snapshots: Snapshots, runtime: Runtime) -> None:
        self.snapshots = snapshots
        self.runtime = runtime

    async def add_layer(self, name: str, data: bytes, parent: str | None = None) -> None:
        partial = self.snapshots.partial()
        blob = partial / "blob"
        blob.write_bytes(data)
        fds = [os.open(blob, os.O_RDONLY), os.open(partial / "fs", os.O_RDONLY)]
        blob.unlink()
        argument = {"plain": self.snapshots.driver.has_plain_layers}
        try:
            job = await self.runtime.run_job(UNPACK, argument, fds=fds)
            outcome = await job.result()
        finally:
            for fd in fds:
                os.close(fd)
        has_root = bool(outcome["root"])
        self.snapshots.commit(name, partial, parent=parent, size_bytes=1, has_root=has_root)

    async def add_image(self) -> None:
        await self.add_layer("base", layer(BASE))
        await self.add_layer("top", layer(TOP), "base")

    async def begin(self, key: str, chain_id: str = "top") -> None:
        self.snapshots.prepare(key, self.snapshots.lower_of(chain_id))
        await self.snapshots.fill(key)

    async def job(self, entry: str, argument: dict[str, object], fds: list[int]) -> object:
        job = await self.runtime.run_job(entry, argument, fds=fds, template=True)
        return await job.result()

    async def _piped(self, entry: str, argument: dict[str, object]) -> bytes:
        reading, writing = pipes.make()
        job = await self.runtime.run_job(entry, argument, fds=[writing], template=True)
        os.close(writing)
        data = b"".join([chunk async for chunk in pipes.read(reading)])
        os.close(reading)
        await job.result()
        return data

    async def exported(self, key: str) -> dict[str, Entry]:
        rootfs = self.snapshots.rootfs(key).document()
        argument = {"running": False, "rootfs": rootfs, "trees": []}
        data = await self._piped("berth.files.archives:export", argument)
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            return {entry.name: Entry(archive, entry) for entry in archive}

    async def changes(self, key: str) -> list[str]:
        argument = {"rootfs": self.snapshots.rootfs(key).document()}
        data = await self._piped("berth.files.differences:compare", argument)
        return sorted(data.decode().split("\0")[:-1])

    async def layer_of(self, key: str, path: Path) -> dict[str, tarfile.TarInfo]:
        argument = {
            "rootfs": self.snapshots.rootfs(key).document(),
            "strips": False,
            "targets": [],
            "latest_ns": None,
        }
        fd = os.open(path, os.O_RDWR | os.O_CREAT)
        try:
            await self.job("berth.files.differences:layer", argument, [fd])
        finally:
            os.close(fd)
        with tarfile.open(path) as archive:
            return {entry.name: entry for entry in archive}

    async def put(self, key: str, archive: bytes) -> None:
        rootfs = self.snapshots.rootfs(key).document()
        argument: dict[str, object] = {"running": False, "rootfs": rootfs, "trees": []}
        argument |= {"path": "/", "name": key, "keeps": False, "user": ""}
        argument |= {"volumes": [], "read_only": False}
        reading, writing = os.pipe()
        job = await self.runtime.run_job(
            "berth.files.archives:write", argument, fds=[reading], template=True
        )
        os.close(reading)
        await job.first()
        await asyncio.to_thread(os.write, writing, archive)
        os.close(writing)
        await job.result()


@pytest.fixture(params=DRIVERS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return Place(tmp_path, request.param)


def run(place: Place, check: Callable[[Opened], Awaitable[None]]) -> None:
    async def main() -> None:
        async with place.open() as opened:
            await check(opened)

    asyncio.run(main())


def test_a_root_is_its_layers_with_what_they_hide_and_replace(place: Place) -> None:
    async def check(opened: Opened) -> None:
        await opened.add_image()
        await opened.begin("c")
        found = await opened.exported("c")
        names = {name for name in found if not name.startswith(("dev", ".dockerenv"))}
        assert names | {"device"} == {
            *("bin", "bin/tool", "bin/same", "opaque", "opaque/above", "kept", "kept/file"),
            *("was-file", "was-folder", "device", "fifo", "link"),
        }
        tool, same = found["bin/tool"], found["bin/same"]
        first, second = (tool, same) if tool.info.isreg() else (same, tool)
        assert (first.data, first.mode, first.mtime) == (b"tool\n", 0o4755, MTIME)
        assert "SCHILY.xattr.security.capability" in first.info.pax_headers
        assert (second.kind, second.info.linkname) == (tarfile.LNKTYPE, first.info.name)
        assert found["opaque/above"].info.pax_headers["SCHILY.xattr.user.colour"] == "blue"
        opaque = found["opaque"]
        assert (opaque.mode, opaque.owner, opaque.mtime) == (0o750, (7, 8), MTIME)
        assert (found["was-file"].kind, found["was-file"].mtime) == (tarfile.DIRTYPE, MTIME)
        assert found["was-folder"].data == b"now a file"
        device = found["device"]
        assert (device.info.devmajor, device.info.devminor, device.mode) == (1, 3, 0o620)
        assert (found["fifo"].kind, found["fifo"].owner) == (tarfile.FIFOTYPE, (5, 0))
        link = found["link"]
        assert (link.kind, link.info.linkname) == (tarfile.SYMTYPE, "kept/file")
        assert (link.owner, link.mtime) == ((5, 0), MTIME)
        assert found["bin"].mtime == MTIME

    run(place, check)


def test_what_one_container_writes_no_other_and_no_layer_has(place: Place, tmp_path: Path) -> None:
    async def check(opened: Opened) -> None:
        await opened.add_image()
        for key in ("one", "other"):
            await opened.begin(key)
        assert await opened.changes("one") == []
        assert await opened.snapshots.usage("one") == 0
        await opened.put("one", layer([("kept/file", b"mine\n", {}), ("new", b"n" * 5000, {})]))
        assert await opened.changes("one") == ["A/new", "C/kept", "C/kept/file"]
        assert 5000 < await opened.snapshots.usage("one") < 50_000
        assert (await opened.exported("one"))["kept/file"].data == b"mine\n"
        assert (await opened.exported("other"))["kept/file"].data == b"kept\n"
        assert await opened.changes("other") == []
        await opened.begin("third")
        assert (await opened.exported("third"))["kept/file"].data == b"kept\n"
        found = await opened.layer_of("one", tmp_path / "layer.tar")
        assert {*found} == {"kept", "kept/file", "new"}

    run(place, check)


def test_a_file_rewritten_with_its_old_size_and_time_is_in_a_layer(
    place: Place, tmp_path: Path
) -> None:
    async def check(opened: Opened) -> None:
        await opened.add_image()
        await opened.begin("c")
        await opened.put("c", layer([("kept/file", b"KEPT\n", {"mtime": MTIME})]))
        assert "kept/file" in await opened.layer_of("c", tmp_path / "layer.tar")

    run(place, check)


def test_containers_made_at_once_are_all_whole(place: Place) -> None:
    async def check(opened: Opened) -> None:
        await opened.add_image()
        keys = [f"c-{number}" for number in range(8)]
        async with asyncio.TaskGroup() as group:
            for key in keys:
                group.create_task(opened.begin(key))
        for key in keys:
            assert opened.snapshots.absent(key) == []
            assert await opened.changes(key) == []
            assert (await opened.exported(key))["kept/file"].data == b"kept\n"

    run(place, check)


def test_a_view_is_the_image_alone(place: Place) -> None:
    async def check(opened: Opened) -> None:
        await opened.add_image()
        opened.snapshots.prepare_view("view", opened.snapshots.lower_of("top"))
        await opened.snapshots.fill("view")
        lower = opened.snapshots.view("view")
        assert all((opened.snapshots.base / name).is_dir() for name in lower)
        assert await opened.snapshots.remove("view") is None
        with pytest.raises(NotFound):
            opened.snapshots.view("view")

    run(place, check)


def test_layers_below_containers_are_kept_and_go_with_them(place: Place) -> None:
    async def check(opened: Opened) -> None:
        await opened.add_image()
        await opened.begin("c")
        snapshots = opened.snapshots
        assert snapshots.unused(set()) == []
        assert snapshots.absent("c") == []
        assert snapshots.layers() == ["base", "top"]
        await snapshots.remove("c")
        assert snapshots.unused(set()) == ["top", "base"]
        for key in ("top", "base"):
            await snapshots.remove(key)
        await snapshots.settle()
        left = [path for path in snapshots.base.iterdir() if not path.name.startswith(".")]
        assert len(left) == 1  # what marks containers

    run(place, check)


def test_unused_layers_are_those_that_carry_nothing_wanted(place: Place) -> None:
    async def check(opened: Opened) -> None:
        snapshots = opened.snapshots
        for name, parent in (("base", None), ("left", "base"), ("right", "base"), ("top", "left")):
            snapshots.commit(name, snapshots.partial(), parent=parent)
        assert snapshots.unused({"top", "right"}) == []
        assert snapshots.unused({"right"}) == ["top", "left"]
        assert snapshots.unused(set()) == ["top", "right", "left", "base"]
        await opened.begin("container")
        assert snapshots.unused(set()) == ["right"]
        await snapshots.remove("container")
        assert snapshots.unused({"left"}) == ["top", "right"]

    run(place, check)


def test_names_of_layers_longer_than_mount_options_are_one_root(place: Place) -> None:
    async def check(opened: Opened) -> None:
        opened.snapshots._last = 10_000_000  # of an engine that has made as many containers
        names = [f"layer-{number}" for number in range(480)]
        for name, parent in zip(names, [None, *names[:-1]], strict=True):
            partial = opened.snapshots.partial()
            (partial / "fs" / name).write_text(name)
            opened.snapshots.commit(name, partial, parent=parent)
        await opened.begin("c", names[-1])
        found = await opened.exported("c")
        assert {name for name in found if name.startswith("layer-")} == {*names}
        await opened.put("c", layer([("layer-0", b"changed", {})]))
        assert await opened.changes("c") == ["C/layer-0"]

    run(place, check)


def test_what_is_missing_of_a_container_is_named(place: Place) -> None:
    async def check(opened: Opened) -> None:
        await opened.add_image()
        await opened.begin("c")
        path = opened.snapshots.rootfs("c").document()
        own = str(path.get("path") or path["upper"])
        (opened.snapshots.base / own).rename(opened.snapshots.base.parent / "elsewhere")
        assert opened.snapshots.absent("c") == [own]

    run(place, check)


def test_a_container_that_a_crash_left_half_made_is_whole_afterwards(place: Place) -> None:
    async def crash() -> None:
        async with place.open() as opened:
            await opened.add_image()
            opened.snapshots.prepare("c", opened.snapshots.lower_of("top"))
            number = opened.snapshots._record("c").number
            if place.driver == "vfs":  # a copy that was cut short
                (opened.snapshots.base / str(number) / "copy/half").mkdir(parents=True)

    async def look() -> None:
        async with place.open() as opened:
            found = await opened.exported("c")
            assert found["kept/file"].data == b"kept\n"
            assert "half" not in found
            assert opened.snapshots.absent("c") == []
            assert await opened.changes("c") == []

    asyncio.run(crash())
    asyncio.run(look())


def test_a_data_root_keeps_its_driver(place: Place) -> None:
    async def main() -> None:
        async with place.open() as opened:
            await opened.add_image()
        async with place.open("") as opened:
            assert opened.snapshots.driver.name == place.driver
        other = next(name for name in DRIVERS if name != place.driver)
        with pytest.raises(Conflict, match=f"of the storage driver {place.driver}, not {other}"):
            async with place.open(other):
                pass

    asyncio.run(main())


def test_this_machines_root_is_shown_or_refused(place: Place) -> None:
    async def check(opened: Opened) -> None:
        if place.driver == "overlay2":
            assert opened.snapshots.lower_of_host(["/.host"]) == ["/.host"]
        else:
            with pytest.raises(Unsupported, match="cannot show this machine's root"):
                opened.snapshots.lower_of_host(["/.host"])

    run(place, check)


def test_a_whole_image_that_is_damaged_is_found_and_made_again(tmp_path: Path) -> None:
    async def check(opened: Opened) -> None:
        await opened.add_image()
        await opened.begin("c")
        snapshots = opened.snapshots
        content = ContentStore(tmp_path / "content")
        layers = LayerStore(snapshots=snapshots, content=content, runtime=opened.runtime)
        assert await layers.merged_difference("top", repair=False) == ""
        (snapshots.base / snapshots.view("c")[0] / "kept/file").unlink()
        for repair in (False, True):
            found = await layers.merged_difference("top", repair=repair)
            assert found == "'kept/file' is missing"
        assert await layers.merged_difference("top", repair=False) == ""
        await opened.begin("other")
        assert (await opened.exported("other"))["kept/file"].data == b"kept\n"

    run(Place(tmp_path, "vfs"), check)


def test_a_copy_that_fails_leaves_nothing_of_it(tmp_path: Path) -> None:
    place = Place(tmp_path, "vfs")

    async def check(opened: Opened) -> None:
        await opened.add_image()
        snapshots = opened.snapshots
        snapshots.prepare("c", snapshots.lower_of("top"))
        number = snapshots._record("c").number
        (snapshots.base / str(number)).rmdir()
        with pytest.raises(BerthError):
            await snapshots.fill("c")
        assert snapshots.absent("c") == [f"{number}/fs"]

    run(place, check)


@pytest.mark.parametrize("shares", [True, False])
def test_holes_stay_holes_and_bytes_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shares: bool
) -> None:
    if not shares:

        def refuse(*_: object) -> None:
            raise OSError(95, "no such thing here")

        monkeypatch.setattr(filecopies.fcntl, "ioctl", refuse)
        monkeypatch.setattr(filecopies.os, "copy_file_range", refuse)
    with (tmp_path / "one").open("wb+") as one, (tmp_path / "other").open("wb") as other:
        for offset in (0, 3 << 20, 9 << 20):
            one.seek(offset)
            one.write(os.urandom(70_000))
        one.truncate(20 << 20)
        one.flush()
        copies = filecopies.FileCopies()
        copies.copy(one.fileno(), other.fileno(), 20 << 20)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()
    assert (tmp_path / "other").stat().st_blocks <= (tmp_path / "one").stat().st_blocks
