"""Images go to registries and come back: push, login, private authorities, looking without pulling."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import pty
import subprocess
import termios
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.archives import blobs_of, docker_archive, layer, layers_of, oci_archive, size_of
from support.programs import find, run
from support.registries import PASSWORD, USER, Answer, Authority, Front, Registry
from support.uploads import UploadServer
from support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.engine import EngineProcess
    from support.programs import Outcome

    Cli = Callable[..., Outcome]

pytestmark = pytest.mark.berth_only  # the reference has a loopback of its own
RUN = ("run", "--rm", "--network", "none")
SEE = ("inspect", "--raw", "--tls-verify=false")


@pytest.fixture(params=["docker", "berth"])
def docker(engine: EngineProcess, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Cli]:
    """Each CLI with a configuration of its own; the names that the test gives are taken back."""
    client = engine.docker if request.param == "docker" else engine.berth

    def call(*args: str, **options: object) -> Outcome:
        return client(*args, env={"DOCKER_CONFIG": str(tmp_path / "config")}, **options)

    yield call
    for image in engine.request("GET", "/images/json")[1]:
        for name in [*image["RepoTags"], *image["RepoDigests"]]:
            if name not in ("busybox:latest", "host:latest"):
                engine.request("DELETE", f"/images/{name}")


def image_id(docker: Cli, name: str) -> str:
    done = docker("image", "inspect", "-f", "{{.Id}}", name)
    assert done.code == 0, str(done)
    return done.out.strip()


def test_a_pushed_image_is_the_same_when_pulled_again(docker: Cli, registry: Registry) -> None:
    name = f"{registry.host}/team/box:1"
    docker("tag", "busybox", name)
    id_ = image_id(docker, "busybox")
    done = docker("push", name)
    assert done.code == 0, str(done)
    assert done.lines[0] == f"The push refers to repository [{registry.host}/team/box]"
    assert [line.partition(": ")[2] for line in done.lines[1:3]] == ["Preparing", "Pushed"]
    digest = done.lines[3].split()[2]
    assert done.lines[3].startswith(f"1: digest: {digest} size: ")
    assert docker("rmi", name).code == 0
    assert docker("pull", f"{registry.host}/team/box@{digest}").code == 0
    assert image_id(docker, f"{registry.host}/team/box@{digest}") == id_
    shown = run(find("skopeo"), "inspect", "--tls-verify=false", f"docker://{name}", check=True)
    assert json.loads(shown.out)["Digest"] == digest


def test_run_pulls_when_it_is_told_to(docker: Cli, registry: Registry, busybox_tar: bytes) -> None:
    name = f"{registry.host}/team/versions:1"

    def publish(version: str) -> None:
        change = ("-c", f"ENV VERSION={version}", "-c", "ENV PATH=/bin")
        assert docker("import", *change, "-", name, stdin=busybox_tar).code == 0
        assert docker("push", name).code == 0

    def version(*flags: str) -> Outcome:
        return docker(*RUN, *flags, name, "sh", "-c", "echo $VERSION")

    publish("old")
    docker("rmi", name)
    refused = version("--pull", "never")
    assert (refused.code, refused.out) == (125, "")
    assert f"No such image: {name}" in refused.err
    missing = version("--pull", "missing")
    assert (missing.code, missing.out) == (0, "old\n")
    assert f"Unable to find image '{name}' locally" in missing.err
    publish("newest")
    docker("rmi", name)
    assert version().out == "newest\n"
    docker("import", "-c", "ENV PATH=/bin", "-", name, stdin=busybox_tar)  # something else here
    assert [version(*flags).out for flags in ((), ("--pull", "missing"))] == ["\n"] * 2
    always = version("--pull", "always")
    assert (always.code, always.out) == (0, "newest\n")
    assert "Status: Downloaded newer image for" in always.err
    assert version("--pull", "always", "-q").err == ""


def test_what_a_registry_has_is_not_sent_again(docker: Cli, registry: Registry) -> None:
    for name in ("team/box:1", "team/box:2", "other/box:1"):
        docker("tag", "busybox", f"{registry.host}/{name}")
    assert "Pushed" in docker("push", f"{registry.host}/team/box:1").out
    assert "Layer already exists" in docker("push", f"{registry.host}/team/box:1").out
    every = docker("push", "--all-tags", f"{registry.host}/team/box")
    assert [line[:10] for line in every.lines if "digest:" in line] == ["1: digest:", "2: digest:"]
    assert "Mounted from team/box" in docker("push", f"{registry.host}/other/box:1").out


def test_an_image_that_came_with_a_manifest_leaves_with_the_same(
    docker: Cli, registry: Registry, tmp_path: Path
) -> None:
    skopeo = (find("skopeo"), "--insecure-policy", "copy", "-q", "--dest-tls-verify=false")
    docker("save", "-o", str(tmp_path / "box.tar"), "busybox")
    options = ("--dest-compress-format", "zstd", "--format", "oci")
    there = f"docker://{registry.host}/built/elsewhere:1"
    run(*skopeo, *options, f"docker-archive:{tmp_path}/box.tar", there, check=True)
    pulled = docker("pull", f"{registry.host}/built/elsewhere:1")
    assert pulled.code == 0, str(pulled)
    digest = next(line.split()[1] for line in pulled.lines if line.startswith("Digest:"))
    docker("tag", f"{registry.host}/built/elsewhere:1", f"{registry.host}/moved:1")
    pushed = docker("push", f"{registry.host}/moved:1")
    assert f"1: digest: {digest}" in pushed.out, str(pushed)


def test_private_registries_want_a_password(docker: Cli, private: Registry) -> None:
    name = f"{private.host}/box:1"
    docker("tag", "busybox", name)
    refused = docker("push", name)
    assert refused.code == 1
    assert "no basic auth credentials" in refused.err
    wrong = docker("login", "-u", USER, "--password-stdin", private.host, stdin=b"wrong")
    assert wrong.code == 1
    assert "401 Unauthorized" in wrong.err
    right = docker("login", "-u", USER, "--password-stdin", private.host, stdin=PASSWORD.encode())
    assert right.out.splitlines()[-1] == "Login Succeeded"
    assert docker("push", name).code == 0
    docker("rmi", name)
    assert docker("pull", name).code == 0
    assert docker("logout", private.host).code == 0
    assert docker("push", name).code == 1


def test_unreachable_registries_and_unknown_images_are_said(docker: Cli) -> None:
    docker("tag", "busybox", "127.0.0.1:1/box:1")
    refused = docker("push", "127.0.0.1:1/box:1")
    assert refused.code == 1
    assert "dial tcp 127.0.0.1:1: connect: connection refused" in refused.err
    login = docker("login", "-u", USER, "--password-stdin", "127.0.0.1:1", stdin=b"x")
    assert "connection refused" in login.err
    unknown = docker("push", "127.0.0.1:1/none:1")
    assert unknown.code == 1
    assert "An image does not exist locally with the tag: 127.0.0.1:1/none\n" in unknown.err
    built_in = docker("push", "host")
    assert built_in.code == 1
    assert "the image is built in and never leaves this machine" in built_in.err


def test_what_a_registry_has_is_looked_at_without_pulling(
    docker: Cli, registry: Registry, engine: EngineProcess
) -> None:
    docker("tag", "busybox", f"{registry.host}/box:1")
    docker("push", f"{registry.host}/box:1")
    status, found = engine.request("GET", f"/distribution/{registry.host}/box:1/json")
    assert status == 200
    assert found["Platforms"] == [{"architecture": "amd64", "os": "linux"}]
    assert found["Descriptor"]["mediaType"].endswith("manifest.v2+json")
    status, found = engine.request("GET", f"/distribution/{registry.host}/none:1/json")
    assert status == 404


@pytest.fixture
def encrypted(tmp_path: Path, engine: EngineProcess) -> Iterator[tuple[Registry, Path]]:
    """A registry with a certificate of an unknown authority, not on loopback: on the engine's bridge."""
    find("docker-registry")
    find("openssl")
    gateway = engine.request("GET", "/networks/bridge")[1]["IPAM"]["Config"][0]["Gateway"]
    authority = Authority(tmp_path / "authority")
    registry = Registry(tmp_path / "encrypted", address=gateway, tls=authority)
    yield registry, authority.path
    registry.close()


