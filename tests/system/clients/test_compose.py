"""The current `docker compose`, with a project of what it has."""

from __future__ import annotations

import json
import urllib.request
from typing import TYPE_CHECKING

import pytest

from support.programs import run
from system.clients.conftest import PROGRAMS, client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.engine import EngineProcess
    from support.programs import Outcome

    Compose = Callable[..., Outcome]


@pytest.fixture
def compose(environment: dict[str, str], request: pytest.FixtureRequest) -> Iterator[Compose]:
    """Run compose with a project, that of `compose.yaml` unless said, which is gone afterwards."""
    program = client("debian", "usr", "libexec", "docker", "cli-plugins", "docker-compose")
    file = str(PROGRAMS / getattr(request, "param", "compose.yaml"))

    def run_compose(*args: str) -> Outcome:
        return run(program, "-f", file, *args, env={**environment, "TOKEN": "secret\n"})

    yield run_compose
    assert run_compose("down", "-v", "--remove-orphans").code == 0


def test_a_project_comes_up_in_order_and_goes_without_a_trace(
    compose: Compose, engine: EngineProcess, tmp_path: Path
) -> None:
    up = compose("up", "-d", "--wait")
    assert up.code == 0, str(up)
    logged = compose("logs", "--no-log-prefix", "web").lines
    assert logged == ["secret", "welcome", "stored"]
    limits = engine.inspect("shop-web-1")["HostConfig"]
    assert (limits["Memory"], limits["NanoCpus"]) == (64 << 20, 500_000_000)
    states = [json.loads(line) for line in compose("ps", "-a", "--format", "json").lines]
    assert {s["Service"]: (s["State"], s["Health"]) for s in states} == {
        "store": ("running", "healthy"),
        "web": ("running", ""),
    }
    address = compose("port", "store", "8000").out.strip()
    with urllib.request.urlopen(f"http://{address}/data") as answer:
        assert answer.read() == b"stored\n"
    assert compose("exec", "-T", "web", "sh", "-c", "echo $COLOUR").out == "blue\n"
    assert compose("run", "--rm", "-T", "web", "echo", "once").out == "once\n"
    assert compose("cp", "store:/www/data", str(tmp_path / "got")).code == 0
    assert (tmp_path / "got").read_text() == "stored\n"
    assert "httpd" in compose("top", "store").out

    again = compose("up", "-d", "--scale", "web=2")
    assert "shop-web-2  Started" in again.err
    assert "Container shop-store-1  Running" in again.err
    for verb in ("pause", "unpause", "restart", "stop", "start", "kill"):
        assert compose(verb, "web").code == 0, verb
    down = compose("down", "-v")
    assert down.code == 0
    for kind in ("container", "volume", "network"):
        assert "shop" not in engine.docker(kind, "ls", *(["-a"] if kind == "container" else [])).out


@pytest.mark.parametrize("compose", ["networks.yaml"], indirect=True)
def test_two_networks_meet_in_one_service(compose: Compose, engine: EngineProcess) -> None:
    up = compose("up", "-d", "--wait")
    assert up.code == 0, str(up)

    def ask(service: str, *words: str) -> str:
        return compose("exec", "-T", service, *words).out

    fetch = ("wget", "-qO-")
    assert ask("visitor", *fetch, "http://bakery:8000/sign") == "open\n"
    assert ask("visitor", *fetch, "http://[2001:db8:21::77]:8000/sign") == "open\n"
    assert ask("store", *fetch, "http://shop:8000/sign") == "open\n"
    assert compose("exec", "-T", "visitor", "ping", "-c", "1", "-W", "1", "store").code != 0
    assert "default" not in ask("store", "ip", "route")
    assert "default via 10.99.21.254" in ask("shop", "ip", "route")
    assert ask("store", "cat", "/sys/class/net/eth0/address") == "02:00:00:00:21:05\n"
    address = compose("port", "shop", "8000").out.strip()
    with urllib.request.urlopen(f"http://{address}/sign") as answer:
        assert answer.read() == b"open\n"
    shown = engine.inspect("town-shop-1")["NetworkSettings"]["Networks"]
    assert shown["town_front"]["GlobalIPv6Address"] == "2001:db8:21::77"
    assert "bakery" in shown["town_front"]["Aliases"]
    assert compose("down").code == 0
    assert "town" not in engine.docker("network", "ls").out
