"""Attaching: what came before, several clients at once, half-closed connections, WebSockets."""

from __future__ import annotations

import re
import select
import socket
import threading
from typing import TYPE_CHECKING

import pytest
import websocket

from support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.engine import EngineProcess

COUNT_THEN_CAT = "for i in 1 2 3; do echo line $i; done; echo oops >&2; cat; echo end"
STREAMS = "stream=1&stdin=1&stdout=1&stderr=1"


@pytest.fixture
def talker(engine: EngineProcess) -> str:
    """A container that has written four lines and repeats its input."""
    words = ("create", "-i", "--name", "talker", "--network", "none", "busybox", "sh", "-c")
    assert engine.docker(*words, COUNT_THEN_CAT).code == 0
    assert engine.docker("start", "talker").code == 0
    wait_for(lambda: "oops" in engine.docker("logs", "talker").err, "it has spoken")
    return "talker"


def attach(engine: EngineProcess, name: str, query: str) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(20)
    client.connect(str(engine.socket))
    head = f"POST /containers/{name}/attach?{query} HTTP/1.1\r\nHost: x\r\n"
    client.sendall(f"{head}Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n".encode())
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        answer += client.recv(1)
    assert answer.startswith(b"HTTP/1.1 101 UPGRADED"), answer
    return client


def read_all(client: socket.socket) -> bytes:
    found = b""
    while chunk := client.recv(1 << 16):
        found += chunk
    return found


def frame(stream: int, data: bytes) -> bytes:
    return bytes((stream, 0, 0, 0)) + len(data).to_bytes(4, "big") + data


def test_attach_replays_the_log_alone(engine: EngineProcess, talker: str) -> None:
    with attach(engine, talker, "logs=1&stdout=1&stderr=1") as client:
        lines = b"".join(frame(1, b"line %d\n" % i) for i in (1, 2, 3))
        assert read_all(client) == lines + frame(2, b"oops\n")
    with attach(engine, talker, "logs=1&stderr=1") as client:
        assert read_all(client) == frame(2, b"oops\n")
    with attach(engine, talker, "stdout=1") as client:
        assert read_all(client) == b""


def test_attach_replays_the_log_before_it_streams(engine: EngineProcess, talker: str) -> None:
    with attach(engine, talker, f"logs=1&{STREAMS}") as client:
        client.sendall(b"more\n")
        client.shutdown(socket.SHUT_WR)
        found = read_all(client)
    assert re.findall(rb"[a-z][a-z 0-9]*(?=\n)", found) == [
        *(b"line 1", b"line 2", b"line 3", b"oops", b"more", b"end"),
    ]


def test_a_stopped_container_is_attached_with_its_log(engine: EngineProcess) -> None:
    words = ("run", "--name", "over", "--network", "none", "busybox", "echo", "said")
    assert engine.docker(*words).code == 0
    with attach(engine, "over", "logs=1&stdout=1") as client:
        assert read_all(client) == frame(1, b"said\n")


def test_docker_py_attaches_with_the_log(engine: EngineProcess, talker: str) -> None:
    import docker

    client = docker.APIClient(base_url=engine.host)
    try:
        assert client.attach(talker, logs=True, stream=False) == b"line 1\nline 2\nline 3\noops\n"
    finally:
        client.close()


def test_several_clients_see_all_and_each_may_write(engine: EngineProcess, talker: str) -> None:
    clients = [attach(engine, talker, STREAMS) for _ in range(5)]

    def all_hear() -> bool:
        clients[0].sendall(b"tick\n")
        return len(select.select(clients, [], [], 0.01)[0]) == len(clients)

    wait_for(all_hear, "every client is attached")
    for number, client in enumerate(clients):
        client.sendall(b"from %d\n" % number)
    seen = [bytearray() for _ in clients]
    for client, found in zip(clients, seen, strict=True):
        while found.count(b"from") < len(clients):
            found += client.recv(1 << 16)
    clients[0].shutdown(socket.SHUT_WR)  # docker run -i: the first end of input is the end
    for client, found in zip(clients, seen, strict=True):
        found += read_all(client)
        client.close()
        assert sorted(re.findall(rb"from \d", found)) == [b"from %d" % n for n in range(5)]
        assert found.endswith(b"end\n")