def test_a_private_authority_is_trusted_by_its_file(
    docker: Cli, encrypted: tuple[Registry, Path]
) -> None:
    registry, authority = encrypted
    name = f"{registry.host}/box:1"
    docker("tag", "busybox", name)
    refused = docker("push", name)
    assert refused.code == 1
    assert "x509: certificate signed by unknown authority" in refused.err
    folder = Path("/etc/docker/certs.d", registry.host)
    folder.mkdir(parents=True)
    try:
        (folder / "ca.crt").write_bytes(authority.read_bytes())
        assert docker("push", name).code == 0
        docker("rmi", name)
        assert docker("pull", name).code == 0
    finally:
        (folder / "ca.crt").unlink(missing_ok=True)
        folder.rmdir()


def test_an_image_that_is_here_in_another_form_is_not_fetched(
    docker: Cli, registry: Registry, tmp_path: Path, engine: EngineProcess
) -> None:
    docker("save", "-o", str(tmp_path / "box.tar"), "busybox")
    there = (f"{registry.host}/box:1", f"{registry.host}/box:2")
    for name in there:
        options = ("-q", "--insecure-policy", "--dest-tls-verify=false", "--dest-compress")
        source = f"docker-archive:{tmp_path}/box.tar"
        run(find("skopeo"), "copy", *options, source, f"docker://{name}", check=True)
    blobs = engine.data_root / "content/blobs/sha256"
    before = {path.name for path in blobs.iterdir()}
    done = docker("pull", "--all-tags", f"{registry.host}/box")
    assert done.code == 0, str(done)
    assert "fs layer" not in done.out
    assert {path.name for path in blobs.iterdir()} == before
    for name in there:
        assert image_id(docker, name) == image_id(docker, "busybox")


