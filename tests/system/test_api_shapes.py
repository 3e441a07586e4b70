"""Responses of the engine against the Engine API's schemas."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from support.schemas import check, check_error

if TYPE_CHECKING:
    from support.engine import EngineProcess

pytestmark = pytest.mark.berth_only  # an older Docker answers what its own description says


@pytest.fixture
def container(engine: EngineProcess) -> str:
    """A running container with ports, labels, a volume, a tmpfs and limits; its id."""
    body = {
        "Image": "busybox",
        "Cmd": ["sh", "-c", "echo out; echo err >&2; exec sleep 1000"],
        "Labels": {"a": "b"},
        "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
        "Volumes": {"/anonymous": {}},
        "HostConfig": {
            "Memory": 64 << 20,
            "NanoCpus": 500_000_000,
            "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1"}]},
            "Tmpfs": {"/scratch": "size=1m"},
            "Binds": ["/tmp:/host:ro"],
            "Ulimits": [{"Name": "nofile", "Soft": 100, "Hard": 200}],
            "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 1},
        },
    }
    status, made = engine.request("POST", "/containers/create?name=shaped", body)
    check(made, "post", "/containers/create", status)
    assert engine.request("POST", "/containers/shaped/start")[0] == 204
    return str(made["Id"])  # type: ignore[index]


@pytest.mark.parametrize(
    "path",
    [
        "/containers/{id}/json",
        "/containers/{id}/top",
        "/containers/{id}/stats?stream=false&one-shot=true",
        "/containers/json?all=1",
        "/containers/json?size=1",
    ],
)
def test_documents_about_a_container_are_as_described(
    engine: EngineProcess, container: str, path: str
) -> None:
    status, document = engine.request("GET", path.format(id=container))
    assert status == 200, document
    check(document, "get", path.partition("?")[0])


@pytest.mark.parametrize(
    ("path", "operation"),
    [
        ("/info", "/info"),
        ("/version", "/version"),
        ("/system/df", "/system/df"),
        ("/images/json", "/images/json"),
        ("/images/busybox/json", "/images/{name}/json"),
        ("/images/busybox/history", "/images/{name}/history"),
        ("/networks", "/networks"),
        ("/networks/bridge", "/networks/{id}"),
        ("/networks/none", "/networks/{id}"),
        ("/volumes", "/volumes"),
    ],
)
def test_documents_about_the_engine_are_as_described(
    engine: EngineProcess, container: str, path: str, operation: str
) -> None:
    assert container
    status, document = engine.request("GET", path)
    assert status == 200, document
    check(document, "get", operation)


def test_an_exec_is_as_described(engine: EngineProcess, container: str) -> None:
    status, made = engine.request("POST", f"/containers/{container}/exec", {"Cmd": ["true"]})
    check(made, "post", "/containers/{id}/exec", status)
    assert isinstance(made, dict)
    status, document = engine.request("GET", f"/exec/{made['Id']}/json")
    assert (status, document["ExitCode"]) == (200, None)  # type: ignore[index]
    check(document, "get", "/exec/{id}/json")


def test_events_are_as_described(engine: EngineProcess, container: str) -> None:
    _, info = engine.request("GET", "/info")
    assert isinstance(info, dict)
    _, _, data = engine.exchange("GET", f"/events?since=1&until={info['SystemTime']}")
    events = [json.loads(line) for line in data.splitlines()]
    assert {"create", "start"} <= {e["Action"] for e in events if e["Actor"]["ID"] == container}
    for event in events:
        check(event, "get", "/events")


def test_what_ended_is_as_described(engine: EngineProcess) -> None:
    status, made = engine.request(
        "POST", "/containers/create", {"Image": "busybox", "Cmd": ["false"]}
    )
    assert status == 201
    assert isinstance(made, dict)
    path = f"/containers/{made['Id']}"
    assert engine.request("POST", f"{path}/start")[0] == 204
    status, waited = engine.request("POST", f"{path}/wait")
    check(waited, "post", "/containers/{id}/wait", status)
    status, document = engine.request("GET", f"{path}/json")
    check(document, "get", "/containers/{id}/json", status)
    limits = {"Memory": 32 << 20, "MemorySwap": 64 << 20}
    status, updated = engine.request("POST", f"{path}/update", limits)
    check(updated, "post", "/containers/{id}/update", status)
    status, pruned = engine.request("POST", "/containers/prune")
    check(pruned, "post", "/containers/prune", status)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/containers/nobody/json", 404),
        ("GET", "/nowhere", 404),
        ("POST", "/containers/create", 400),
        ("GET", "/v1.3/info", 400),
        ("GET", "/containers/json?filters=x", 400),
        ("POST", "/swarm/leave", 503),
        ("GET", "/plugins/x/json", 404),
    ],
)
def test_errors_are_as_described(
    engine: EngineProcess, method: str, path: str, status: int
) -> None:
    found, document = engine.request(method, path)
    assert found == status
    check_error(document)
