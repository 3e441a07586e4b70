"""How registries are reached: mirrors and rewrites, certificates, tokens, credential helpers, proxies."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.registries import (
    PASSWORD,
    USER,
    Answer,
    Authority,
    Front,
    Registry,
    TokenServer,
    basic,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.engine import EngineProcess
    from support.programs import Outcome

    Cli = Callable[..., Outcome]

pytestmark = pytest.mark.berth_only
DOMAIN = "images.invalid"


@pytest.fixture(params=["docker", "berth"])
def docker(engine: EngineProcess, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Cli]:
    """Each CLI with a configuration of its own; the names that the test gives are taken back."""
    client = engine.docker if request.param == "docker" else engine.berth

    def call(*args: str, **options: object) -> Outcome:
        path = f"{tmp_path}/bin:{os.environ['PATH']}"
        return client(
            *args, env={"DOCKER_CONFIG": str(tmp_path / "config"), "PATH": path}, **options
        )

    yield call
    for image in engine.request("GET", "/images/json")[1]:
        for name in [*image["RepoTags"], *image["RepoDigests"]]:
            if name not in ("busybox:latest", "host:latest"):
                engine.request("DELETE", f"/images/{name}")


@pytest.fixture
def configure() -> Iterator[Callable[..., Path]]:
    """Write a registry's hosts.toml; its folder goes afterwards."""
    with contextlib.ExitStack() as undo:

        def write(domain: str, text: str) -> Path:
            folder = Path("/etc/berth/certs.d", domain)
            folder.mkdir(parents=True)
            undo.callback(shutil.rmtree, folder)
            (folder / "hosts.toml").write_text(text)
            return folder

        yield write
    with contextlib.suppress(OSError):
        os.removedirs("/etc/berth/certs.d")


def fill(docker: Cli, registry: Registry, *names: str) -> None:
    for name in names:
        docker("tag", "busybox", f"{registry.host}/{name}")
        assert docker("push", f"{registry.host}/{name}").code == 0
        docker("rmi", f"{registry.host}/{name}")


# hosts.toml


def test_a_mirror_is_asked_before_the_registry(
    docker: Cli, registry: Registry, front: Front, configure: Callable[..., Path]
) -> None:
    fill(docker, registry, "box:1")
    configure(DOMAIN, f'server = "http://{registry.host}"\n[host."http://{front.host}"]\n')
    done = docker("pull", f"{DOMAIN}/box:1")
    assert done.code == 0, str(done)
    assert f"Downloaded newer image for {DOMAIN}/box:1" in done.out
    assert any("/box/manifests/1" in path for path, _ in front.requests)
    assert docker("image", "inspect", f"{DOMAIN}/box:1").code == 0


def test_a_mirror_that_fails_or_lacks_it_is_passed_over(
    docker: Cli, registry: Registry, front: Front, configure: Callable[..., Path]
) -> None:
    fill(docker, registry, "box:1")
    front.rules.append(lambda path, _: Answer(404) if "/manifests/" in path else None)
    mirrors = f'[host."http://127.0.0.1:1"]\n[host."http://{front.host}"]\n'
    configure(DOMAIN, f'server = "http://{registry.host}"\n{mirrors}')
    done = docker("pull", f"{DOMAIN}/box:1")
    assert done.code == 0, str(done)
    assert front.requests


def test_paths_are_rewritten_and_headers_sent_to_that_place_only(
    docker: Cli, registry: Registry, front: Front, configure: Callable[..., Path]
) -> None:
    fill(docker, registry, "cache/box:1")
    front.rules.append(
        lambda path, _: (
            Answer(307, {"Location": f"http://{registry.host}{path}"})
            if "/blobs/" in path
            else None
        )
    )
    configure(
        DOMAIN,
        f'[host."http://{front.host}/v2/cache"]\noverride_path = true\n'
        f'[host."http://{front.host}/v2/cache".header]\nx-key = "secret"\n',
    )
    done = docker("pull", f"{DOMAIN}/box:1")
    assert done.code == 0, str(done)
    manifests = [headers for path, headers in front.requests if path == "/v2/cache/box/manifests/1"]
    assert manifests
    assert {headers.get("x-key") for _, headers in front.requests} == {"secret"}


