"""The API under abuse: whatever is sent, answers are right, and nothing of the inside shows."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from support import schemas
from support.engine import UnixConnection
from support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.engine import EngineProcess

pytestmark = pytest.mark.berth_only  # dockerd answers 500 to much of this

WRONG = (
    None,
    True,
    -1,
    1.5,
    2**63,
    "",
    "x",
    "\0",
    "../../x",
    [None],
    ["x"],
    {"": [[]]},
    {"x": "y"},
)
QUERIES = (
    "",
    "x",
    "-1",
    "9" * 23,
    "%00",
    "%ff",
    "[]",
    "null",
    '{"a":{"b":"c"}}',
    "[" * 500,
    "a" * 5000,
)
MAX_DEPTH = 3
# What a change is made to, so that it is looked at.
VALID = {
    "/containers/create": {"Image": "busybox", "Cmd": ["true"]},
    "/networks/create": {"Name": "abused"},
    "/volumes/create": {"Name": "abused"},
    "/containers/{id}/exec": {"Cmd": ["true"]},
}
REMOVED = {"/containers/create": "/containers/{Id}?force=1", "/networks/create": "/networks/{Id}"}
REMOVED |= {"/volumes/create": "/volumes/{Name}"}
# Streams, and bodies that are no JSON.
OTHERS = {
    *(
        "/session",
        "/grpc",
        "/events",
        "/images/load",
        "/build",
        "/images/create",
        "/exec/{id}/start",
    ),
    *("/containers/{id}/logs", "/containers/{id}/stats", "/containers/{id}/attach"),
    *("/containers/{id}/attach/ws", "/containers/{id}/wait", "/containers/{id}/archive"),
}
FROM_PS = "ps: "  # dockerd answers 500 as well to what ps does not understand


class Caller:
    """One connection that is opened again when the engine closes it."""

    def __init__(self, engine: EngineProcess) -> None:
        self._engine = engine
        self._connection = UnixConnection(engine.socket)

    def ask(self, method: str, path: str, body: object = ...) -> tuple[int, bytes]:
        data = None if body is ... else json.dumps(body).encode()
        headers = {} if data is None else {"Content-Type": "application/json"}
        self._connection.request(method, path, data, headers)
        response = self._connection.getresponse()
        return response.status, response.read()

    def check(self, method: str, path: str, body: object = ...) -> tuple[int, bytes]:
        status, answer = self.ask(method, path, body)
        fine = status < 500 or status in (501, 503) or FROM_PS.encode() in answer
        assert fine, (method, path, body, status, answer)
        if status >= 400:
            assert b"Traceback" not in answer
            assert b"internal error" not in answer
        if status >= 400 and method != "HEAD":
            assert json.loads(answer)["message"], (method, path, body)
        return status, answer


@pytest.fixture
def caller(engine: EngineProcess) -> Caller:
    return Caller(engine)


def operations() -> Iterator[tuple[str, str, dict[str, object]]]:
    for path, methods in schemas.paths().items():
        for method, operation in methods.items():
            if path not in OTHERS:
                yield method.upper(), path, operation


def target(method: str, path: str) -> str:
    """Fill names in: of something that is there, unless that would go."""
    there = method == "GET" or path.endswith(("/exec", "/update", "/connect"))
    name = "victim" if there and "containers" in path else "busybox" if there else "nobody"
    return "/v1.56" + path.replace("{id}", name).replace("{name}", name)


def wrong_bodies(schema: dict[str, object], valid: object, depth: int = 0) -> Iterator[object]:
    """Yield a valid body with one thing wrong in it, for each place and each wrong value."""
    valid = valid if isinstance(valid, dict) else {}
    for name, field in schemas.properties(schema).items():
        yield from ({**valid, name: value} for value in WRONG)
        if depth == MAX_DEPTH:
            continue
        items, values = field.get("items"), field.get("additionalProperties")
        for inner in wrong_bodies(field, valid.get(name), depth + 1):
            yield {**valid, name: inner}
        if isinstance(items, dict):
            yield from ({**valid, name: [i]} for i in wrong_bodies(items, {}, depth + 1))
        if isinstance(values, dict):
            yield from ({**valid, name: {"k": value}} for value in WRONG)
            yield from ({**valid, name: {"k": v}} for v in wrong_bodies(values, {}, depth + 1))


@pytest.fixture
def victim(engine: EngineProcess) -> str:
    words = ("run", "-d", "--name", "victim", "--network", "none", "busybox", "sleep", "600")
    assert engine.docker(*words).code == 0
    return "victim"


@pytest.mark.usefixtures("victim")
def test_wrong_values_in_bodies_are_refused_or_taken(caller: Caller) -> None:
    count = 0
    for method, path, operation in operations():
        if path.startswith(("/services", "/secrets", "/configs", "/swarm", "/nodes", "/plugins")):
            continue  # which answer before they look
        for parameter in schemas.parameters(operation):
            if parameter["in"] != "body":
                continue
            url = target(method, path)
            bodies = wrong_bodies(parameter["schema"], VALID.get(path))
            for body in itertools.chain(WRONG, bodies):
                status, answer = caller.check(method, url, body)
                count += 1
                if status == 201 and path in REMOVED:
                    caller.ask("DELETE", REMOVED[path].format(**json.loads(answer)))
    assert count > 1500


@pytest.mark.usefixtures("victim")
def test_wrong_values_in_queries_are_refused_or_taken(caller: Caller) -> None:
    count = 0
    for method, path, operation in operations():
        for parameter in schemas.parameters(operation):
            if parameter["in"] == "query":
                for value in QUERIES:
                    url = f"{target(method, path)}?{parameter['name']}={quote(value, safe='%')}"
                    caller.check(method, url)
                    count += 1
    assert count > 500


@pytest.mark.parametrize("value", ["%00", "a" * 5000, "/" + "a" * 300])
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT"])
def test_paths_that_no_file_has_are_refused(
    caller: Caller, victim: str, method: str, value: str
) -> None:
    assert caller.check(method, f"/containers/{victim}/archive?path={value}")[0] == 400


# Below what a client's library would send


def raw(engine: EngineProcess, data: bytes) -> bytes:
    """Send bytes, end our side, return the answer."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(30)
        client.connect(str(engine.socket))
        try:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
        except BrokenPipeError:
            pass  # it has answered already
        answer = b""
        while chunk := client.recv(1 << 16):
            answer += chunk
    return answer


