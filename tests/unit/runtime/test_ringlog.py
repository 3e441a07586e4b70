"""A log whose disk is slow, which here is a pipe that nobody reads."""

import json
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from berth.runtime.jsonlog import LogWriter
from berth.runtime.ringlog import RingLog

LIMIT_BYTES = 200_000
CHUNK = (b"x" * 99 + b"\n") * 600


@pytest.fixture
def pipe(tmp_path):
    path = tmp_path / "log"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    yield path, reader
    os.close(reader)


def close(log):
    """Wait until everything is written, and close."""
    fd = log.finish()
    assert os.read(fd, 1) == b""
    os.close(fd)
    log.close()


def entries(data):
    return [json.loads(line) for line in data.splitlines()]


def test_what_there_is_room_for_is_written_in_order(tmp_path):
    path = tmp_path / "log"
    log = RingLog(LogWriter(str(path), None, 1), LIMIT_BYTES)
    for number in range(1000):
        log.write("stdout", b"line %d\n" % number, 1)
    log.write("stderr", b"no end", 1)
    close(log)
    found = [entry["log"] for entry in entries(path.read_bytes())]
    assert found == [*(f"line {number}\n" for number in range(1000)), "no end"]


def test_a_log_to_which_nothing_was_written_is_closed(tmp_path):
    path = tmp_path / "log"
    close(RingLog(LogWriter(str(path), None, 1), LIMIT_BYTES))
    assert path.read_bytes() == b""


def test_it_is_cleared_in_its_turn(tmp_path):
    path = tmp_path / "log"
    log = RingLog(LogWriter(str(path), None, 1), LIMIT_BYTES)
    log.write("stdout", b"before\n", 1)
    log.clear()
    log.write("stdout", b"after\n", 1)
    close(log)
    assert [entry["log"] for entry in entries(path.read_bytes())] == ["after\n"]


def test_what_there_is_no_room_for_is_lost_and_the_log_says_how_much(pipe):
    path, reader = pipe
    log = RingLog(LogWriter(str(path), None, 1), LIMIT_BYTES)
    for _ in range(20):
        log.write("stdout", CHUNK, 1)  # which waits for nobody
    os.set_blocking(reader, True)
    with ThreadPoolExecutor(1) as pool:
        closed = pool.submit(close, log)
        found = entries(b"".join(iter(lambda: os.read(reader, 1 << 16), b"")))
        closed.result()
    *lines, last = found
    kept = sum(len(entry["log"]) for entry in lines)
    assert last["log"] == (
        f"berth: {20 * len(CHUNK) - kept} bytes of the log are missing here: its disk is too slow\n"
    )
    assert 0 < kept <= LIMIT_BYTES + len(CHUNK)