def test_only_places_that_may_are_pushed_to(
    docker: Cli, registry: Registry, front: Front, configure: Callable[..., Path]
) -> None:
    configure(
        DOMAIN,
        f'server = "http://{registry.host}"\n'
        f'[host."http://{front.host}"]\ncapabilities = ["pull", "resolve"]\n',
    )
    docker("tag", "busybox", f"{DOMAIN}/box:1")
    done = docker("push", f"{DOMAIN}/box:1")
    assert done.code == 0, str(done)
    assert not front.requests


def test_tags_are_resolved_only_where_that_is_said(
    docker: Cli, registry: Registry, front: Front, configure: Callable[..., Path]
) -> None:
    fill(docker, registry, "box:1")
    configure(
        DOMAIN,
        f'server = "http://{registry.host}"\n'
        f'[host."http://{front.host}"]\ncapabilities = ["pull"]\n',
    )
    assert docker("pull", f"{DOMAIN}/box:1").code == 0
    assert not front.requests
    shown = json.loads(docker("image", "inspect", f"{DOMAIN}/box:1").out)[0]["RepoDigests"]
    digest = next(name for name in shown if name.startswith(DOMAIN))
    assert docker("pull", digest).code == 0
    assert front.requests


def test_a_mirror_gets_no_password(
    docker: Cli, registry: Registry, front: Front, configure: Callable[..., Path], tmp_path: Path
) -> None:
    fill(docker, registry, "box:1")
    with contextlib.closing(Registry(tmp_path / "private", password=True)) as private:
        name = private.host
        configure(
            name,
            f'server = "http://{name}"\n'
            f'[host."http://{front.host}"]\ncapabilities = ["pull", "resolve"]\n',
        )
        done = docker("login", "-u", USER, "--password-stdin", name, stdin=PASSWORD.encode())
        assert done.code == 0, str(done)
        assert docker("pull", f"{name}/box:1").code == 0
        assert front.requests
        assert all("Authorization" not in headers for _, headers in front.requests)
        docker("tag", "busybox", f"{name}/box:2")
        assert docker("push", f"{name}/box:2").code == 0


def test_a_server_for_all_registries_gets_none_of_their_passwords(
    docker: Cli, registry: Registry, front: Front, configure: Callable[..., Path], tmp_path: Path
) -> None:
    fill(docker, registry, "box:1")
    challenge = {"WWW-Authenticate": f'Bearer realm="http://{front.host}/token",service="s"'}
    front.rules += [
        lambda path, _: Answer(200, body=b'{"token": "t"}') if "/token" in path else None,
        lambda _, headers: None if "Authorization" in headers else Answer(401, challenge),
    ]
    with contextlib.closing(Registry(tmp_path / "private", password=True)) as private:
        configure("_default", f'server = "http://{front.host}"\n')
        name = private.host
        done = docker("login", "-u", USER, "--password-stdin", name, stdin=PASSWORD.encode())
        assert done.code == 0, str(done)
        assert docker("pull", f"{name}/box:1").code == 0
        shown = {headers.get("Authorization") for _, headers in front.requests}
        assert shown == {None, "Bearer t"}


def test_a_damaged_file_is_named(docker: Cli, configure: Callable[..., Path]) -> None:
    folder = configure(DOMAIN, "[host\n")
    done = docker("pull", f"{DOMAIN}/box:1")
    assert done.code == 1
    assert f"read {folder}/hosts.toml" in done.err


# Certificates


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[tuple[Registry, Authority]]:
    """A registry that wants to see a certificate."""
    authority = Authority(tmp_path / "authority")
    registry = Registry(tmp_path / "guarded", address="127.0.0.1", tls=authority, clients=authority)
    with contextlib.closing(registry):
        yield registry, authority


@pytest.mark.parametrize("convention", ["files", "hosts.toml"])
def test_a_client_certificate_opens_a_registry(
    docker: Cli,
    guarded: tuple[Registry, Authority],
    configure: Callable[..., Path],
    convention: str,
    tmp_path: Path,
) -> None:
    registry, authority = guarded
    name = f"{registry.host}/box:1"
    docker("tag", "busybox", name)
    refused = docker("push", name)
    assert refused.code == 1
    certificate, key = authority.identity("client")
    if convention == "files":
        folder = Path("/etc/docker/certs.d", registry.host)
        folder.mkdir(parents=True)
        for source, target in (
            (authority.path, "ca.crt"),
            (certificate, "client.cert"),
            (key, "client.key"),
        ):
            shutil.copy(source, folder / target)
    else:
        folder = configure(
            registry.host,
            f'server = "https://{registry.host}"\nca = "{authority.path}"\n'
            f'client = [["{certificate}", "{key}"]]\n',
        )
    try:
        done = docker("push", name)
        assert done.code == 0, str(done)
        docker("rmi", name)
        assert docker("pull", name).code == 0
    finally:
        if convention == "files":
            shutil.rmtree(folder)


