import socket

import pytest

from berth import errors
from berth.client.address import parse
from berth.client.connection import UPGRADE, Connection, quote, target
from support.scripted import ScriptedEngine, answers, reply


@pytest.fixture
def serve(tmp_path):
    return lambda *scripts: ScriptedEngine(tmp_path / "engine.sock", *scripts)


def connect(engine):
    return Connection(parse(engine.url))


def test_one_connection_serves_several_requests(serve):
    with serve(
        answers(reply(b'{"a": 1}'), reply(b"[2]"), reply(status="204 No Content"))
    ) as engine:
        connection = connect(engine)
        assert connection.request("GET", "/one").document() == {"a": 1}
        assert connection.request("GET", "/two").document() == [2]
        assert connection.request("POST", "/three").document() is None
        connection.close()
    first, _, third = engine.sent
    assert first.startswith(b"GET /v1.48/one HTTP/1.1\r\nHost: ")
    assert b"Content-Length: 0\r\n" in third


def test_a_body_goes_as_json(serve):
    with serve(answers(reply())) as engine:
        connect(engine).request("POST", "/create", {"name": "a b"}, body={"Cmd": ["é", None, 1.5]})
    assert engine.sent[0].startswith(b"POST /v1.48/create?name=a%20b HTTP/1.1\r\n")
    assert engine.sent[0].endswith(b'{"Cmd":["\\u00e9",null,1.5]}')


def test_a_chunked_body_is_put_together_however_it_is_cut(serve):
    body = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n7;x=y\r\n, world\r\n0\r\n\r\n"

    def drip(engine, connection):
        engine.take(connection)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        for index in range(len(body)):
            connection.sendall(body[index : index + 1])
        engine.take(connection)
        connection.sendall(reply(b'"next"'))

    with serve(drip) as engine:
        connection = connect(engine)
        assert connection.request("GET", "/logs").read() == b"hello, world"
        assert connection.request("GET", "/after").document() == "next"


def test_lines_are_documents_across_chunks(serve):
    chunks = b'3\r\n{"a\r\n9\r\n":1}\r\n{"b\r\n5\r\n":2}\n\r\n0\r\n\r\n'
    with serve(
        answers(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)
    ) as engine:
        assert list(connect(engine).request("GET", "/events").lines()) == [{"a": 1}, {"b": 2}]


def test_a_body_without_length_ends_with_the_connection(serve):
    with serve(answers(b"HTTP/1.1 200 OK\r\n\r\nall of it")) as engine:
        assert connect(engine).request("GET", "/x").read() == b"all of it"


def test_an_archive_goes_in_chunks(serve):
    with serve(answers(reply(b"{}"))) as engine:
        connect(engine).request("POST", "/images/load", data=[b"abc", b"", b"0123456789abcdef"])
    assert engine.sent[0].endswith(b"3\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n")


def test_an_early_refusal_of_a_body_is_read(serve):
    refusal = reply(b'{"message": "too big"}', status="400 Bad Request")

    def refuse(_engine, connection):
        connection.sendall(refusal)
        connection.shutdown(socket.SHUT_RD)

    with serve(refuse) as engine, pytest.raises(errors.InvalidArgument, match="too big"):
        connect(engine).request("POST", "/images/load", data=[b"x" * 65536] * 64)


@pytest.mark.parametrize(
    ("status", "body", "kind", "message"),
    [
        (404, b'{"message": "No such container: x"}', errors.NotFound, "No such container: x"),
        (409, b'{"message": "taken"}', errors.Conflict, "taken"),
        (500, b'{"message": "broken"}', errors.Failed, "broken"),
        (400, b'{"message":"m","code":"command-not-found"}', errors.CommandNotFound, "m"),
        (503, b"<html>", errors.Unavailable, "<html>"),
        (500, b"", errors.Failed, "the engine answered 500"),
    ],
)
def test_a_refusal_becomes_the_kind_of_its_status(serve, status, body, kind, message):
    answer = reply(body, status=f"{status} No")
    with serve(answers(answer)) as engine, pytest.raises(errors.BerthError) as caught:
        connect(engine).request("GET", "/x")
    assert type(caught.value) is kind
    assert str(caught.value) == message


def test_interim_answers_are_passed_over(serve):
    with serve(answers(b"HTTP/1.1 100 Continue\r\n\r\n" + reply(b"1"))) as engine:
        assert connect(engine).request("GET", "/x").document() == 1


def test_a_hijacked_connection_keeps_the_bytes_that_came_with_the_head(serve):
    def hijacked(engine, connection):
        engine.take(connection)
        connection.sendall(b"HTTP/1.1 101 UPGRADED\r\nUpgrade: tcp\r\n\r\nearly")
        connection.sendall(connection.recv(100).upper())

    with serve(hijacked) as engine:
        connection = connect(engine)
        connection.send("POST", "/attach", headers=UPGRADE)
        hijack, early = connection.hijack()
        hijack.sendall(b"late")
        while len(early) < 9:
            early += hijack.recv(10)
        hijack.close()
    assert early == b"earlyLATE"
    assert b"Connection: Upgrade\r\nUpgrade: tcp\r\n" in engine.sent[0]


def test_a_refused_hijack_raises(serve):
    with serve(answers(reply(b'{"message": "not running"}', status="409 Conflict"))) as engine:
        connection = connect(engine)
        connection.send("POST", "/attach", headers=UPGRADE)
        with pytest.raises(errors.Conflict, match="not running"):
            connection.hijack()


def test_a_request_is_sent_again_when_the_idle_connection_was_closed(serve):
    with serve(answers(reply(b"1")), answers(reply(b"2"))) as engine:
        connection = connect(engine)
        assert connection.request("GET", "/one").document() == 1
        assert connection.request("GET", "/two").document() == 2
    assert len(engine.sent) == 2


def test_a_request_is_not_sent_again_on_a_fresh_connection(serve):
    with serve(answers(b"")) as engine, pytest.raises(errors.Unavailable, match="hung up"):
        connect(engine).request("GET", "/x")
    assert len(engine.sent) == 1


def test_a_cut_answer_is_an_error(serve):
    cut = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"
    with serve(answers(cut)) as engine, pytest.raises(errors.Unavailable, match="hung up"):
        connect(engine).request("GET", "/x").read()


def test_what_is_not_http_is_said_so(serve):
    banner = b"SSH-2.0-OpenSSH\r\n\r\n"
    with serve(answers(banner)) as engine, pytest.raises(errors.Corrupt, match="not HTTP"):
        connect(engine).request("GET", "/x")


def test_nobody_there_is_unavailable(tmp_path):
    with pytest.raises(errors.Unavailable, match="Is the engine running"):
        Connection(parse(f"unix://{tmp_path}/none.sock")).open()


def test_it_talks_tcp(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        connection = Connection(parse(f"tcp://127.0.0.1:{port}"))
        connection.send("GET", "/x")
        peer, _ = server.accept()
        with peer:
            peer.recv(1000)
            peer.sendall(reply(b"3"))
            assert connection.receive().document() == 3
        connection.close()


def test_a_target_quotes_and_leaves_out_what_is_empty():
    assert quote("a/b:c@sha256:1 é") == "a/b:c%40sha256:1%20%C3%A9"
    assert target("/x", {"a": "", "b": "1&2"}) == "/v1.48/x?b=1%262"
    assert target("/x", [("names", "a"), ("names", "b")]) == "/v1.48/x?names=a&names=b"
