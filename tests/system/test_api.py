"""The Engine API as a client that is old, odd, broken or hostile meets it."""

from __future__ import annotations

import json
import shutil
import socket
from typing import TYPE_CHECKING

import pytest

from support.waiting import wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from support.engine import EngineProcess

pytestmark = pytest.mark.berth_only  # dockerd 20.10 has other versions and words

IDLE_CLIENTS = 2000


def talk(path: Path, data: bytes) -> bytes:
    """Send bytes to the engine and return what it says until it has nothing more to say."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(60)
        sock.connect(str(path))
        try:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
        except BrokenPipeError:  # refused while it was sent
            pass
        parts = []
        while part := sock.recv(65536):
            parts.append(part)
        return b"".join(parts)


def request(method: str, path: str, *headers: str, body: bytes = b"") -> bytes:
    """Return a request as it goes over the wire."""
    lines = [f"{method} {path} HTTP/1.1", "Host: docker", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def memory_kib(pid: int) -> int:
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


def refusal(engine: EngineProcess, method: str, path: str, body: object = None) -> tuple[int, str]:
    status, document = engine.request(method, path, body)
    assert isinstance(document, dict), document
    return status, str(document["message"])


@pytest.mark.parametrize("version", ["", "/v1.24", "/v1.40", "/v1.44", "/v1.51", "/v1.56"])
def test_every_version_from_the_oldest_to_the_newest_is_answered(
    engine: EngineProcess, version: str
) -> None:
    for path in ("/info", "/version", "/containers/json", "/_ping"):
        status, headers, _ = engine.exchange("GET", version + path)
        assert status == 200
        assert headers["Api-Version"] == "1.56"
        assert headers["Ostype"] == "linux"
        assert headers["Docker-Experimental"] == str(bool(shutil.which("criu"))).lower()
        assert headers["Server"].startswith("berth/")


def test_other_versions_are_refused_in_dockers_words(engine: EngineProcess) -> None:
    for version in ("1.23", "1", "0.9"):
        assert refusal(engine, "GET", f"/v{version}/info") == (
            400,
            f"client version {version} is too old. Minimum supported API version is 1.24, please"
            " upgrade your client to a newer version",
        )
    for version in ("1.57", "2.0", "9" * 400):
        assert refusal(engine, "GET", f"/v{version}/info") == (
            400,
            f"client version {version} is too new. Maximum supported API version is 1.56",
        )


def test_a_ping_says_how_to_talk(engine: EngineProcess) -> None:
    status, headers, body = engine.exchange("GET", "/_ping")
    assert (status, body) == (200, b"OK")
    assert headers["Content-Type"] == "text/plain; charset=utf-8"
    assert headers["Cache-Control"] == "no-cache, no-store, must-revalidate"
    assert (headers["Pragma"], headers["Swarm"]) == ("no-cache", "inactive")
    status, headers, body = engine.exchange("HEAD", "/_ping")
    assert (status, body, headers["Content-Length"]) == (200, b"", "0")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/nowhere"),
        ("GET", "/v1.44/nowhere"),
        ("GET", "/v9.9/nowhere"),
        ("PUT", "/info"),
        ("DELETE", "/containers/nobody/../nowhere"),
        ("GET", "/containers/json/"),
        ("GET", "/"),
        ("GET", "/%2e%2e/info"),
    ],
)
def test_what_is_not_there_is_not_found(engine: EngineProcess, method: str, path: str) -> None:
    status, document = engine.request(method, path)
    assert status == 404
    assert isinstance(document, dict)
    assert document["message"] in ("page not found", f"No such container: {path[12:]}")


@pytest.mark.parametrize(
    ("path", "raw", "words"),
    [
        ("/containers/create", b"", "malformed Content-Type header (): mime: no media type"),
        ("/containers/create", b"{", "malformed Content-Type header"),
    ],
)
def test_a_body_is_said_to_be_json(
    engine: EngineProcess, path: str, raw: bytes, words: str
) -> None:
    answer = talk(engine.socket, request("POST", path, f"Content-Length: {len(raw)}", body=raw))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert words.encode() in answer or b"EOF" in answer


def create_with(engine: EngineProcess, body: bytes) -> bytes:
    """Ask for a container with a body of our own making."""
    head = ("Content-Type: application/json", f"Content-Length: {len(body)}", "Connection: close")
    return talk(engine.socket, request("POST", "/containers/create", *head, body=body))


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"{}",
        b"[]",
        b"\xff\xfe",
        b"[" * 1_000_000,
        b'{"Labels":' * 100_000 + b"1" + b"}" * 100_000,
        b'{"Image": "busybox", "HostConfig": {"Memory": 1e99}}',
        b'{"Image": "busybox", "HostConfig": {"Memory": 18446744073709551616}}',
        b'{"Image": "busybox", "Cmd": {"a": 1}}',
        b'{"Image": "busy\\u0000box"}',
        b'{"Image": "../../etc/passwd"}',
        b'{"Image": "busybox", "HostConfig": {"ConsoleSize": [1]}}',
        b'{"Image": "busybox", "HostConfig": {"Binds": ["/tmp:/etc/../"]}}',
    ],
)
def test_a_body_that_makes_no_sense_is_refused_without_a_traceback(
    engine: EngineProcess, body: bytes
) -> None:
    answer = create_with(engine, body)
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 404 ")), answer[:400]
    assert b"Traceback" not in answer
    assert b"internal error" not in answer
    assert engine.request("GET", "/containers/json?all=1") == (200, [])


def test_a_body_that_is_too_large_is_refused_before_it_is_all_there(engine: EngineProcess) -> None:
    before = memory_kib(engine.pid)
    answer = create_with(engine, b'{"Image": "' + b"x" * (100 << 20) + b'"}')
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert memory_kib(engine.pid) - before < 40 << 10


def test_a_head_that_is_too_large_is_refused(engine: EngineProcess) -> None:
    answer = talk(engine.socket, request("GET", "/info", "X-Long: " + "x" * (4 << 20)))
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert talk(engine.socket, b"\x16\x03\x01\x02\x00\x01").startswith(b"HTTP/1.1 400 ")


def test_bodies_in_chunks_and_with_permission_are_read(engine: EngineProcess) -> None:
    body = json.dumps({"Image": "busybox", "Cmd": ["true"]}).encode()
    chunks = b"".join(b"1\r\n" + body[i : i + 1] + b"\r\n" for i in range(len(body)))
    json_type = "Content-Type: application/json"
    answer = talk(
        engine.socket,
        request(
            "POST",
            "/containers/create",
            json_type,
            "Transfer-Encoding: chunked",
            body=chunks + b"0\r\n\r\n",
        ),
    )
    assert answer.startswith(b"HTTP/1.1 201 "), answer
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(60)
        sock.connect(str(engine.socket))
        length = f"Content-Length: {len(body)}"
        sock.sendall(
            request("POST", "/containers/create", json_type, length, "Expect: 100-continue")
        )
        assert sock.recv(1000).startswith(b"HTTP/1.1 100 ")
        sock.sendall(body)
        assert sock.recv(1000).startswith(b"HTTP/1.1 201 ")


def test_requests_sent_ahead_are_answered_in_order(engine: EngineProcess) -> None:
    ahead = request("GET", "/_ping") * 50 + request("GET", "/nowhere")
    answer = talk(engine.socket, ahead)
    assert answer.count(b"HTTP/1.1 200 ") == 50
    assert answer.rindex(b"HTTP/1.1 404 ") > answer.rindex(b"HTTP/1.1 200 ")


def test_idle_and_slow_clients_hold_nobody_up(engine: EngineProcess) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(IDLE_CLIENTS, hard - 200)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    before = memory_kib(engine.pid)
    clients = []
    try:
        for number in range(count):
            client = socket.socket(socket.AF_UNIX)
            clients.append(client)
            client.connect(str(engine.socket))
            client.sendall(b"GET /info HT"[: number % 12])
        assert engine.request("GET", "/_ping") == (200, b"OK")
        per_client = (memory_kib(engine.pid) - before) / count
        assert per_client < 40
    finally:
        for client in clients:
            client.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    wait_for(
        lambda: engine.request("GET", "/info")[1]["NFd"] < count / 2,  # type: ignore[index,operator]
        "the engine has closed their sockets",
    )


@pytest.mark.parametrize("header", ["Origin: http://evil.example", "Sec-Fetch-Site: cross-site"])
def test_requests_of_web_pages_are_refused(engine: EngineProcess, header: str) -> None:
    answer = talk(engine.socket, request("GET", "/info", header, "Connection: close"))
    assert answer.startswith(b"HTTP/1.1 403 ")


def test_an_engine_without_a_swarm_or_plugins_says_so(engine: EngineProcess) -> None:
    assert refusal(engine, "POST", "/swarm/leave", {}) == (503, "This node is not part of a swarm")
    for path in ("/swarm", "/nodes", "/services", "/tasks/x", "/secrets", "/configs/x"):
        status, message = refusal(engine, "GET", path)
        assert (status, message.partition(".")[0]) == (503, "This node is not a swarm manager")
    assert engine.request("GET", "/plugins") == (200, [])
    assert refusal(engine, "DELETE", "/plugins/a/b:c") == (404, 'plugin "a/b:c" not found')
    assert engine.docker("plugin", "ls").code == 0
    assert "not a swarm manager" in engine.docker("node", "ls").err


def test_an_older_client_works(engine: EngineProcess) -> None:
    import os

    env = {**os.environ, "DOCKER_API_VERSION": "1.24"}
    done = engine.docker("run", "--rm", "--network", "none", "busybox", "echo", "hello", env=env)
    assert (done.code, done.out) == (0, "hello\n")


def test_starting_with_a_configuration_is_a_thing_of_the_past(engine: EngineProcess) -> None:
    _, made = engine.request("POST", "/containers/create", {"Image": "busybox", "Cmd": ["true"]})
    assert isinstance(made, dict)
    status, message = refusal(
        engine, "POST", f"/containers/{made['Id']}/start", {"Binds": ["/:/host"]}
    )
    assert status == 400
    assert message.startswith("starting container with non-empty request body was deprecated")


def test_killing_for_good_returns_when_it_has_ended(engine: EngineProcess) -> None:
    engine.docker("run", "-d", "--name", "killed", "--network", "none", "busybox", "sleep", "1000")
    assert engine.request("POST", "/containers/killed/kill")[0] == 204
    state = engine.inspect("killed")["State"]
    assert isinstance(state, dict)
    assert (state["Status"], state["ExitCode"]) == ("exited", 137)


def test_a_container_gets_what_its_creator_asked_for_and_inspect_shows_it(
    engine: EngineProcess,
) -> None:
    asked = {
        "Image": "busybox",
        "Cmd": ["true"],
        "Env": ["A=1", "PATHLESS"],
        "MacAddress": "02:42:ac:16:00:08",
        "HostConfig": {
            "Runtime": "runc",
            "Annotations": {"a": "b"},
            "MemorySwappiness": 10,
            "LogConfig": {"Type": "json-file", "Config": {"max-file": "5"}},
        },
    }
    _, made = engine.request("POST", "/v1.43/containers/create", asked)
    assert isinstance(made, dict)
    shown = engine.inspect(str(made["Id"]))
    host, config = shown["HostConfig"], shown["Config"]
    assert isinstance(host, dict)
    assert isinstance(config, dict)
    assert config["MacAddress"] == "02:42:ac:16:00:08"
    assert {"A=1", "PATHLESS"} <= set(config["Env"])
    assert (host["Runtime"], host["MemorySwappiness"]) == ("runc", 10)
    assert host["LogConfig"] == asked["HostConfig"]["LogConfig"]  # type: ignore[index]


def test_the_mounts_below_a_read_only_one_are_so_for_newer_clients(
    engine: EngineProcess,
) -> None:
    def writes(version: str, options: dict[str, object]) -> str:
        mount = {
            "Type": "bind",
            "Source": "/dev",
            "Target": "/host",
            "ReadOnly": True,
            "BindOptions": options,
        }
        body = {
            "Image": "busybox",
            "Cmd": ["sh", "-c", "awk '$2 == \"/host/shm\" { print $4 }' /proc/mounts"],
            "HostConfig": {"Mounts": [mount], "NetworkMode": "none"},
        }
        status, made = engine.request("POST", f"/{version}/containers/create", body)
        assert status == 201, made
        assert isinstance(made, dict)
        path = f"/containers/{made['Id']}"
        assert engine.request("POST", f"{path}/start")[0] == 204
        engine.request("POST", f"{path}/wait")
        _, _, log = engine.exchange("GET", f"{path}/logs?stdout=1")
        return log[8:10].decode()

    assert writes("v1.44", {}) == "ro"
    assert writes("v1.44", {"ReadOnlyNonRecursive": True}) == "rw"
    assert writes("v1.43", {}) == "rw"


def test_a_container_without_a_network_has_only_its_loopback(engine: EngineProcess) -> None:
    body = {"Image": "busybox", "Cmd": ["ls", "/sys/class/net"], "NetworkDisabled": True}
    assert engine.request("POST", "/containers/create?name=alone", body)[0] == 201
    assert engine.request("POST", "/containers/alone/start")[0] == 204
    engine.request("POST", "/containers/alone/wait")
    assert engine.docker("logs", "alone").lines == ["lo"]


def test_a_containers_groups_are_where_they_are_wanted(engine: EngineProcess) -> None:
    from pathlib import Path

    parent = f"berth-test-{engine.pid}"

    def found() -> list[Path]:
        return [path for path in Path("/sys/fs/cgroup").glob(f"**/{parent}") if path.is_dir()]

    try:
        run = ("run", "-d", "--network", "none", "--cgroup-parent", f"/{parent}", "-m", "64m")
        container = engine.docker(*run, "busybox", "sleep", "1000").out.strip()
        assert found()
        assert all((path / container).is_dir() for path in found())
        engine.docker("rm", "-f", container)
        wait_for(lambda: not any((p / container).is_dir() for p in found()), "its groups are gone")
    finally:
        for path in found():
            path.rmdir()
    refused = engine.docker("create", "--cgroup-parent", "/a/../../b", "busybox", "true")
    assert "invalid cgroup parent" in refused.err


def test_a_volume_made_for_a_mount_is_as_the_mount_says(engine: EngineProcess) -> None:
    mount = "type=volume,source=labelled,target=/v,volume-label=a=b"
    try:
        assert engine.docker("create", "--mount", mount, "busybox", "true").code == 0
        _, volume = engine.request("GET", "/volumes/labelled")
        assert isinstance(volume, dict)
        assert volume["Labels"] == {"a": "b"}
        engine.remove_containers()
    finally:
        engine.docker("volume", "rm", "labelled")
    status, message = refusal(
        engine,
        "POST",
        "/containers/create",
        {
            "Image": "busybox",
            "HostConfig": {
                "Mounts": [
                    {
                        "Type": "volume",
                        "Target": "/v",
                        "VolumeOptions": {"DriverConfig": {"Name": "foreign"}},
                    }
                ]
            },
        },
    )
    assert (status, message) == (
        404,
        'error looking up volume plugin foreign: plugin "foreign" not found',
    )


def test_the_runtime_has_the_name_that_clients_know(engine: EngineProcess) -> None:
    info = engine.request("GET", "/info")[1]
    assert info["DefaultRuntime"] == "runc"  # type: ignore[index]
    assert "runc" in info["Runtimes"]  # type: ignore[index]
    assert engine.docker("create", "--name", "box", "busybox", "true").code == 0
    assert engine.inspect("box")["HostConfig"]["Runtime"] == "runc"  # type: ignore[index]
    refused = engine.docker("create", "--runtime", "kata", "busybox", "true")
    assert "unknown or invalid runtime name: kata" in refused.err


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("//containers/json?all=1", "/containers/json?all=1"),
        ("/v1.41//info", "/v1.41/info"),
        ("/images/./../info", "/info"),
    ],
)
def test_superfluous_slashes_are_redirected(engine: EngineProcess, path: str, target: str) -> None:
    status, headers, data = engine.exchange("GET", path)
    assert (status, headers["Location"], data) == (301, target, b"")
    assert engine.request("GET", "/nowhere/")[0] == 404
