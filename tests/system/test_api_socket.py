"""`--use-api-socket`: a container drives the engine that it runs in, with the client's credentials."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import pytest

from support.engine import EngineProcess
from support.programs import find
from system.conftest import clean, running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.programs import Outcome

    Cli = Callable[..., Outcome]

RUN = ("run", "--rm", "--network", "none", "--use-api-socket")
ASK = """
import socket
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect("/var/run/docker.sock")
    connection.sendall(b"GET /_ping HTTP/1.0\\r\\n\\r\\n")
    print(connection.makefile().read())
"""
SHOW = "stat -c %a $DOCKER_CONFIG/config.json; cat $DOCKER_CONFIG/config.json"
AUTH = base64.b64encode(b"cook:secret").decode()
ENTRIES = {"registry.test": {"auth": AUTH}, "token.test": {"identitytoken": "abc"}}

pytestmark = pytest.mark.berth_only


@pytest.fixture(scope="module")
def module_engine(
    tmp_path_factory: pytest.TempPathFactory, busybox_tar: bytes
) -> Iterator[EngineProcess]:
    """An engine that finds its own socket where the docker CLI says that it is."""
    layer = tmp_path_factory.mktemp("run")
    mount = f'mount -t overlay -o ro,lowerdir={layer}:/run overlay /run && exec "$@"'
    engine = EngineProcess(prefix=(find("unshare"), "--mount", "sh", "-ec", mount, "sh"))
    (layer / "docker.sock").symlink_to(engine.socket)
    with running(engine, busybox_tar):
        yield engine


@pytest.fixture
def engine(module_engine: EngineProcess) -> Iterator[EngineProcess]:
    yield module_engine
    clean(module_engine)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the clients' configuration."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.delenv("DOCKER_AUTH_CONFIG", raising=False)
    return tmp_path


def test_the_engine_answers_in_the_container(cli: Cli, home: Path) -> None:
    done = cli(*RUN, "host", "python3", "-c", ASK)
    assert done.code == 0, str(done)
    assert done.out.startswith("HTTP/1.")
    assert done.out.rstrip().endswith("OK")


def test_credentials_are_where_clients_look(cli: Cli, home: Path) -> None:
    (home / "config.json").write_text(json.dumps({"auths": ENTRIES}))
    done = cli(*RUN, "busybox", "sh", "-c", SHOW)
    assert done.code == 0, str(done)
    assert done.lines[0] == "600"
    assert json.loads("".join(done.lines[1:])) == {"auths": ENTRIES}


def test_credentials_of_a_variable_go_before_those_that_are_kept(
    cli: Cli, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "config.json").write_text(json.dumps({"auths": ENTRIES}))
    given = {"auths": {"other.test": {"auth": AUTH}}}
    monkeypatch.setenv("DOCKER_AUTH_CONFIG", json.dumps(given))
    done = cli(*RUN, "busybox", "sh", "-c", SHOW)
    assert json.loads("".join(done.lines[1:])) == given, str(done)
    monkeypatch.setenv("DOCKER_AUTH_CONFIG", "{")
    done = cli(*RUN, "busybox", "true")
    assert (done.code, "DOCKER_AUTH_CONFIG" in done.err) == (125, True), str(done)


def test_without_credentials_or_with_a_folder_of_its_own_there_is_no_file(
    cli: Cli, home: Path
) -> None:
    show = (
        "busybox",
        "sh",
        "-c",
        "ls /run/secrets; echo $DOCKER_CONFIG; test -S /var/run/docker.sock",
    )
    plain = cli(*RUN, *show)
    assert (plain.code, plain.out) == (0, "\n"), str(plain)
    (home / "config.json").write_text(json.dumps({"auths": ENTRIES}))
    own = cli(*RUN, "-e", "DOCKER_CONFIG=/work", *show)
    assert (own.code, own.out) == (0, "/work\n"), str(own)
