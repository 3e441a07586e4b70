"""`attach/ws`: a container's streams as messages of a WebSocket."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

import pytest
import websocket

from support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.engine import EngineProcess

ECHO = "while read line; do echo got $line; echo told >&2; done; echo end of input; exit 4"
NOT_FOUND, CONFLICT, FORBIDDEN, BAD = 404, 409, 403, 400
ALL = "stream=1&stdin=1&stdout=1&stderr=1"


@contextlib.contextmanager
def attached(
    engine: EngineProcess, name: str, query: str = ALL, **options: object
) -> Iterator[websocket.WebSocket]:
    """A WebSocket to a container, by the client that docker-py takes."""
    client = websocket.WebSocket()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(str(engine.socket))
        url = f"ws://localhost/containers/{name}/attach/ws?{query}"
        client.connect(url, socket=connection, **options)
        yield client


def start(engine: EngineProcess, name: str, *flags: str, script: str = ECHO) -> None:
    words = ("run", "-d", "--name", name, "--network", "none", *flags, "busybox", "sh", "-c")
    done = engine.docker(*words, script)
    assert done.code == 0, str(done)


def read(client: websocket.WebSocket, size: int) -> bytes:
    """Return so much of what is sent, however it is cut into messages."""
    text = b""
    while len(text) < size:
        kind, data = client.recv_data()
        assert kind == websocket.ABNF.OPCODE_BINARY
        text += data
    return text


def rest(client: websocket.WebSocket) -> tuple[bytes, int]:
    """Return what comes until the engine closes, and the code it closes with."""
    text = b""
    while True:
        kind, data = client.recv_data()
        if kind == websocket.ABNF.OPCODE_CLOSE:
            return text, int.from_bytes(data[:2], "big")
        text += data


def test_streams_are_messages_both_ways(engine: EngineProcess) -> None:
    start(engine, "spoken", "-i")
    with attached(engine, "spoken") as client:
        for send in (client.send, client.send_binary):  # text and bytes
            send(b"hello\n")
            assert sorted(read(client, 15).split(b"\n")) == [b"", b"got hello", b"told"]
        client.ping(b"still there")
        assert client.recv_data(control_frame=True) == (websocket.ABNF.OPCODE_PONG, b"still there")
        assert engine.docker("kill", "spoken").code == 0
        assert rest(client) == (b"", websocket.STATUS_NORMAL)


def test_streams_are_chosen(engine: EngineProcess) -> None:
    start(engine, "chosen", "-i")
    with attached(engine, "chosen", "stream=1&stdin=1&stderr=1") as client:
        client.send(b"hello\n")
        assert read(client, 5) == b"told\n"
        wait_for(lambda: "got hello" in engine.docker("logs", "chosen").out, "the rest is read")
        with attached(engine, "chosen", "stream=1&stdout=1") as deaf:
            deaf.send(b"unheard\n")
            client.send(b"heard\n")
            assert read(deaf, 10) == b"got heard\n"
    assert "unheard" not in engine.docker("logs", "chosen").out


def test_the_log_comes_first(engine: EngineProcess) -> None:
    start(engine, "logged", "-i", script="echo before; read line; echo after")
    wait_for(lambda: engine.docker("logs", "logged").out == "before\n", "it is in the log")
    with attached(engine, "logged", f"{ALL}&logs=1") as client:
        assert read(client, 7) == b"before\n"
        client.send(b"x\n")
        assert rest(client) == (b"after\n", websocket.STATUS_NORMAL)


def test_a_terminal_is_left_by_its_keys(engine: EngineProcess) -> None:
    start(engine, "left", "-it", script="stty -echo; echo ready; cat")
    with attached(engine, "left", f"{ALL}&logs=1&detachKeys=ctrl-x,q") as client:
        assert read(client, 7) == b"ready\r\n"
        client.send(b"one\n")
        assert read(client, 5) == b"one\r\n"
        client.send(b"\x18q")
        assert rest(client)[1] == websocket.STATUS_NORMAL
    assert engine.inspect("left")["State"]["Running"] is True


def test_much_goes_through_unchanged(engine: EngineProcess) -> None:
    size = 4 << 20
    start(engine, "much", "-i", script=f"read go; head -c {size} /dev/zero | tr '\\0' x")
    with attached(engine, "much") as client:
        client.send(b"go\n")
        assert rest(client) == (b"x" * size, websocket.STATUS_NORMAL)


def test_a_client_that_vanishes_leaves_the_container_alone(engine: EngineProcess) -> None:
    start(engine, "lonely", "-i")
    with attached(engine, "lonely") as client:
        client.send(b"hello\n")
        read(client, 15)
    with attached(engine, "lonely") as client:
        client.send(b"again\n")
        assert b"got again" in read(client, 15)


@pytest.mark.berth_only
def test_what_cannot_be_is_refused(engine: EngineProcess) -> None:
    def refusal(name: str, query: str = ALL, **options: object) -> int:
        with (
            pytest.raises(websocket.WebSocketBadStatusException) as caught,
            attached(engine, name, query, **options),
        ):
            pass
        return caught.value.status_code

    start(engine, "guarded", "-i")
    assert refusal("nothing") == NOT_FOUND
    assert refusal("guarded", f"{ALL}&detachKeys=nonsense") == BAD
    assert refusal("guarded", origin="http://elsewhere.example") == FORBIDDEN
    assert engine.request("GET", f"/containers/guarded/attach/ws?{ALL}")[0] == BAD
    engine.docker("pause", "guarded")
    assert refusal("guarded") == CONFLICT
    engine.docker("unpause", "guarded")