def test_a_key_that_is_missing_is_named(docker: Cli, guarded: tuple[Registry, Authority]) -> None:
    registry, authority = guarded
    folder = Path("/etc/docker/certs.d", registry.host)
    folder.mkdir(parents=True)
    try:
        shutil.copy(authority.identity("client")[0], folder / "client.cert")
        done = docker("pull", f"{registry.host}/box:1")
        assert done.code == 1
        assert "missing key client.key for client certificate client.cert" in done.err
    finally:
        shutil.rmtree(folder)


# Tokens


@pytest.fixture
def tokens(tmp_path: Path) -> Iterator[TokenServer]:
    with contextlib.closing(TokenServer(Authority(tmp_path / "issuer"))) as server:
        yield server


@pytest.fixture
def tokened(tmp_path: Path, tokens: TokenServer) -> Iterator[Registry]:
    with contextlib.closing(Registry(tmp_path / "tokened", tokens=tokens)) as registry:
        yield registry


def test_a_push_asks_for_a_token_and_a_pull_needs_no_password(
    docker: Cli, tokened: Registry, tokens: TokenServer
) -> None:
    name = f"{tokened.host}/team/box:1"
    docker("tag", "busybox", name)
    refused = docker("push", name)
    assert refused.code == 1
    assert "denied" in refused.err
    wrong = docker("login", "-u", USER, "--password-stdin", tokened.host, stdin=b"wrong")
    assert wrong.code == 1
    right = docker("login", "-u", USER, "--password-stdin", tokened.host, stdin=PASSWORD.encode())
    assert right.code == 0, str(right)
    tokens.asked.clear()
    done = docker("push", name)
    assert done.code == 0, str(done)
    query, header = tokens.asked[-1]
    assert header == basic(USER, PASSWORD)
    assert query["scope"] == ["repository:team/box:pull,push"]
    assert query["service"] == ["test"]
    docker("tag", "busybox", f"{tokened.host}/other/box:1")
    mounted = docker("push", f"{tokened.host}/other/box:1")
    assert "Mounted from team/box" in mounted.out, str(mounted)
    docker("logout", tokened.host)
    docker("rmi", name)
    assert docker("pull", name).code == 0
    assert tokens.asked[-1][1] == ""


# Credential helpers

HELPER = """#!/usr/bin/env python3
import json, os, sys
path = os.path.join(os.path.dirname(__file__), "kept.json")
kept = json.load(open(path)) if os.path.exists(path) else {}
text = sys.stdin.read().strip()
if sys.argv[1] == "store":
    entry = json.loads(text)
    kept[entry["ServerURL"]] = entry
elif sys.argv[1] == "erase":
    kept.pop(text, None)
elif text not in kept:
    print("credentials not found in native keychain")
    sys.exit(1)
else:
    print(json.dumps(kept[text]))
json.dump(kept, open(path, "w"))
"""


@pytest.mark.parametrize("key", ["credsStore", "credHelpers"])
def test_helpers_keep_credentials(docker: Cli, tmp_path: Path, key: str) -> None:
    with contextlib.closing(Registry(tmp_path / "private", password=True)) as private:
        (tmp_path / "bin").mkdir()
        helper = tmp_path / "bin/docker-credential-test"
        helper.write_text(HELPER)
        helper.chmod(0o755)
        (tmp_path / "config").mkdir()
        value = "test" if key == "credsStore" else {private.host: "test"}
        (tmp_path / "config/config.json").write_text(json.dumps({key: value}))
        name = f"{private.host}/box:1"
        docker("tag", "busybox", name)
        assert docker("push", name).code == 1
        done = docker(
            "login", "-u", USER, "--password-stdin", private.host, stdin=PASSWORD.encode()
        )
        assert done.code == 0, str(done)
        assert "unencrypted" not in done.err
        kept = json.loads((tmp_path / "bin/kept.json").read_text())
        assert kept[private.host]["Secret"] == PASSWORD
        assert PASSWORD not in (tmp_path / "config/config.json").read_text()
        done = docker("push", name)
        assert done.code == 0, str(done)
        assert docker("logout", private.host).code == 0
        assert json.loads((tmp_path / "bin/kept.json").read_text()) == {}
        assert docker("push", name).code == 1