@pytest.mark.parametrize("size_mb", [1, 60, 200])
def test_a_pull_that_is_killed_goes_on_with_what_it_had(
    fresh_engine: EngineProcess,
    registry: Registry,
    debian_tar: Path,
    tmp_path: Path,
    size_mb: int,
) -> None:
    engine, name = fresh_engine, f"{registry.host}/debian:1"
    archive = docker_archive([layer([("first", b"first\n", {})]), debian_tar.read_bytes()], "d:1")
    (tmp_path / "debian.tar").write_bytes(archive)
    options = ("-q", "--insecure-policy", "--dest-tls-verify=false")
    source = f"docker-archive:{tmp_path}/debian.tar"
    run(find("skopeo"), "copy", *options, source, f"docker://{name}", check=True)
    before = layers_of(engine)
    start = size_of(engine.data_root)
    command = [find("docker"), "-H", engine.host, "pull", name]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as client:
        wait_for(
            lambda: size_of(engine.data_root) - start >= size_mb << 20,
            "so much is written",
            timeout_s=120,  # the disk has yet to take what the registry was given
        )
        engine.kill()
    assert client.returncode == 1
    engine.start()
    wait_for(lambda: layers_of(engine) == before, "what was half made is gone")
    assert not any((engine.data_root / "content/ingest").iterdir())
    kept = blobs_of(engine)
    done = engine.docker("pull", name)
    assert done.code == 0, str(done)
    assert done.out.count("Already exists") + done.out.count("Download complete") == 2
    assert kept <= blobs_of(engine)
    ran = engine.docker(*RUN, name, "/bin/cat", "/first", "/etc/os-release")
    assert ran.out.startswith("first\n")
    assert "Debian" in ran.out


def test_a_half_blob_goes_on_after_berthd_was_killed(
    fresh_engine: EngineProcess, registry: Registry, front: Front
) -> None:
    engine = fresh_engine
    push_big(engine, registry)
    front.rules += [
        lambda _, headers: Answer(503, {"Retry-After": "600"}) if "Range" in headers else None,
        lambda path, _: Answer(cut_after=3_000_000) if "/blobs/" in path else None,
    ]
    name = f"{front.host}/big:1"
    command = [find("docker"), "-H", engine.host, "pull", name]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
        wait_for(lambda: any("Range" in headers for _, headers in front.requests), "it broke")
        engine.kill()
    engine.start()
    front.rules.clear()
    front.requests.clear()
    done = engine.docker("pull", name)
    assert done.code == 0, str(done)
    ranges = [headers["Range"] for _, headers in front.requests if "Range" in headers]
    assert ranges[0].startswith("bytes=2")
    assert not any((engine.data_root / "content/partial").iterdir())
    assert engine.berth("system", "check").code == 0


