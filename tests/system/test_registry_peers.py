"""One image through berth, podman, dockerd and skopeo by a registry: everybody sees the same digests."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import tempfile
from typing import TYPE_CHECKING

import pytest

from support.archives import docker_archive, layer
from support.programs import PATH, find, run
from support.registries import Registry
from support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.engine import EngineProcess
    from support.programs import Outcome

    Caller = Callable[..., Outcome]

pytestmark = [pytest.mark.peers, pytest.mark.berth_only]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    find("docker-registry")
    registry = Registry(tmp_path_factory.mktemp("peers") / "registry")
    yield registry
    registry.close()


@pytest.fixture(scope="module")
def podman() -> Iterator[Caller]:
    """Podman with a store of its own."""
    with tempfile.TemporaryDirectory(prefix="bp-") as base:  # podman takes short run roots only
        command = (
            *(find("podman"), "--root", f"{base}/r", "--runroot", f"{base}/rr"),
            *("--tmpdir", f"{base}/t", "--storage-driver", "vfs", "--events-backend", "none"),
        )

        def call(verb: str, *args: str, **options: object) -> Outcome:
            over_http = ("--tls-verify=false",) if verb in ("push", "pull") else ()
            return run(*command, verb, *over_http, *args, **options)

        yield call
        run("umount", "-R", "-l", f"{base}/r")


@pytest.fixture(scope="module")
def dockerd() -> Iterator[Caller]:
    """Docker with a dockerd of its own, which sets up no network: the registry is on the host's loopback."""
    with tempfile.TemporaryDirectory(prefix="bd-") as base:
        host = f"unix://{base}/docker.sock"
        with open(f"{base}/log", "wb") as log:
            daemon = subprocess.Popen(
                [
                    *(find("dockerd"), "-H", host, "--data-root", f"{base}/data"),
                    *("--exec-root", f"{base}/exec", "--pidfile", f"{base}/pid"),
                    *("--bridge", "none", "--iptables=false", "--ip-forward=false"),
                    *("--ip-masq=false", "--storage-driver", "vfs"),
                ],
                stdout=log,
                stderr=log,
                env={**os.environ, "PATH": PATH},
                start_new_session=True,
            )

        def call(*args: str, **options: object) -> Outcome:
            return run(find("docker"), "-H", host, *args, **options)

        try:
            wait_for(lambda: call("version").code == 0, "dockerd answers", timeout_s=60)
            yield call
        finally:
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(60)
            run("umount", "-R", "-l", f"{base}/data")


@pytest.fixture
def berth(engine: EngineProcess) -> Iterator[Caller]:
    yield engine.docker
    for image in engine.request("GET", "/images/json")[1]:
        for name in [*image["RepoTags"], *image["RepoDigests"]]:
            if name not in ("busybox:latest", "host:latest"):
                engine.request("DELETE", f"/images/{name}")


def archive(tmp_path: Path, words: str) -> str:
    """Make an image of three layers, one of which hides what is below; return its file's name."""
    parts = [
        layer([("etc/one", words.encode(), {}), ("gone", b"gone\n", {})]),
        layer([("two", b"two\n" * 5000, {}), (".wh.gone", b"", {})]),
        layer([("etc/one", b"again\n", {})]),
    ]
    path = tmp_path / "image.tar"
    path.write_bytes(docker_archive(parts, "peers:1"))
    return str(path)


def raw(name: str, *flags: str) -> bytes:
    """Return a manifest or a configuration as skopeo gets it."""
    return run(
        find("skopeo"),
        "inspect",
        "--raw",
        *flags,
        "--tls-verify=false",
        f"docker://{name}",
        check=True,
    ).raw


def image_id(caller: Caller, name: str) -> str:
    id_ = caller("image", "inspect", "-f", "{{.Id}}", name).out.strip()
    return id_.removeprefix("sha256:")


PEERS = ("berth", "podman", "dockerd")


@pytest.mark.parametrize("first", PEERS)
def test_what_one_pushes_is_the_same_for_all(
    request: pytest.FixtureRequest, registry: Registry, tmp_path: Path, first: str
) -> None:
    """It is pulled by all, by digest and by tag, and pushed on by berth."""
    callers = {name: request.getfixturevalue(name) for name in PEERS}
    name = f"{registry.host}/from-{first}:1"
    made = callers[first]
    assert made("load", "-i", archive(tmp_path, first)).code == 0
    loaded = "localhost/peers:1" if first == "podman" else "peers:1"
    assert made("tag", loaded, name).code == 0
    assert made("push", name).code == 0
    manifest = raw(name)
    digest = "sha256:" + hashlib.sha256(manifest).hexdigest()
    id_ = hashlib.sha256(raw(name, "--config")).hexdigest()
    assert json.loads(manifest)["config"]["digest"] == f"sha256:{id_}"
    assert image_id(made, name) == id_
    for which, caller in callers.items():
        if which != first:
            by_digest = f"{registry.host}/from-{first}@{digest}"
            assert caller("pull", by_digest).code == 0, which
            assert image_id(caller, by_digest) == id_, which
            done = caller("pull", name)
            assert done.code == 0, f"{which}: {done}"
        assert image_id(caller, name) == id_, which
        if which != first or which != "podman":  # it shows its own of what it has pushed
            digests = caller("image", "inspect", "-f", "{{json .RepoDigests}}", name).out
            assert f"{registry.host}/from-{first}@{digest}" in json.loads(digests), which
    # Whoever made it, it leaves berth with the same bytes.
    again = f"{registry.host}/again-{first}:1"
    assert callers["berth"]("tag", name, again).code == 0
    assert callers["berth"]("push", again).code == 0
    assert raw(again) == manifest
    for caller in callers.values():
        caller("rmi", "-f", name)
