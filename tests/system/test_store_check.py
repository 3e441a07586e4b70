"""The store is verified and repaired, and whole whenever berthd was killed or the disk was full."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.archives import docker_archive, layer, layers_of, oci_archive
from support.engine import EngineProcess
from support.programs import find, run
from support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.registries import Registry

pytestmark = pytest.mark.berth_only

RUN = ("run", "--rm", "--network", "none")
# Enough of everything that a kill falls into different steps.
PARTS = [
    layer([("one", os.urandom(3 << 20), {}), *((f"d/{i}", b"x" * i, {}) for i in range(300))]),
    layer([("two", b"two\n", {}), ("link", b"", {"type": b"1", "linkname": "two"})]),
    layer([("three", os.urandom(2 << 20), {}), ("d/.wh.7", b"", {})]),
]
TAG = "checked:1"


def check(engine: EngineProcess, *flags: str) -> tuple[int, list[dict[str, str]]]:
    """Return the exit code of the check and the problems that it found."""
    done = engine.berth("system", "check", "--format", "json", *flags)
    assert not done.err, str(done)
    return done.code, json.loads(done.out)["Problems"]


def assert_whole(engine: EngineProcess) -> None:
    assert check(engine) == (0, [])


@pytest.fixture
def loaded(fresh_engine: EngineProcess) -> EngineProcess:
    done = fresh_engine.docker("load", stdin=docker_archive(PARTS, TAG))
    assert done.code == 0, str(done)
    return fresh_engine


def trees(engine: EngineProcess) -> list[Path]:
    """Return the directories of the layers of the image, lowest first."""
    base = engine.data_root / "snapshots"
    return [
        next(path for path in sorted(base.glob("*/fs")) if (path / name).exists())
        for name in ("one", "two", "three")
    ]


def test_a_whole_store_is_said_to_be_whole(loaded: EngineProcess) -> None:
    done = loaded.berth("system", "check")
    assert done.code == 0, str(done)
    assert done.out == "Checked 6 blobs, 2 images, 4 layers: no problems\n"


def change_content(tree: Path) -> None:
    status = (tree / "two").stat()
    (tree / "two").write_bytes(b"TWO\n")
    os.utime(tree / "two", ns=(status.st_atime_ns, status.st_mtime_ns))


def break_link(tree: Path) -> None:
    data, status = (tree / "two").read_bytes(), (tree / "two").stat()
    (tree / "link").unlink()
    (tree / "link").write_bytes(data)
    os.utime(tree / "link", ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (change_content, "has another content"),
        (lambda tree: (tree / "two").chmod(0o600), "has another mode"),
        (lambda tree: os.chown(tree / "two", 7, 7), "has another owner"),
        (lambda tree: (tree / "two").unlink(), "'two' is missing"),
        (lambda tree: (tree / "more").write_text("x"), "'more' is not in the layer"),
        (break_link, "has another hard link"),
        (lambda tree: os.setxattr(tree / "two", "user.x", b"y"), "another extended attributes"),
        (lambda tree: tree.rename(tree.with_name("moved")), "/fs is missing"),
    ],
    ids=["content", "mode", "owner", "missing", "more", "link", "attribute", "tree"],
)
def test_a_changed_layer_is_found_and_unpacked_again(
    loaded: EngineProcess, damage: Callable[[Path], object], says: str
) -> None:
    damage(trees(loaded)[1])
    code, problems = check(loaded)
    assert code == 1
    assert len(problems) == 1
    assert problems[0]["What"].startswith("layer sha256:")
    assert says in problems[0]["Problem"]
    done = loaded.berth("system", "check", "--repair")
    assert done.code == 0, str(done)
    assert "unpacked again" in done.out
    assert_whole(loaded)
    shown = loaded.docker(
        *RUN, "-v", "/bin/busybox:/bin/busybox:ro", TAG, "/bin/busybox", "cat", "/link"
    )
    assert shown.out == "two\n", str(shown)


def test_a_layer_below_a_container_is_left_to_it(loaded: EngineProcess) -> None:
    assert loaded.docker("create", "--name", "user", "--network", "none", TAG, "x").code == 0
    (trees(loaded)[0] / "d/5").unlink()
    code, problems = check(loaded, "--repair")
    assert code == 1
    assert problems[0]["Problem"].endswith("'d/5' is missing (a container is on it)")
    assert loaded.docker("rm", "user").code == 0
    assert check(loaded, "--repair")[0] == 0
    assert_whole(loaded)


@pytest.mark.parametrize("which", ["config", "layer"])
@pytest.mark.parametrize("damage", ["changed", "cut", "gone"])
def test_a_broken_blob_goes_with_its_image_and_comes_again(
    loaded: EngineProcess, which: str, damage: str
) -> None:
    blobs = loaded.data_root / "content/blobs/sha256"
    document = json.loads(loaded.docker("image", "inspect", TAG).out)[0]
    name = document["Id"] if which == "config" else document["RootFS"]["Layers"][0]
    blob = blobs / name.removeprefix("sha256:")
    data = blob.read_bytes()
    if damage == "gone":
        blob.unlink()
    else:
        blob.write_bytes(data[:-1] + (b"!" if damage == "changed" else b""))
    code, problems = check(loaded)
    assert code == 1
    image = [found["Problem"] for found in problems if found["What"] == f"image {TAG}"]
    assert image == [f"its blob {name} is {'missing' if damage == 'gone' else 'damaged'}"]
    assert check(loaded, "--repair")[0] == 0
    assert_whole(loaded)
    assert loaded.docker("image", "inspect", TAG).code == 1
    assert loaded.docker("load", stdin=docker_archive(PARTS, TAG)).code == 0
    assert_whole(loaded)


# Killed at any moment


def killed(engine: EngineProcess, delay_s: float, *words: str, archive: Path | None = None) -> None:
    """Kill berthd so long after a client began with something, and start it again."""
    with (
        archive.open("rb") if archive else open(os.devnull, "rb") as stdin,
        subprocess.Popen(
            [find("docker"), "-H", engine.host, *words],
            stdin=stdin,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ),
    ):
        threading.Event().wait(delay_s)
        engine.kill()
    engine.start()


def moments(engine: EngineProcess, act: Callable[[], object], steps: int = 6) -> list[float]:
    """Return moments over the time that ``act`` takes."""
    before = time.monotonic()
    act()
    whole_s = time.monotonic() - before
    return [whole_s * (step + 0.5) / steps for step in range(steps)]


def test_killed_at_any_moment_of_a_load_the_store_is_whole(
    fresh_engine: EngineProcess, tmp_path: Path
) -> None:
    archive = tmp_path / "archive.tar"
    archive.write_bytes(docker_archive(PARTS, TAG))
    for delay_s in moments(fresh_engine, lambda: fresh_engine.docker("load", "-i", str(archive))):
        fresh_engine.docker("rmi", TAG)
        killed(fresh_engine, delay_s, "load", archive=archive)
        assert_whole(fresh_engine)
        assert fresh_engine.docker("load", "-i", str(archive)).code == 0
        assert_whole(fresh_engine)


def test_killed_at_any_moment_of_a_push_store_and_registry_are_whole(
    loaded: EngineProcess, registry: Registry
) -> None:
    name = f"{registry.host}/checked"
    loaded.docker("tag", TAG, f"{name}:first")
    for n, delay_s in enumerate(moments(loaded, lambda: loaded.docker("push", f"{name}:first"))):
        other = f"{registry.host}/checked-{n}:1"
        loaded.docker("tag", TAG, other)
        killed(loaded, delay_s, "push", other)
        assert_whole(loaded)
        done = loaded.docker("push", other)
        assert done.code == 0, str(done)
        run(find("skopeo"), "inspect", "--tls-verify=false", f"docker://{other}", check=True)


def test_killed_at_any_moment_of_a_pull_the_store_is_whole(
    loaded: EngineProcess, registry: Registry
) -> None:
    name = f"{registry.host}/checked:1"
    loaded.docker("tag", TAG, name)
    assert loaded.docker("push", name).code == 0
    forget(loaded, TAG, name)
    for delay_s in moments(loaded, lambda: loaded.docker("pull", name)):
        forget(loaded, name)
        killed(loaded, delay_s, "pull", name)
        assert_whole(loaded)
        done = loaded.docker("pull", name)
        assert done.code == 0, str(done)
        assert_whole(loaded)


def test_killed_at_any_moment_of_a_removal_the_store_is_whole(
    loaded: EngineProcess, tmp_path: Path
) -> None:
    archive = tmp_path / "archive.tar"
    archive.write_bytes(docker_archive(PARTS, TAG))
    for delay_s in moments(loaded, lambda: loaded.docker("rmi", TAG)):
        assert loaded.docker("load", "-i", str(archive)).code == 0
        killed(loaded, delay_s, "rmi", TAG)
        assert_whole(loaded)
        loaded.docker("rmi", TAG)
        wait_for(lambda: len(layers_of(loaded)) == 1, "only the first image has a layer")


def forget(engine: EngineProcess, *names: str) -> None:
    """Remove images and what they left."""
    for name in names:
        engine.docker("rmi", "-f", name)
    engine.docker("image", "prune", "-f")


# A full disk


@pytest.fixture
def small_engine(busybox_tar: bytes) -> Iterator[EngineProcess]:
    """An engine whose data root has room for the image once, not twice."""
    base = Path(tempfile.mkdtemp(prefix="berth-test-"))
    data = base / "data"
    data.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=14m", "tmpfs", str(data), check=True)
    engine = EngineProcess(base)
    try:
        yield engine.start()
        engine.stop()
    finally:
        run("umount", "-l", str(data), check=True)
        engine.close()


def test_a_full_disk_is_said_and_leaves_a_whole_store(
    small_engine: EngineProcess, registry: Registry, fresh_engine: EngineProcess
) -> None:
    name = f"{registry.host}/checked:1"
    large = docker_archive([*PARTS, layer([("four", os.urandom(4 << 20), {})])], name)
    assert fresh_engine.docker("load", stdin=large).code == 0
    assert fresh_engine.docker("push", name).code == 0
    done = small_engine.docker("load", stdin=large)
    assert done.code == 1
    assert "no space left on device" in done.err, str(done)
    assert_whole(small_engine)
    done = small_engine.docker("pull", name)
    assert done.code == 1
    assert "no space left on device" in done.err, str(done)
    assert_whole(small_engine)
    small_engine.docker("image", "prune", "-f")
    wait_for(lambda: not layers_of(small_engine), "what was half made is gone")
    done = small_engine.docker("load", stdin=docker_archive(PARTS[1:], "small:1"))
    assert done.code == 0, str(done)
    assert_whole(small_engine)


@pytest.mark.parametrize("packing", ["gzip", "zstd"])
def test_a_bomb_fills_the_disk_and_nothing_else(small_engine: EngineProcess, packing: str) -> None:
    plain = layer([("bomb", bytes(64 << 20), {})])
    bomb = gzip.compress(plain)
    if packing == "zstd":
        bomb = run(find("zstd"), "-q", "-c", stdin=plain, check=True).raw
    assert len(bomb) < 1 << 20
    media_type = f"application/vnd.oci.image.layer.v1.tar+{packing}"
    archive = oci_archive([bomb], "bomb:1", [media_type], plain=[plain])
    done = small_engine.docker("load", stdin=archive)
    assert done.code == 1
    assert "no space left on device" in done.err, str(done)
    assert_whole(small_engine)
    wait_for(lambda: not layers_of(small_engine), "what was half made is gone")
    done = small_engine.docker("load", stdin=docker_archive(PARTS[1:], "small:1"))
    assert done.code == 0, str(done)