def test_what_is_being_pulled_is_not_pruned(
    fresh_engine: EngineProcess, registry: Registry, front: Front
) -> None:
    """Neither what it has, nor blobs and layers that it shares with an image that goes meanwhile."""
    engine = fresh_engine
    parts = [layer([(name, os.urandom(1 << 20), {})]) for name in ("shared", "own", "late")]
    for tag, chosen in (("other", parts[:1]), ("wanted", parts)):
        name = f"{registry.host}/held:{tag}"
        assert engine.docker("load", stdin=docker_archive(chosen, name)).code == 0
        assert engine.docker("push", name).code == 0
        assert engine.docker("rmi", name).code == 0
    engine.docker("image", "prune", "-f")
    assert engine.docker("pull", f"{front.host}/held:other").code == 0
    kept = blobs_of(engine)
    (tree,) = (engine.data_root / "snapshots").glob("*/fs/shared")
    manifest = json.loads(
        run(find("skopeo"), *SEE, f"docker://{registry.host}/held:wanted", check=True).raw
    )
    shared, own, late = (entry["digest"].partition(":")[2] for entry in manifest["layers"])
    pruned = threading.Event()

    def hold_up(path: str, _: dict[str, str]) -> None:
        if path.endswith(late):
            pruned.wait(60)

    front.rules.append(hold_up)
    name = f"{front.host}/held:wanted"
    with subprocess.Popen([find("docker"), "-H", engine.host, "pull", name]) as client:
        try:
            wait_for(lambda: own in blobs_of(engine), "the second blob is there")
            assert engine.docker("rmi", f"{front.host}/held:other").code == 0
            assert engine.docker("image", "prune", "-af").code == 0
            assert {shared, own} <= blobs_of(engine)
            assert kept - blobs_of(engine), "nothing of the other image went"
            assert tree.exists()
        finally:
            pruned.set()
    assert client.returncode == 0
    fetched = [path.rpartition(":")[2] for path, _ in front.requests if "/blobs/" in path]
    assert [fetched.count(digest) for digest in (shared, own, late)] == [1, 1, 1]
    assert list((engine.data_root / "snapshots").glob("*/fs/shared")) == [tree]
    assert engine.docker("create", "--name", "whole", name, "x").code == 0
    assert engine.docker("cp", "whole:/own", "-").code == 0
    assert engine.berth("system", "check").code == 0


def push_big(engine: EngineProcess, registry: Registry) -> None:
    """Put an image of one large layer into a registry, and nothing of it into the engine."""
    big = layer([("first", b"first\n", {}), ("big", os.urandom(4 << 20), {})])
    name = f"{registry.host}/big:1"
    assert engine.docker("load", stdin=docker_archive([big], name)).code == 0
    assert engine.docker("push", name).code == 0
    engine.docker("rmi", name)
    engine.docker("image", "prune", "-f")


def test_a_layer_is_unpacked_while_it_comes(
    fresh_engine: EngineProcess, registry: Registry, front: Front, tmp_path: Path
) -> None:
    engine = fresh_engine
    push_big(engine, registry)
    seen = []

    def wait_for_files(_: str, headers: dict[str, str]) -> None:
        if "Range" in headers:
            snapshots = engine.data_root / "snapshots"
            seen.extend(wait_for(lambda: list(snapshots.glob("partial-*/fs/first")), "it is there"))

    def cut(path: str, headers: dict[str, str]) -> Answer | None:
        return Answer(cut_after=3_000_000) if "/blobs/" in path and "Range" not in headers else None

    front.rules += [wait_for_files, cut]
    done = engine.docker("pull", f"{front.host}/big:1")
    assert done.code == 0, str(done)
    assert seen
    assert done.out.count("Pull complete") == 1
    assert engine.berth("system", "check").code == 0