def post(body: bytes, *headers: str, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    lines = ("Host: x", "Content-Type: application/json", f"Content-Length: {size}", *headers)
    return b"POST /containers/create HTTP/1.1\r\n" + "\r\n".join([*lines, "", ""]).encode() + body


GET = b"GET /_ping HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\0" * 5000, 400),
        (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(500), 400),  # TLS
        (b"G@T / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"GET /containers/\xff/json HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /_ping HTTP/1.1\r\n\r\n", 400),
        (GET + b"X: " + b"y" * (3 << 20) + b"\r\n\r\n", 431),
        (b"GET /" + b"a" * (900 << 10) + b" HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (GET + b"".join(b"X%d: y\r\n" % i for i in range(50_000)) + b"\r\n", 200),
        (post(b"", length=-5), 400),
        (post(b"abc", "Content-Length: 4"), 400),
        (post(b"0\r\n\r\n", "Transfer-Encoding: chunked"), 400),
        (post(b"{", length=500), 400),
        (post(b"[" * 200_000), 400),
        (post(b'{"Image":"x","x":' + b'{"a":' * 90_000 + b"1" + b"}" * 90_001), 400),
        (post(b'{"Image":"\xff\xfe"}'), 400),
        (post(b'{"Image":"\\ud800"}'), 400),
        (post(b" " * (17 << 20)), 400),
        (post(b"\x1f\x8b\0\0", "Content-Encoding: gzip"), 400),
        (b"GET /containers/..%2f..%2fetc/passwd/json HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"GET /v9999999999999999.99/_ping HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /v1..4/_ping HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n", 404),
    ],
)
def test_what_is_no_request_is_refused(engine: EngineProcess, data: bytes, status: int) -> None:
    answer = raw(engine, data)
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer[:300]
    assert b"bytearray" not in answer
    assert b"Traceback" not in answer


def test_a_request_that_breaks_off_is_forgotten(engine: EngineProcess) -> None:
    assert raw(engine, GET[:20]) == b""


def descriptors(engine: EngineProcess) -> int:
    return len(os.listdir(f"/proc/{engine.pid}/fd"))


def memory_mb(engine: EngineProcess) -> int:
    lines = Path(f"/proc/{engine.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) >> 10


def test_thousands_of_connections_cost_little_and_nobody_waits(engine: EngineProcess) -> None:
    before, at_first = descriptors(engine), memory_mb(engine)
    with contextlib.ExitStack() as clients:
        for number in range(3000):
            client = clients.enter_context(socket.socket(socket.AF_UNIX))
            client.connect(str(engine.socket))
            if number % 2:
                client.sendall(GET[:25])
        assert engine.request("GET", "/_ping")[0] == 200
        assert memory_mb(engine) - at_first < 100
    wait_for(lambda: descriptors(engine) <= before, "all are closed")


def test_a_client_that_never_reads_costs_little(engine: EngineProcess) -> None:
    at_first = memory_mb(engine)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(engine.socket))
        client.settimeout(1)
        with pytest.raises(TimeoutError):
            while True:
                client.sendall(b"GET /info HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
        assert engine.request("GET", "/_ping")[0] == 200
    assert memory_mb(engine) - at_first < 50


@pytest.mark.parametrize("path", ["attach?stream=1&stdin=1&stdout=1&stderr=1", "exec"])
def test_hijacked_connections_may_break_at_any_point(
    engine: EngineProcess, victim: str, path: str
) -> None:
    before = descriptors(engine)
    upgrade = "Connection: Upgrade\r\nUpgrade: tcp\r\n"
    for cut in range(0, 400, 7):
        if path == "exec":
            body = {"Cmd": ["cat"], "AttachStdin": True, "AttachStdout": True}
            _, made = engine.request("POST", f"/containers/{victim}/exec", body)
            assert isinstance(made, dict)
            where, sent = f"/exec/{made['Id']}/start", b"{}"
        else:
            where, sent = f"/containers/{victim}/{path}", b""
        head = f"POST {where} HTTP/1.1\r\nHost: x\r\n{upgrade}Content-Type: application/json\r\n"
        head += f"Content-Length: {len(sent)}\r\n\r\n"
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(engine.socket))
            client.sendall((head.encode() + sent + b"input\n" * 9)[:cut])
            if cut % 2:
                client.shutdown(socket.SHUT_WR)
    assert engine.inspect(victim)["State"]["Running"] is True  # type: ignore[index]
    done = engine.docker("exec", victim, "echo", "fine")
    assert done.out == "fine\n"
    wait_for(lambda: descriptors(engine) <= before + 2, "their descriptors are closed")


def test_two_hundred_clients_create_and_remove(engine: EngineProcess) -> None:
    failures: list[object] = []

    def live(number: int) -> None:
        caller = Caller(engine)
        try:
            body = {"Image": "busybox", "Cmd": ["true"], "HostConfig": {"NetworkMode": "none"}}
            for turn in range(3):
                name = f"c{number}-{turn}"
                status, answer = caller.check("POST", f"/containers/create?name={name}", body)
                assert status == 201, answer
                if number % 4 == 0:
                    assert caller.check("POST", f"/containers/{name}/start")[0] == 204
                status, answer = caller.check("DELETE", f"/containers/{name}?force=1")
                assert status == 204, answer
        except (AssertionError, OSError, http.client.HTTPException) as error:
            failures.append(error)

    threads = [threading.Thread(target=live, args=(number,)) for number in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures[:3]
    assert engine.request("GET", "/containers/json?all=1") == (200, [])
