"""The copying driver under the real docker CLI, and which driver an engine has."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tarfile
import threading
from typing import TYPE_CHECKING

import pytest

from berth.kernel import mounts
from support.archives import docker_archive, layer
from support.engine import EngineProcess
from support.programs import find, run
from support.waiting import wait_for
from system.conftest import assert_gone, clean, import_busybox, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.berth_only

RUN = ("run", "--rm", "--network", "none")
COPYING = ("--storage-driver", "vfs")


@pytest.fixture(scope="module")
def copying_engine(busybox_tar: bytes) -> Iterator[EngineProcess]:
    engine = EngineProcess(flags=COPYING)
    with running(engine, busybox_tar):
        yield engine


@pytest.fixture
def copying(copying_engine: EngineProcess) -> Iterator[EngineProcess]:
    yield copying_engine
    clean(copying_engine)


@pytest.fixture
def unstarted() -> Iterator[EngineProcess]:
    engine = EngineProcess()
    try:
        yield engine
    finally:
        engine.close()
    assert_gone(engine)


def check_store(engine: EngineProcess) -> None:
    checked = engine.berth("system", "check")
    assert "no problems" in checked.out, str(checked)


def driver_of(engine: EngineProcess) -> str:
    return engine.docker("info", "--format", "{{.Driver}}").out.strip()


def test_info_and_inspect_name_the_driver(copying: EngineProcess) -> None:
    assert driver_of(copying) == "vfs"
    assert copying.docker("create", "--name", "c-shown", "busybox").code == 0
    for kind in ("c-shown", "busybox"):
        shown = copying.docker("inspect", "--format", "{{json .GraphDriver}}", kind)
        assert json.loads(shown.out) == {"Name": "vfs", "Data": None}


def test_changes_are_seen_measured_committed_and_exported(copying: EngineProcess) -> None:
    before = copying.request("GET", "/containers/json?all=1")[1]
    assert before == []
    script = "rm /etc/group; echo new >/work/new; chmod 600 /etc/passwd; mkdir -p /deep/er"
    made = copying.docker(
        *("run", "--name", "c-changed", "--network", "none", "busybox", "sh", "-c", script)
    )
    assert made.code == 0, str(made)
    assert sorted(copying.docker("diff", "c-changed").lines) == [
        *("A /deep", "A /deep/er", "A /work/new"),
        *("C /etc", "C /etc/passwd", "C /work", "D /etc/group"),
    ]
    (shown,) = copying.request("GET", "/containers/json?all=1&size=1")[1]
    assert 0 < shown["SizeRw"] <= 3 * 4096  # not the copy of busybox
    assert copying.docker("commit", "c-changed", "committed:1").code == 0
    look = "cat /work/new; stat -c %a /etc/passwd; ls -d /etc/* /deep/*"
    seen = copying.docker(*RUN, "committed:1", "sh", "-c", look)
    assert seen.lines[:2] == ["new", "600"], str(seen)
    assert "/deep/er" in seen.lines
    assert "/etc/group" not in seen.lines
    archive = copying.base / "exported.tar"
    assert copying.docker("export", "-o", str(archive), "c-changed").code == 0
    with tarfile.open(archive) as exported:
        names = exported.getnames()
    assert "work/new" in names
    assert "etc/group" not in names
    check_store(copying)
    assert copying.docker("rmi", "-f", "committed:1").code == 0


def test_files_are_copied_in_and_out(copying: EngineProcess, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"carried\n")
    assert copying.docker("create", "--name", "c-files", "busybox", "cat", "/work/in").code == 0
    assert copying.docker("cp", str(tmp_path / "in"), "c-files:/work/in").code == 0
    assert copying.docker("start", "-a", "c-files").lines == ["carried"]
    assert copying.docker("cp", "c-files:/work/in", str(tmp_path / "out")).code == 0
    assert (tmp_path / "out").read_bytes() == b"carried\n"


def test_volumes_are_filled_and_images_mounted(copying: EngineProcess) -> None:
    fill = copying.docker(*RUN, "-v", "v-filled:/etc", "busybox", "ls", "/etc")
    assert "passwd" in fill.lines, str(fill)
    mount = "type=image,source=busybox,target=/image"
    seen = copying.docker(
        *(*RUN, "--mount", mount, "busybox", "sh", "-c", "cat /image/etc/group; >/image/x")
    )
    assert "root:x:0:" in seen.lines, str(seen)
    assert "Read-only file system" in seen.err
    assert copying.docker("volume", "rm", "v-filled").code == 0


def test_the_machines_own_image_is_refused(copying: EngineProcess) -> None:
    refused = copying.docker(*RUN, "host", "true")
    assert refused.code == 125
    assert "storage driver vfs cannot show this machine's root" in refused.err


def test_containers_live_through_a_killed_engine(copying: EngineProcess) -> None:
    script = "echo one >/work/log; sleep 60"
    ran = copying.docker(
        *("run", "-d", "--name", "c-lives", "--network", "none", "busybox", "sh", "-c", script)
    )
    assert ran.code == 0, str(ran)
    copying.restart()
    seen = copying.docker("exec", "c-lives", "cat", "/work/log")
    assert seen.lines == ["one"], str(seen)
    assert "A /work/log" in copying.docker("diff", "c-lives").lines


def test_what_goes_leaves_nothing(copying: EngineProcess, busybox_tar: bytes) -> None:
    def directories() -> int:
        return sum(name.isdigit() for name in os.listdir(copying.data_root / "snapshots"))

    assert copying.docker(*RUN, "busybox", "true").code == 0
    before = directories()
    hiding = layer([("etc/.wh.group", b"", {}), ("extra", b"x" * 100_000, {})])
    archive = docker_archive([busybox_tar, hiding], "hiding:1")
    assert copying.docker("load", stdin=archive).code == 0
    ran = copying.docker("run", "--name", "c-goes", "--network", "none", "hiding:1", "ls", "/etc")
    assert "group" not in ran.lines, str(ran)
    check_store(copying)
    assert copying.docker("rmi", "-f", "hiding:1").code == 0
    assert copying.docker("container", "prune", "-f").code == 0
    wait_for(lambda: directories() == before, "its directories are gone")
    check_store(copying)


def test_a_kill_in_the_middle_of_a_copy_leaves_a_whole_container_or_none(
    busybox_tar: bytes, unstarted: EngineProcess
) -> None:
    engine = EngineProcess(unstarted.base, flags=COPYING)
    try:
        engine.start()
        many = [(f"many/{n}", b"%d\n" % n, {}) for n in range(4000)]
        archive = docker_archive([busybox_tar, layer(many)], "many:1")
        assert engine.docker("load", stdin=archive).code == 0
        creating = threading.Thread(target=engine.docker, args=("create", "many:1", "true"))
        creating.start()
        snapshots = engine.data_root / "snapshots"
        wait_for(lambda: any(snapshots.glob("*/copy")) or not creating.is_alive(), "it copies")
        engine.restart()
        creating.join()
        assert not any(snapshots.glob("*/copy"))
        _, containers = engine.request("GET", "/containers/json?all=1")
        for container in containers:
            out = engine.docker("export", container["Id"]).raw
            assert out.count(b"many/") >= 4000
        check_store(engine)
    finally:
        engine.close()


@pytest.fixture
def on_btrfs(tmp_path: Path) -> Iterator[Path]:
    """A directory on a file system with reflinks."""
    image, folder = tmp_path / "image", tmp_path / "mounted"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(400 << 20)
    run(find("mkfs.btrfs"), "-q", str(image), check=True)
    if run("mount", "-o", "loop", str(image), str(folder)).code:
        pytest.skip("needs a block device")
    try:
        yield folder
    finally:
        run("umount", "-l", str(folder), check=True)


def test_copies_share_blocks_where_the_file_system_can(on_btrfs: Path, busybox_tar: bytes) -> None:
    size = 40 << 20
    data = os.urandom(size)
    engine = EngineProcess(on_btrfs / "berth", flags=COPYING)
    engine.base.mkdir()
    try:
        engine.start()
        archive = docker_archive([busybox_tar, layer([("large", data, {})])], "large:1")
        assert engine.docker("load", stdin=archive).code == 0
        os.sync()
        before = shutil.disk_usage(on_btrfs).used
        for number in range(3):
            made = engine.docker("create", "--name", f"c-{number}", "large:1", "true")
            assert made.code == 0, str(made)
        os.sync()
        assert shutil.disk_usage(on_btrfs).used - before < size // 2
        seen = engine.docker(*RUN, "large:1", "sha256sum", "/large")
        assert seen.out.split()[0] == hashlib.sha256(data).hexdigest(), str(seen)
        check_store(engine)
    finally:
        engine.close()
    assert_gone(engine)


# Which driver


@pytest.mark.parametrize("name", ["berth.toml", "daemon.json"])
def test_the_file_says_which(unstarted: EngineProcess, tmp_path: Path, name: str) -> None:
    text = {"berth.toml": 'storage-driver = "vfs"\n', "daemon.json": '{"storage-driver": "vfs"}'}
    (tmp_path / name).write_text(text[name])
    engine = EngineProcess(unstarted.base, flags=("--config-file", str(tmp_path / name)))
    try:
        assert driver_of(engine.start()) == "vfs"
    finally:
        engine.close()


def test_a_data_root_goes_on_with_the_driver_it_began_with(
    unstarted: EngineProcess, busybox_tar: bytes
) -> None:
    first = EngineProcess(unstarted.base, flags=COPYING).start()
    import_busybox(first, busybox_tar)
    first.stop()
    assert driver_of(unstarted.start()) == "vfs"
    unstarted.stop()
    other = EngineProcess(unstarted.base, flags=("--storage-driver", "overlay2"))
    with pytest.raises(AssertionError, match="has layers of the storage driver vfs, not overlay2"):
        other.start()


def test_a_driver_that_there_is_not_is_refused(unstarted: EngineProcess) -> None:
    engine = EngineProcess(unstarted.base, flags=("--storage-driver", "zfs"))
    with pytest.raises(AssertionError, match="storage-driver zfs: use overlay2 or vfs"):
        engine.start()


@pytest.fixture
def on_overlay(tmp_path: Path) -> Iterator[Path]:
    """A directory in an overlay, on which no other overlay can be."""
    for name in ("lower", "upper", "work", "merged"):
        (tmp_path / name).mkdir()
    data = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    mounts.mount("overlay", str(tmp_path / "merged"), "overlay", 0, data)
    try:
        yield tmp_path / "merged"
    finally:
        mounts.umount2(str(tmp_path / "merged"), mounts.MNT_DETACH)


def test_copies_are_made_where_overlayfs_does_not_work(
    on_overlay: Path, busybox_tar: bytes
) -> None:
    engine = EngineProcess(on_overlay / "berth")
    engine.base.mkdir()
    try:
        assert driver_of(engine.start()) == "vfs"
        hiding = layer([("etc/.wh.group", b"", {}), ("var/.wh..wh..opq", b"", {})])
        done = engine.docker("load", stdin=docker_archive([busybox_tar, hiding], "hiding:1"))
        assert done.code == 0, str(done)
        ran = engine.docker(*RUN, "hiding:1", "ls", "/etc")
        assert "passwd" in ran.lines, str(ran)
        assert "group" not in ran.lines
        check_store(engine)
        engine.stop()
        asked = EngineProcess(engine.base / "other", flags=("--storage-driver", "overlay2"))
        asked.base.mkdir()
        try:
            with pytest.raises(AssertionError, match="storage driver overlay2 does not work in"):
                asked.start()
        finally:
            asked.close()
    finally:
        engine.close()
    assert_gone(engine)


def test_a_size_is_refused_where_there_are_no_quotas(
    busybox_tar: bytes, unstarted: EngineProcess
) -> None:
    unstarted.start()
    import_busybox(unstarted, busybox_tar)
    if unstarted.docker(*RUN, "--storage-opt", "size=1G", "busybox", "true").code == 0:
        pytest.skip("this file system has quotas of projects")
    done = unstarted.docker(*RUN, "--storage-opt", "size=1G", "busybox", "true")
    assert done.code == 125
    assert "supported only for overlay over xfs with 'pquota' mount option" in done.err
    unstarted.stop()
    unstarted.flags = ("--storage-opt", "overlay2.size=1G")
    with pytest.raises(AssertionError, match="Filesystem does not support Project Quota"):
        unstarted.start()