# WebSockets


@pytest.fixture
def dial(engine: EngineProcess) -> Callable[..., websocket.WebSocket]:
    """Open a WebSocket to a path of the engine, with websocket-client, as docker-py does."""

    def dial(path: str, **options: object) -> websocket.WebSocket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(20)
        sock.connect(str(engine.socket))
        return websocket.create_connection(f"ws://localhost{path}", socket=sock, **options)

    return dial


def messages(client: websocket.WebSocket) -> bytes:
    """Everything until the closing handshake."""
    found = b""
    while True:
        opcode, data = client.recv_data()
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            return found
        assert opcode == websocket.ABNF.OPCODE_BINARY
        found += data


@pytest.mark.parametrize("origin", ["http://localhost", None])
def test_a_websocket_carries_the_streams(
    dial: Callable[..., websocket.WebSocket], talker: str, origin: str | None
) -> None:
    path = f"/v1.44/containers/{talker}/attach/ws?logs=1&{STREAMS}"
    client = dial(path, origin=origin, suppress_origin=origin is None)
    assert client.recv() == b"line 1\nline 2\nline 3\noops\n"
    client.ping()
    client.send("as text\n")
    assert client.recv() == b"as text\n"
    client.send_binary(b"as bytes\n")
    assert client.recv() == b"as bytes\n"
    client.send_close()
    assert client.recv_data()[0] == websocket.ABNF.OPCODE_CLOSE
    client.close()


def test_the_end_of_a_websocket_is_the_end_of_input(
    engine: EngineProcess, dial: Callable[..., websocket.WebSocket], talker: str
) -> None:
    dial(f"/containers/{talker}/attach/ws?{STREAMS}").close()
    assert engine.docker("wait", talker).out == "0\n"
    assert engine.docker("logs", talker).out.endswith("end\n")


def test_the_end_of_the_container_closes_a_websocket(
    engine: EngineProcess, dial: Callable[..., websocket.WebSocket]
) -> None:
    words = ("create", "-i", "--name", "burst", "--network", "none", "busybox", "sh", "-c")
    assert engine.docker(*words, "seq 100000; echo err >&2").code == 0
    client = dial("/v1.44/containers/burst/attach/ws?stream=1&stdout=1")
    found: list[bytes] = []
    reading = threading.Thread(target=lambda: found.append(messages(client)))
    reading.start()
    assert engine.docker("start", "burst").code == 0
    reading.join(30)
    assert found == [b"".join(b"%d\n" % n for n in range(1, 100001))]
    client.close()


def test_old_clients_of_a_websocket_get_every_stream(
    dial: Callable[..., websocket.WebSocket], talker: str
) -> None:
    client = dial(f"/v1.41/containers/{talker}/attach/ws?logs=1")
    assert messages(client) == b"line 1\nline 2\nline 3\noops\n"
    client.close()


@pytest.mark.berth_only  # dockerd looks at no Origin
def test_a_websocket_of_a_web_page_is_refused(
    dial: Callable[..., websocket.WebSocket], talker: str
) -> None:
    with pytest.raises(websocket.WebSocketBadStatusException, match="403"):
        dial(f"/containers/{talker}/attach/ws?{STREAMS}", origin="http://example.org")


def test_what_is_no_websocket_is_refused(engine: EngineProcess, talker: str) -> None:
    status, answer = engine.request("GET", f"/containers/{talker}/attach/ws?{STREAMS}")
    assert status == 400, answer
    status, _ = engine.request("GET", f"/containers/missing/attach/ws?{STREAMS}")
    assert status == 404
