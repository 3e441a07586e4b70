import os
import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.cli import terminal
from berth.cli.session import DetachFilter, Session, detach_keys
from berth.client.streams import STDOUT
from berth.errors import InvalidArgument


def frame(stream, payload):
    return bytes((stream, 0, 0, 0)) + len(payload).to_bytes(4, "big") + payload


class Peer:
    """The engine's end of a hijacked connection, served by a thread."""

    def __init__(self, script):
        self.ours, self._theirs = socket.socketpair()
        self._thread = threading.Thread(target=self._run, args=(script,))

    def _run(self, script):
        with self._theirs:
            script(self._theirs)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.ours.close()
        self._thread.join(10)
        assert not self._thread.is_alive()


def pump(script, *, numbers=(), on_signal=None, early=b"", **options):
    with terminal.Signals(numbers) as signals, Peer(script) as peer:
        session = Session((peer.ours, early), **options)
        session.pump(signals, on_signal or (lambda number: None))
    return session


def read_to_end(connection):
    data = b""
    while piece := connection.recv(4096):
        data += piece
    return data


@pytest.fixture
def stdin():
    """A pipe: the end the session reads and the end a test writes."""
    read, write = os.pipe()
    yield read, write
    os.close(read)


def test_output_goes_to_its_stream(capfd):
    data = frame(1, b"out") + frame(2, b"err") + frame(1, b"put")
    pump(lambda peer: peer.sendall(data[5:]), early=data[:5], tty=False)
    assert capfd.readouterr() == ("output", "err")


def test_a_stream_that_was_not_asked_for_is_hidden(capfd):
    pump(lambda peer: peer.sendall(frame(1, b"x") + frame(2, b"y")), tty=False, hidden=STDOUT)
    assert capfd.readouterr() == ("", "y")


def test_a_terminals_output_is_raw(capfd):
    pump(lambda peer: peer.sendall(b"raw\r\n"), tty=True)
    assert capfd.readouterr().out == "raw\r\n"


def test_the_end_of_stdin_closes_half_the_connection(stdin, capfd):
    read, write = stdin
    os.write(write, b"abc" * 1000)
    os.close(write)
    pump(lambda peer: peer.sendall(frame(1, read_to_end(peer))), tty=False, stdin=read)
    assert capfd.readouterr().out == "abc" * 1000


def test_much_input_and_output_cross_without_a_deadlock(stdin, capfd):
    read, write = stdin
    total = 3 << 20

    def feed():
        left = total
        while left:
            left -= os.write(write, b"z" * min(left, 65536))
        os.close(write)

    def echo(peer):
        while piece := peer.recv(65536):
            peer.sendall(frame(1, piece))

    thread = threading.Thread(target=feed)
    thread.start()
    pump(echo, tty=False, stdin=read)
    thread.join()
    assert capfd.readouterr().out == "z" * total


def test_output_still_comes_when_the_process_reads_no_input(stdin, capfd):
    read, write = stdin

    def refuse(peer):
        peer.shutdown(socket.SHUT_RD)
        os.write(write, b"nobody reads this")
        os.close(write)
        peer.sendall(frame(1, b"still here"))

    pump(refuse, tty=False, stdin=read)
    assert capfd.readouterr().out == "still here"


def test_detach_keys_end_the_session_and_are_not_sent(stdin):
    read, write = stdin
    os.write(write, b"ab\x10\x11rest")
    seen = []
    session = pump(
        lambda peer: seen.append(read_to_end(peer)), tty=True, stdin=read, keys=b"\x10\x11"
    )
    os.close(write)
    assert session.detached
    assert seen == [b"ab"]


def test_signals_are_told_while_it_pumps():
    numbers = []

    def ended(number):
        numbers.append(number)

    def script(peer):
        os.kill(os.getpid(), 10)
        while not numbers:
            os.sched_yield()

    pump(script, numbers=(10,), on_signal=ended, tty=True)
    assert numbers == [10]


@given(st.binary(max_size=30), st.integers(min_value=1, max_value=5))
def test_what_is_not_the_sequence_is_sent_on(data, size):
    data = data.replace(b"\x10", b"")
    keys = DetachFilter(b"\x10\x11")
    sent = b"".join(keys.feed(data[at : at + size]) for at in range(0, len(data), size))
    assert sent == data
    assert not keys.found


def test_half_a_sequence_is_held_back_and_sent_with_what_follows():
    keys = DetachFilter(b"\x10\x10\x11")
    assert keys.feed(b"a\x10") == b"a"
    assert keys.feed(b"\x10\x10") == b"\x10"
    assert keys.feed(b"b") == b"\x10\x10b"
    assert keys.feed(b"\x10\x10\x11") == b""
    assert keys.found


def test_detach_keys_have_names():
    assert detach_keys("") == b"\x10\x11"
    assert detach_keys("ctrl-a,b") == b"\x01b"
    assert detach_keys("ctrl-@,ctrl-[,ctrl-_") == b"\x00\x1b\x1f"
    for text in ("ctrl-", "abc", "ctrl-1", "a,,b", "é"):
        with pytest.raises(InvalidArgument, match="invalid detach keys"):
            detach_keys(text)
