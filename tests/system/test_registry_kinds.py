"""What registries hold: images of several platforms, artifacts, old manifests, layers in every form."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import subprocess
import tarfile
from functools import partial
from typing import TYPE_CHECKING

import pytest

from support.archives import blobs_of, layer, oci_archive
from support.programs import find, run
from support.registries import Answer, Front, Layout, Registry
from support.servers import Folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.engine import EngineProcess
    from support.programs import Outcome

    Cli = Callable[..., Outcome]

pytestmark = pytest.mark.berth_only
OCI = "application/vnd.oci.image"


@pytest.fixture(params=["docker", "berth"])
def docker(engine: EngineProcess, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Cli]:
    client = engine.docker if request.param == "docker" else engine.berth

    def call(*args: str, **options: object) -> Outcome:
        environment = {
            "DOCKER_CONFIG": str(tmp_path / "config"),
            "DOCKER_CLI_EXPERIMENTAL": "enabled",
        }
        return client(*args, env=environment, **options)

    yield call
    for image in engine.request("GET", "/images/json")[1]:
        for name in [*image["RepoTags"], *image["RepoDigests"]]:
            if name not in ("busybox:latest", "host:latest"):
                engine.request("DELETE", f"/images/{name}")


# Several platforms


@pytest.fixture
def both(registry: Registry, tmp_path: Path) -> str:
    """The name of an image for amd64 and arm64."""
    layout = Layout(tmp_path / "both")
    layout.finish(
        layout.image("amd64", ("hello", b"amd64\n")), layout.image("arm64", ("hello", b"arm64\n"))
    )
    registry.push(layout.folder, "both:1", "--all")
    return f"{registry.host}/both:1"


def architecture(engine: EngineProcess, name: str, platform: str = "") -> str:
    status, found = engine.request("GET", f"/images/{name}/json?platform={platform}")
    assert status == 200, found
    return found["Architecture"]


def test_several_platforms_are_kept_under_one_name(
    docker: Cli, engine: EngineProcess, both: str
) -> None:
    assert docker("pull", "--platform", "linux/arm64", both).code == 0
    assert architecture(engine, both) == "arm64"
    assert docker("pull", both).code == 0
    assert architecture(engine, both) == "amd64"
    assert architecture(engine, both, "linux/arm64") == "arm64"
    asked = (
        json.dumps({"os": "linux", "architecture": "arm64"}).replace('"', "%22").replace(" ", "")
    )
    assert architecture(engine, both, asked) == "arm64"
    assert len(docker("images", "-q", both).lines) == 2
    made = docker("create", "--platform", "linux/arm64", "--name", "other", both)
    assert made.code == 0, str(made)
    status, found = engine.request("GET", "/containers/other/json")
    image = engine.request("GET", f"/images/{both}/json?platform=linux/arm64")[1]
    assert (status, found["Image"]) == (200, image["Id"])
    missing = engine.request("GET", f"/images/{both}/json?platform=linux/s390x")
    assert missing[0] == 404
    assert "does not provide the specified platform (linux/s390x)" in missing[1]["message"]
    docker("rm", "other")


def test_a_name_goes_from_every_platform_or_from_one(engine: EngineProcess, both: str) -> None:
    for platform in ("linux/arm64", "linux/amd64"):
        assert engine.berth("pull", "--platform", platform, both).code == 0
    tree = engine.berth("images", "--tree", both).out
    shown = {line.split()[1] for line in tree.splitlines() if "─" in line}
    assert shown == {"linux/amd64", "linux/arm64"}, tree
    done = engine.berth("rmi", "--platform", "linux/amd64", both)
    assert done.code == 0, str(done)
    assert architecture(engine, both) == "arm64"
    assert engine.berth("pull", "--platform", "linux/amd64", both).code == 0
    done = engine.berth("rmi", both)
    assert done.code == 0, str(done)
    assert done.out.count(f"Untagged: {both}") == 1
    assert engine.berth("images", "-q", both).out == ""


def test_a_name_is_listed_once_with_the_manifests_of_its_platforms(
    engine: EngineProcess, both: str
) -> None:
    for platform in ("linux/arm64", "linux/amd64"):
        assert engine.docker("pull", "--platform", platform, both).code == 0
    made = engine.docker("create", "--platform", "linux/arm64", "--name", "c-arm", both)
    assert made.code == 0, str(made)
    ids = {
        wanted: engine.request("GET", f"/images/{both}/json?platform=linux/{wanted}")[1]["Id"]
        for wanted in ("amd64", "arm64")
    }
    listed = engine.request("GET", "/v1.51/images/json?manifests=1")[1]
    (found,) = [image for image in listed if both in image["RepoTags"]]
    assert found["Id"] == ids["amd64"]  # what suits this machine
    manifests = {one["ImageData"]["Platform"]["architecture"]: one for one in found["Manifests"]}
    assert {*manifests} == {"amd64", "arm64"}
    assert manifests["arm64"]["ImageData"]["Containers"] == [made.out.strip()]
    assert manifests["amd64"]["ImageData"]["Containers"] == []
    for one in manifests.values():
        raw = engine.request("GET", f"/distribution/{both.removesuffix(':1')}@{one['ID']}/json")[1]
        assert raw["Descriptor"]["digest"] == one["Descriptor"]["digest"] == one["ID"]
        assert raw["Descriptor"]["size"] == one["Descriptor"]["size"]
        size = one["Size"]
        assert size["Total"] == size["Content"] + one["ImageData"]["Size"]["Unpacked"]
    inspected = engine.request("GET", f"/v1.51/images/{both}/json?manifests=1")[1]
    assert inspected["Manifests"] == found["Manifests"]
    sharing = engine.request("GET", "/images/json?shared-size=1")[1]
    assert all(image["SharedSize"] >= 0 for image in sharing)
    older = engine.request("GET", "/v1.46/images/json?manifests=1")[1]
    assert sum(both in image["RepoTags"] for image in older) == 2
    assert "Manifests" not in older[0]
    tree = engine.docker("images", "--tree")
    assert tree.code == 0, str(tree)
    assert tree.out.count("linux/amd64") >= 1
    assert tree.out.count("linux/arm64") == 1
    assert engine.docker("rm", "c-arm").code == 0


@pytest.mark.parametrize("form", ["layout", "docker-archive"])
def test_of_an_archive_one_platform_is_loaded(
    docker: Cli, engine: EngineProcess, both: str, tmp_path: Path, form: str
) -> None:
    archive = tmp_path / "both.tar"
    if form == "layout":
        with tarfile.open(archive, "w") as packed:
            packed.add(tmp_path / "both", ".")
    else:
        assert docker("pull", "--platform", "linux/arm64", both).code == 0
        assert docker("save", "-o", str(archive), both).code == 0
        docker("rmi", both)
    before = blobs_of(engine)
    missing = docker("load", "--platform", "linux/s390x", "-i", str(archive))
    assert missing.code == 1
    words = "linux/s390x) not found" if form == "docker-archive" else "linux/s390x"
    assert words in missing.err, str(missing)
    assert blobs_of(engine) == before
    loaded = docker("load", "--platform", "linux/arm64", "-i", str(archive))
    assert loaded.code == 0, str(loaded)
    id_ = loaded.out.split("sha256:")[-1].strip() if form == "layout" else both
    assert architecture(engine, id_) == "arm64"
    assert docker("rmi", id_).code == 0


def test_a_name_of_several_platforms_moves_as_a_whole(
    docker: Cli, engine: EngineProcess, both: str, registry: Registry, tmp_path: Path
) -> None:
    for platform in ("linux/arm64", "linux/amd64"):
        assert docker("pull", "--platform", platform, both).code == 0
    newer = Layout(tmp_path / "newer")
    newer.finish(
        newer.image("amd64", ("hello", b"newer\n")), newer.image("arm64", ("hello", b"newer\n"))
    )
    registry.push(newer.folder, "both:1", "--all")
    assert docker("pull", both).code == 0
    assert len(docker("images", "-q", both).lines) == 1
    docker("tag", "busybox", both)
    assert len(docker("images", "-q", both).lines) == 1
    docker("image", "prune", "-f")


def test_each_platform_is_pushed_saved_and_pulled_by_digest(
    docker: Cli, engine: EngineProcess, both: str, registry: Registry, tmp_path: Path
) -> None:
    for platform in ("linux/arm64", "linux/amd64"):
        assert docker("pull", "--platform", platform, both).code == 0
    status, data = engine.request("GET", f"/images/get?names={both}&platform=linux/arm64")
    assert status == 200
    (tmp_path / "saved.tar").write_bytes(data)
    shown = run(find("skopeo"), "inspect", f"docker-archive:{tmp_path}/saved.tar", check=True)
    assert json.loads(shown.out)["Architecture"] == "arm64"
    name = f"{registry.host}/single:1"
    for wanted in ("arm64", "amd64"):
        engine.request("DELETE", f"/images/{name}")
        id_ = engine.request("GET", f"/images/{both}/json?platform=linux/{wanted}")[1]["Id"]
        docker("tag", id_, name)
        done = docker("push", name)
        assert done.code == 0, str(done)
        digest = next(line.split()[2] for line in done.lines if "digest: " in line)
        docker("rmi", name)
        done = docker("pull", "--platform", f"linux/{wanted}", f"{registry.host}/single@{digest}")
        assert done.code == 0, str(done)
        inspected = docker(
            "image", "inspect", "-f", "{{.Architecture}}", f"{registry.host}/single@{digest}"
        )
        assert inspected.out.strip() == wanted


def test_docker_manifest_puts_together_what_was_pushed(
    engine: EngineProcess, both: str, registry: Registry, tmp_path: Path
) -> None:
    environment = {"DOCKER_CONFIG": str(tmp_path / "config"), "DOCKER_CLI_EXPERIMENTAL": "enabled"}
    docker = partial(engine.docker, env=environment)
    parts = []
    for wanted in ("arm64", "amd64"):
        docker("pull", "--platform", f"linux/{wanted}", both)
        id_ = engine.request("GET", f"/images/{both}/json?platform=linux/{wanted}")[1]["Id"]
        parts.append(f"{registry.host}/part:{wanted}")
        docker("tag", id_, parts[-1])
        assert docker("push", parts[-1]).code == 0
    name = f"{registry.host}/part:all"
    done = docker("manifest", "create", "--insecure", name, *parts)
    assert done.code == 0, str(done)
    done = docker("manifest", "push", "--insecure", name)
    assert done.code == 0, str(done)
    shown = json.loads(docker("manifest", "inspect", "--insecure", name).out)
    found = {entry["platform"]["architecture"] for entry in shown["manifests"]}
    assert found == {"arm64", "amd64"}
    for part in (*parts, both):
        docker("rmi", part)
    for wanted in ("arm64", "amd64"):
        done = docker("pull", "--platform", f"linux/{wanted}", name)
        assert done.code == 0, str(done)
        assert architecture(engine, name, f"linux/{wanted}") == wanted
    docker("rmi", name)


@pytest.mark.parametrize("repository", ["part", "whole"])
def test_berth_manifest_does_the_same_and_brings_images_from_neighbours(
    engine: EngineProcess, both: str, registry: Registry, tmp_path: Path, repository: str
) -> None:
    berth = partial(engine.berth, env={"DOCKER_CONFIG": str(tmp_path / "config")})
    parts = []
    for wanted in ("arm64", "amd64"):
        berth("pull", "--platform", f"linux/{wanted}", both)
        id_ = engine.request("GET", f"/images/{both}/json?platform=linux/{wanted}")[1]["Id"]
        parts.append(f"{registry.host}/part:{wanted}")
        berth("tag", id_, parts[-1])
        assert berth("push", parts[-1]).code == 0
    name = f"{registry.host}/{repository}:all"
    assert berth("manifest", "push", name).code == 1
    assert berth("manifest", "create", name, *parts).out == f"Created manifest list {name}\n"
    assert berth("manifest", "create", name, parts[0]).code == 1
    done = berth("manifest", "annotate", "--variant", "v8", name, parts[0])
    assert done.code == 0, str(done)
    done = berth("manifest", "push", "--purge", name)
    assert done.code == 0, str(done)
    assert berth("manifest", "rm", name).code == 1
    shown = json.loads(berth("manifest", "inspect", name).out)
    raw = run(find("skopeo"), "inspect", "--raw", "--tls-verify=false", f"docker://{name}").out
    assert shown == json.loads(raw)
    assert f"sha256:{hashlib.sha256(raw.encode()).hexdigest()}" == done.out.strip()
    found = {entry["platform"]["architecture"] for entry in shown["manifests"]}
    assert found == {"arm64", "amd64"}
    for part in (*parts, both):
        berth("rmi", part)
    for wanted in ("arm64", "amd64"):
        done = berth("pull", "--platform", f"linux/{wanted}", name)
        assert done.code == 0, str(done)
        assert architecture(engine, name, f"linux/{wanted}") == wanted
    berth("rmi", name)


# Other things than images


def artifact(layout: Layout, config: str, **more: object) -> dict[str, object]:
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{OCI}.manifest.v1+json",
        "config": layout.blob(b"{}", config),
        "layers": [layout.blob(b"chart", "application/vnd.cncf.helm.chart.content.v1.tar+gzip")],
        **more,
    }
    return layout.document(manifest, manifest["mediaType"])


@pytest.mark.parametrize(
    ("config", "more"),
    [
        ("application/vnd.cncf.helm.config.v1+json", {}),
        ("application/vnd.oci.empty.v1+json", {"artifactType": "application/x.thing"}),
    ],
)
def test_an_artifact_is_refused_as_docker_does(
    docker: Cli, registry: Registry, tmp_path: Path, config: str, more: dict[str, object]
) -> None:
    layout = Layout(tmp_path / "chart")
    layout.finish(artifact(layout, config, **more))
    registry.push(layout.folder, "chart:1")
    done = docker("pull", f"{registry.host}/chart:1")
    assert done.code == 1
    assert f'Encountered remote "{config}"(unknown) when fetching' in done.err, str(done)


def test_schema_1_is_refused_with_the_reason(docker: Cli, registry: Registry) -> None:
    old = {"schemaVersion": 1, "name": "old", "tag": "1", "fsLayers": [], "history": []}
    body = json.dumps(old).encode()
    kind = "application/vnd.docker.distribution.manifest.v1+prettyjws"
    with contextlib.closing(Front(registry)) as front:
        front.rules.append(
            lambda path, _: (
                Answer(200, {"Content-Type": kind}, body) if "/manifests/" in path else None
            )
        )
        done = docker("pull", f"{front.host}/old:1")
    assert done.code == 1
    assert "schema 1 is not supported" in done.err, str(done)


# Layers


@pytest.mark.parametrize("kind", ["tar", "tar+gzip", "tar+zstd"])
def test_layers_come_in_every_form(
    docker: Cli, registry: Registry, tmp_path: Path, kind: str
) -> None:
    plain = layer([("hello", b"hello\n", {})])
    data = {"tar": plain, "tar+gzip": gzip.compress(plain)}.get(kind) or subprocess.run(
        ["zstd", "-c"], input=plain, capture_output=True, check=True
    ).stdout
    media_type = f"{OCI}.layer.v1.{kind}"
    name = f"{registry.host}/form:1"
    assert docker("load", stdin=oci_archive([data], name, [media_type], plain=[plain])).code == 0
    assert docker("push", name).code == 0
    raw = run(find("skopeo"), "inspect", "--raw", "--tls-verify=false", f"docker://{name}").out
    assert json.loads(raw)["layers"][0]["mediaType"] == media_type
    docker("rmi", name)
    done = docker("pull", name)
    assert done.code == 0, str(done)
    assert docker("create", "--name", "made", name).code == 0
    assert docker("cp", "made:/hello", str(tmp_path / "hello")).code == 0
    docker("rm", "made")
    assert (tmp_path / "hello").read_bytes() == b"hello\n"


@pytest.fixture
def maker(tmp_path: Path) -> Iterator[str]:
    """A web server of somebody who wants nobody to pass his layers on; the URL of its files."""
    (tmp_path / "files").mkdir()

    with contextlib.closing(Folder(tmp_path / "files")) as server:
        yield server.url


def test_foreign_layers_come_from_their_maker_and_are_not_passed_on(
    docker: Cli, engine: EngineProcess, registry: Registry, maker: str, tmp_path: Path
) -> None:
    data = gzip.compress(layer([("foreign", os.urandom(50_000), {})]))
    (tmp_path / "files/layer").write_bytes(data)
    layout = Layout(tmp_path / "foreign")
    image = layout.image("amd64", ("own", b"own\n"))
    manifest = json.loads((layout.folder / "blobs/sha256" / image["digest"][7:]).read_bytes())
    config = json.loads(
        (layout.folder / "blobs/sha256" / manifest["config"]["digest"][7:]).read_bytes()
    )
    digest = hashlib.sha256(data).hexdigest()
    plain = hashlib.sha256(gzip.decompress(data)).hexdigest()
    config["rootfs"]["diff_ids"].append(f"sha256:{plain}")
    manifest["config"] = layout.document(config, manifest["config"]["mediaType"])
    manifest["layers"].append(
        {
            "mediaType": f"{OCI}.layer.nondistributable.v1.tar+gzip",
            "digest": f"sha256:{digest}",
            "size": len(data),
            "urls": [f"{maker}/missing", f"{maker}/layer"],
        }
    )
    layout.finish(layout.document(manifest, manifest["mediaType"]))
    registry.push(layout.folder, "foreign:1")
    name = f"{registry.host}/foreign:1"
    done = docker("pull", name)
    assert done.code == 0, str(done)
    docker("tag", name, f"{registry.host}/passed:1")
    done = docker("push", f"{registry.host}/passed:1")
    assert done.code == 0, str(done)
    assert "Skipped foreign layer" in done.out
    assert not any((tmp_path / "registry").rglob(f"*{digest}*"))
