"""D-Bus: values by their bytes, and a conversation with a peer."""

from __future__ import annotations

import socket
import struct
import threading

import pytest

from berth.bundle import dbus
from berth.errors import Failed

WHERE = ("dest", "/path", "inter.face")


def written(kind: str, value: object, before: int = 0) -> bytes:
    """Return what is written after some bytes."""
    writer = dbus.Writer()
    writer.data += bytes(before)
    writer.write(kind, value)
    return bytes(writer.data[before:])


def test_signatures_are_taken_apart():
    assert dbus.split("ssa(sv)a(sa(sv))u") == ["s", "s", "a(sv)", "a(sa(sv))", "u"]
    assert dbus.split("a{sv}aay") == ["a{sv}", "aay"]


def test_values_are_aligned():
    assert written("u", 5, before=1) == b"\0\0\0\x05\0\0\0"
    assert written("t", 5, before=4) == b"\0\0\0\0\x05\0\0\0\0\0\0\0"
    assert written("s", "ab") == b"\x02\0\0\0ab\0"
    assert written("v", ("u", 7)) == b"\x01u\0\0\x07\0\0\0"
    assert written("b", True) == b"\x01\0\0\0"


def test_an_array_has_its_length_without_what_aligns_it():
    assert written("at", [1]) == b"\x08\0\0\0\0\0\0\0" + struct.pack("<Q", 1)
    assert written("a(sv)", []) == bytes(8)


@pytest.mark.parametrize(
    ("kind", "value", "read"),
    [
        ("a(sv)", [("a", ("s", "x")), ("b", ("au", [1, 2]))], [("a", "x"), ("b", [1, 2])]),
        ("a(sa(sv))", [("u", [("k", ("b", True))])], [("u", [("k", True)])]),
    ],
)
def test_what_is_written_is_read(kind, value, read):
    assert dbus.Reader(written(kind, value)).read(kind) == read


class Peer(threading.Thread):
    """Answers one connection: what it gets after the authentication, and what it says to it."""

    def __init__(self, path, answers, *, accepts=True):
        super().__init__()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._answers, self._accepts = answers, accepts
        self.start()

    def run(self):
        connection, _ = self._listener.accept()
        with connection, self._listener:
            assert connection.recv(4096).endswith(b"\r\nBEGIN\r\n")
            connection.send(b"OK 1234\r\n" if self._accepts else b"REJECTED EXTERNAL\r\n")
            if self._answers:
                connection.recv(4096)
            for answer in self._answers:
                connection.send(answer)


def message(kind: int, fields: list, signature: str = "", *values: object) -> bytes:
    """Return a message as a peer sends it."""
    body, head = dbus.Writer(), dbus.Writer()
    for part, value in zip(dbus.split(signature), values, strict=True):
        body.write(part, value)
    for part, value in zip("yyyyuu", (ord("l"), kind, 0, 1, len(body.data), 9), strict=True):
        head.write(part, value)
    if signature:
        fields = [*fields, (dbus.SIGNATURE, ("g", signature))]
    head.write("a(yv)", fields)
    head.align(8)
    return bytes(head.data + body.data)


def test_a_call_has_its_answer_and_a_job_its_end(tmp_path):
    done = (1, "/job/5", "x.scope", "done")
    removed = message(dbus.SIGNAL, [(dbus.MEMBER, ("s", "JobRemoved"))], "uoss", *done)
    answer = message(dbus.RETURN, [(dbus.REPLY_SERIAL, ("u", 1))], "o", "/job/5")
    peer = Peer(tmp_path / "bus", [removed + answer[:10], answer[10:]])
    with dbus.Connection(str(tmp_path / "bus")) as connection:
        assert connection.call(WHERE, "Start", "s", "x") == ["/job/5"]
        assert connection.wait_for_job("/job/5") == "done"
    peer.join()


def test_an_error_is_raised_by_its_name(tmp_path):
    fields = [(dbus.REPLY_SERIAL, ("u", 1)), (dbus.ERROR_NAME, ("s", "some.Error"))]
    peer = Peer(tmp_path / "bus", [message(dbus.ERROR, fields, "s", "no such thing")])
    with (
        dbus.Connection(str(tmp_path / "bus")) as connection,
        pytest.raises(dbus.Refusal, match="no such thing") as caught,
    ):
        connection.call(WHERE, "Start")
    assert caught.value.name == "some.Error"
    peer.join()


def test_a_peer_that_goes_is_told(tmp_path):
    peer = Peer(tmp_path / "bus", [])
    with (
        dbus.Connection(str(tmp_path / "bus")) as connection,
        pytest.raises((Failed, OSError)),
    ):
        connection.call(WHERE, "Start")
    peer.join()


def test_a_peer_that_refuses_is_told(tmp_path):
    peer = Peer(tmp_path / "bus", [], accepts=False)
    with pytest.raises(Failed, match="systemd refuses this user: REJECTED"):
        dbus.Connection(str(tmp_path / "bus"))
    peer.join()


def test_a_peer_that_is_not_there_is_told(tmp_path):
    with pytest.raises(Failed, match="cannot speak to systemd by"):
        dbus.Connection(str(tmp_path / "bus"))
