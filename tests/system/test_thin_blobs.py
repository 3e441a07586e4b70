"""What a layer's tree has is on the disk once; whatever is done with the image, its bytes are the same."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from typing import TYPE_CHECKING

import pytest

from support.archives import docker_archive, layer
from support.waiting import wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from support.engine import EngineProcess
    from support.registries import Registry

pytestmark = pytest.mark.berth_only

LARGE = os.urandom(3 << 20)
PART = layer([("large", LARGE, {}), ("d/small", b"small\n", {})])
DIGEST = hashlib.sha256(PART).hexdigest()
BELOW = layer([("below", b"another layer\n", {})])
RUN = ("run", "--rm", "--network", "none", "-v", "/bin/busybox:/bin/busybox:ro")
HASH = ("/bin/busybox", "sha256sum", "/large")


def blob_of(engine: EngineProcess, digest: str = DIGEST) -> Path:
    return engine.data_root / "content/blobs/sha256" / digest


def is_thin(path: Path) -> bool:
    try:
        return path.stat().st_blocks * 512 < path.stat().st_size // 2
    except FileNotFoundError:
        return False


def load(engine: EngineProcess, parts: list[bytes], name: str) -> None:
    done = engine.docker("load", stdin=docker_archive(parts, name))
    assert done.code == 0, str(done)
    wait_for(lambda: is_thin(blob_of(engine)), "the blob is thin")


def saved_layer(engine: EngineProcess, name: str) -> bytes:
    """Return the layer as an archive of the image has it."""
    path = engine.data_root.parent / "saved.tar"
    try:
        done = engine.docker("save", "-o", str(path), name)
        assert done.code == 0, str(done)
        with tarfile.open(path) as archive:
            file = archive.extractfile(f"blobs/sha256/{DIGEST}")
            assert file is not None
            return file.read()
    finally:
        path.unlink(missing_ok=True)


def assert_whole(engine: EngineProcess) -> None:
    done = engine.berth("system", "check", "--format", "json")
    assert (done.code, json.loads(done.out)["Problems"]) == (0, []), str(done)


@pytest.fixture
def loaded(fresh_engine: EngineProcess) -> EngineProcess:
    load(fresh_engine, [PART], "thin:1")
    return fresh_engine


def test_a_loaded_image_is_saved_and_run_as_it_was(loaded: EngineProcess) -> None:
    assert saved_layer(loaded, "thin:1") == PART
    shown = loaded.docker(*RUN, "thin:1", *HASH)
    assert shown.out.split()[0] == hashlib.sha256(LARGE).hexdigest(), str(shown)
    assert_whole(loaded)
    assert loaded.docker("rmi", "thin:1").code == 0
    assert not blob_of(loaded).exists()
    assert list((loaded.data_root / "content/thin").glob(f"{DIGEST}-*")) == []


def test_it_goes_to_a_registry_and_comes_back(loaded: EngineProcess, registry: Registry) -> None:
    name = f"{registry.host}/thin:1"
    loaded.docker("tag", "thin:1", name)
    done = loaded.docker("push", name)
    assert done.code == 0, str(done)
    assert loaded.docker("rmi", "thin:1", name).code == 0
    assert loaded.docker("pull", name).code == 0
    shown = loaded.docker(*RUN, name, *HASH)
    assert shown.out.split()[0] == hashlib.sha256(LARGE).hexdigest(), str(shown)


def test_two_images_with_the_layer_on_other_layers_share_its_blob(loaded: EngineProcess) -> None:
    done = loaded.docker("load", stdin=docker_archive([BELOW, PART], "thin:2"))
    assert done.code == 0, str(done)
    assert_whole(loaded)
    assert loaded.docker("rmi", "thin:1").code == 0
    assert saved_layer(loaded, "thin:2") == PART
    assert_whole(loaded)
    assert loaded.docker("rmi", "thin:2").code == 0
    assert not blob_of(loaded).exists()


def test_what_berthd_left_when_it_was_killed_is_known_again(loaded: EngineProcess) -> None:
    loaded.kill()
    loaded.start()
    assert saved_layer(loaded, "thin:1") == PART
    assert_whole(loaded)


def test_without_the_tree_the_image_is_said_to_be_broken_and_can_be_loaded_again(
    loaded: EngineProcess,
) -> None:
    (found,) = (loaded.data_root / "snapshots").glob("*/fs/large")
    found.unlink()
    done = loaded.berth("system", "check", "--format", "json")
    problems = {one["What"]: one["Problem"] for one in json.loads(done.out)["Problems"]}
    assert problems[f"blob sha256:{DIGEST}"] == (
        "cannot be read: 'large' of the layer's tree: no such file or directory"
    )
    assert problems["image thin:1"] == f"its blob sha256:{DIGEST} is damaged"
    assert loaded.berth("system", "check", "--repair").code == 0
    load(loaded, [PART], "thin:1")
    assert_whole(loaded)


def test_a_damaged_tree_is_unpacked_again_when_the_bytes_are_there(loaded: EngineProcess) -> None:
    (found,) = (loaded.data_root / "snapshots").glob("*/fs/large")
    found.chmod(0o600)
    done = loaded.berth("system", "check", "--repair")
    assert done.code == 0, str(done)
    assert "unpacked again" in done.out
    assert saved_layer(loaded, "thin:1") == PART
    assert_whole(loaded)


def test_a_tree_that_is_gone_takes_the_blob_along_when_the_engine_starts(
    loaded: EngineProcess,
) -> None:
    (found,) = (loaded.data_root / "snapshots").glob("*/fs/large")
    loaded.kill()
    found.parent.parent.rename(loaded.data_root / "elsewhere")
    loaded.start()
    assert not blob_of(loaded).exists()
    load(loaded, [PART], "thin:1")
    assert_whole(loaded)


def last_layer(engine: EngineProcess, name: str) -> Path:
    document = json.loads(engine.docker("image", "inspect", name).out)[0]
    return blob_of(engine, document["RootFS"]["Layers"][-1].removeprefix("sha256:"))


WRITE = "dd if=/dev/urandom of=/file bs=1M count=2"


def test_a_commit_is_thin_as_well(fresh_engine: EngineProcess) -> None:
    made = ("run", "--name", "made", "--network", "none", "busybox", *WRITE.split())
    assert fresh_engine.docker(*made).code == 0
    assert fresh_engine.docker("commit", "made", "committed").code == 0
    path = last_layer(fresh_engine, "committed")
    wait_for(lambda: is_thin(path), "the commit is thin")
    assert fresh_engine.docker("rm", "made").code == 0
    assert_whole(fresh_engine)


def test_a_build_is_thin_as_well(fresh_engine: EngineProcess, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM busybox\nRUN {WRITE}\n")
    done = fresh_engine.berth("build", "-t", "built", "--network", "none", str(tmp_path))
    assert done.code == 0, str(done)
    path = last_layer(fresh_engine, "built")
    wait_for(lambda: is_thin(path), "the build is thin")
    assert_whole(fresh_engine)


@pytest.mark.parametrize("moment", ["early", "late"])
def test_killed_while_a_blob_becomes_thin_the_store_is_whole(
    fresh_engine: EngineProcess, moment: str
) -> None:
    ingest = fresh_engine.data_root / "content/ingest"
    assert fresh_engine.docker("load", stdin=docker_archive([PART], "thin:1")).code == 0
    if moment == "late":
        wait_for(
            lambda: list((fresh_engine.data_root / "content/thin").glob(f"{DIGEST}-*")),
            "the index is there",
        )
    fresh_engine.kill()
    fresh_engine.start()
    assert list(ingest.iterdir()) == []
    assert saved_layer(fresh_engine, "thin:1") == PART
    assert_whole(fresh_engine)