def test_what_was_unpacked_of_a_layer_that_is_wrong_goes(
    fresh_engine: EngineProcess, registry: Registry, front: Front
) -> None:
    engine = fresh_engine
    push_big(engine, registry)
    before = layers_of(engine)
    front.rules.append(
        lambda path, _: (
            Answer(flip=True)
            if "/blobs/" in path and len([p for p, _ in front.requests if "/blobs/" in p]) > 1
            else None
        )  # the configuration comes first
    )
    done = engine.docker("pull", f"{front.host}/big:1")
    assert done.code == 1
    assert "verification failed for digest" in done.err
    wait_for(lambda: layers_of(engine) == before, "what was half made is gone")
    assert engine.berth("system", "check").code == 0


@pytest.fixture
def uploads() -> Iterator[UploadServer]:
    server = UploadServer()
    yield server
    server.close()


@pytest.mark.parametrize("kills", [False, True])
def test_a_broken_push_goes_on_with_what_has_not_arrived(
    fresh_engine: EngineProcess, uploads: UploadServer, kills: bool
) -> None:
    engine, name = fresh_engine, f"{uploads.host}/big:1"
    big = gzip.compress(layer([("big", os.urandom(4 << 20), {})]), 1)
    assert engine.docker("load", stdin=oci_archive([big], name)).code == 0
    uploads.break_after, uploads.is_busy = 3_000_000, kills
    if kills:
        command = [find("docker"), "-H", engine.host, "push", name]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
            wait_for(lambda: uploads.asked("GET", "/uploads/"), "it broke")
            engine.kill()
        engine.start()
        uploads.is_busy = False
    done = engine.docker("push", name)
    assert done.code == 0, str(done)
    digest = f"sha256:{hashlib.sha256(big).hexdigest()}"
    assert uploads.blobs[digest] == big
    (sent,) = uploads.asked("PATCH", "/uploads/")
    assert sent["Content-Range"] == f"3000000-{len(big) - 1}"
    assert list(uploads.manifests) == ["/v2/big/manifests/1"]


def test_a_terminal_is_shown_bars(
    engine: EngineProcess, docker: Cli, registry: Registry, debian_tar: Path
) -> None:
    name = f"{registry.host}/debian:bars"
    assert docker("import", str(debian_tar), name).code == 0
    pushed = on_terminal(engine, "push", name)
    assert "Pushing" in pushed
    docker("rmi", name)
    docker("image", "prune", "-f")
    pulled = on_terminal(engine, "pull", name)
    assert "[=" in pulled
    assert "Extracting" in pulled
    assert "Pull complete" in pulled


def on_terminal(engine: EngineProcess, *args: str) -> str:
    """Run the docker CLI on a terminal; return what it drew."""
    parent, child = pty.openpty()
    termios.tcsetwinsize(child, (40, 160))
    drawn = []
    with subprocess.Popen(
        [find("docker"), "-H", engine.host, *args], stdin=child, stdout=child, stderr=child
    ) as process:
        os.close(child)
        with contextlib.suppress(OSError):  # the other end is closed
            while data := os.read(parent, 65536):
                drawn.append(data)
    os.close(parent)
    text = b"".join(drawn).decode(errors="replace")
    assert process.returncode == 0, text
    return text


def test_many_small_layers_are_pulled_whole(
    fresh_engine: EngineProcess, registry: Registry
) -> None:
    engine, name = fresh_engine, f"{registry.host}/many:1"
    parts = [layer([(f"l{n}", b"%d" % n, {}), ("top", b"%d" % n, {})]) for n in range(40)]
    assert engine.docker("load", stdin=docker_archive(parts, name)).code == 0
    assert engine.docker("push", name).code == 0
    engine.docker("rmi", name)
    engine.docker("image", "prune", "-f")
    done = engine.docker("pull", name)
    assert done.code == 0, str(done)
    assert done.out.count("Pull complete") == 40
    assert engine.berth("system", "check").code == 0
    folders = {path.name for path in (engine.data_root / "snapshots").iterdir()}
    assert not [name for name in folders if name.startswith("partial-")]
