"""What becomes of a process's output when it has ended and others go on writing."""

import fcntl
import os

import pytest

from berth.runtime.clients import STDOUT
from berth.runtime.streams import Streams


class Echo:
    """A log that writes into the pipe again what was read from it, as a process does that was left behind."""

    def __init__(self, writer):
        self.writer = writer
        self.size = 0

    def write(self, stream, chunk, time_ns):
        self.size += len(chunk)
        assert self.size <= 1 << 23, "it has no end"
        os.write(self.writer, chunk)

    def close(self):
        pass


@pytest.fixture
def pipe():
    reader, writer = os.pipe()
    yield reader, writer
    os.close(writer)


def test_after_the_end_no_more_is_read_than_what_was_waiting(pipe):
    reader, writer = pipe
    waiting = fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 1 << 18)
    os.write(writer, bytes(waiting))
    streams = Streams(stdin_once=False)
    streams.add_output(reader, STDOUT)
    streams.log = log = Echo(writer)
    streams.pass_on_the_rest()
    assert log.size == waiting
    assert not streams.outputs
    with pytest.raises(BrokenPipeError):
        os.write(writer, b"more")
    streams.close()


def test_after_the_end_all_that_was_waiting_is_read(pipe):
    reader, writer = pipe
    os.write(writer, b"some")
    streams = Streams(stdin_once=False)
    streams.add_output(reader, STDOUT)
    streams.log = log = Echo(os.open(os.devnull, os.O_WRONLY))
    streams.pass_on_the_rest()
    assert log.size == 4
    os.close(log.writer)
    streams.close()
