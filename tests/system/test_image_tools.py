"""Images move between berth, skopeo, umoci, podman and a registry, and stay the same bit for bit."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import tarfile
from typing import TYPE_CHECKING

import pytest

from support.archives import docker_archive, layer, oci_archive
from support.programs import find, run
from support.registries import Registry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.engine import EngineProcess

pytestmark = pytest.mark.berth_only
NAME = "tools.invalid/team/image:1"


def parts() -> list[bytes]:
    return [
        layer([("etc", None, {}), ("etc/one", b"one\n", {"mode": 0o600}), ("gone", b"x", {})]),
        layer([("etc/.wh.one", b"", {}), (".wh.gone", b"", {}), ("two", b"two\n", {})]),
    ]


@pytest.fixture
def image(engine: EngineProcess) -> Iterator[str]:
    assert engine.docker("load", stdin=docker_archive(parts(), NAME)).code == 0
    yield NAME
    for listed in engine.request("GET", "/images/json")[1]:
        for name in [*listed["RepoTags"], *listed["RepoDigests"]]:
            if name not in ("busybox:latest", "host:latest"):
                engine.request("DELETE", f"/images/{name}")


def save(engine: EngineProcess, target: Path, *names: str) -> Path:
    done = engine.docker("save", "-o", str(target), *names)
    assert done.code == 0, str(done)
    return target


def unpack_layout(archive: Path, folder: Path) -> Path:
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return folder


def test_umoci_takes_what_berth_saves(engine: EngineProcess, image: str, tmp_path: Path) -> None:
    layout = unpack_layout(save(engine, tmp_path / "saved.tar", image), tmp_path / "layout")
    tags = run(find("umoci"), "ls", "--layout", str(layout), check=True).lines
    assert tags == ["1"]
    shown = run(find("umoci"), "stat", "--json", "--image", f"{layout}:1", check=True)
    assert len(json.loads(shown.out)["history"]) == len(parts())
    bundle = tmp_path / "bundle"
    run(find("umoci"), "unpack", "--image", f"{layout}:1", str(bundle), check=True)
    found = {path.name for path in (bundle / "rootfs").rglob("*")}
    assert found == {"etc", "two"}


def test_what_umoci_changes_berth_takes(engine: EngineProcess, image: str, tmp_path: Path) -> None:
    umoci = find("umoci")
    layout = unpack_layout(save(engine, tmp_path / "saved.tar", image), tmp_path / "layout")
    bundle = tmp_path / "bundle"
    run(umoci, "unpack", "--image", f"{layout}:1", str(bundle), check=True)
    (bundle / "rootfs/three").write_text("three\n")
    (bundle / "rootfs/two").unlink()
    run(umoci, "repack", "--image", f"{layout}:2", str(bundle), check=True)
    run(umoci, "config", "--image", f"{layout}:2", "--config.env", "BY=umoci", check=True)
    changed = tmp_path / "changed.tar"
    options = ("copy", "-q", "--insecure-policy")
    run(find("skopeo"), *options, f"oci:{layout}:2", f"oci-archive:{changed}:{NAME}", check=True)
    done = engine.docker("load", "-i", str(changed))
    assert done.code == 0, str(done)
    id_ = done.out.split()[-1]
    shown = json.loads(engine.docker("image", "inspect", id_).out)[0]
    assert "BY=umoci" in shown["Config"]["Env"]
    assert engine.docker("create", "--name", "repacked", id_, "x").code == 0
    with tarfile.open(fileobj=io.BytesIO(engine.docker("export", "repacked").raw)) as tar:
        names = set(tar.getnames())
    assert "three" in names
    assert not {"two", "gone", "etc/one"} & names
    engine.docker("rm", "repacked")
    engine.docker("rmi", id_)


def test_skopeo_sees_the_same_image_everywhere(
    engine: EngineProcess, image: str, tmp_path: Path
) -> None:
    find("docker-registry")
    skopeo = find("skopeo")
    saved = save(engine, tmp_path / "saved.tar", image)
    layout = unpack_layout(saved, tmp_path / "layout")
    with contextlib.closing(Registry(tmp_path / "registry")) as registry:
        engine.docker("tag", image, f"{registry.host}/image:1")
        assert engine.docker("push", f"{registry.host}/image:1").code == 0
        places = (
            ["--tls-verify=false", f"docker://{registry.host}/image:1"],
            [f"docker-archive:{saved}"],
            [f"oci:{layout}:1"],
        )
        configurations = {
            run(skopeo, "inspect", "--config", "--raw", *place, check=True).out for place in places
        }
    (configuration,) = configurations
    id_ = engine.docker("image", "inspect", "-f", "{{.Id}}", image).out.strip()
    assert f"sha256:{hashlib.sha256(configuration.encode()).hexdigest()}" == id_


def manifest_digest(archive: Path) -> str:
    with tarfile.open(archive) as tar:
        index = json.load(tar.extractfile("index.json"))
    (entry,) = index["manifests"]
    return entry["digest"]


def test_an_image_built_elsewhere_comes_back_bit_for_bit(
    engine: EngineProcess, tmp_path: Path
) -> None:
    """Odd but valid JSON, foreign compression, unknown members and annotations: all of it stays."""
    find("docker-registry")
    packed = [gzip.compress(part, 9) for part in parts()]
    original = tmp_path / "original.tar"
    original.write_bytes(oci_archive(packed, NAME, spaces=True))
    digest = manifest_digest(original)
    assert engine.docker("load", "-i", str(original)).code == 0
    assert manifest_digest(save(engine, tmp_path / "saved.tar", NAME)) == digest
    first = (tmp_path / "saved.tar").read_bytes()
    assert save(engine, tmp_path / "again.tar", NAME).read_bytes() == first
    with contextlib.closing(Registry(tmp_path / "registry")) as registry:
        name = f"{registry.host}/image:1"
        engine.docker("tag", NAME, name)
        done = engine.docker("push", name)
        assert f"1: digest: {digest}" in done.out, str(done)
        for known in (NAME, name):
            engine.docker("rmi", known)
        assert f"Digest: {digest}" in engine.docker("pull", name).out
        copied = tmp_path / "copied.tar"
        engine.docker("tag", name, NAME)
        assert manifest_digest(save(engine, copied, NAME)) == digest
        for known in (NAME, name):
            engine.docker("rmi", known)
    with tarfile.open(original) as before, tarfile.open(copied) as after:
        blobs = {m.name: before.extractfile(m).read() for m in before if m.name.startswith("blobs")}
        for path, data in blobs.items():
            assert after.extractfile(path).read() == data
