import json
import os
import resource
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.runtime.jsonlog import MAX_LINE_BYTES, LogWriter, encode, timestamp

NOON_NS = 1_767_322_845_123_456_789


def entries(data):
    assert data == b"" or data.endswith(b"\n")
    return [json.loads(line) for line in data.splitlines()]


def texts(data):
    return [entry["log"] for entry in entries(data)]


def test_times_are_written_as_go_does():
    assert timestamp(NOON_NS) == "2026-01-02T03:00:45.123456789Z"
    assert timestamp(1_767_322_845_100_000_000) == "2026-01-02T03:00:45.1Z"
    assert timestamp(1_767_322_845_000_000_000) == "2026-01-02T03:00:45Z"


def test_an_entry_is_docker_s_byte_for_byte():
    line = '"\\<&>\t\x1b[0m\r é \u2028\x7f\n'.encode()
    assert encode("stderr", line, NOON_NS) == (
        rb'{"log":"\"\\\u003c\u0026\u003e\u0009\u001b[0m\r ' + "é".encode() + rb" \u2028" + b"\x7f"
        rb'\n","stream":"stderr","time":"2026-01-02T03:00:45.123456789Z"}' + b"\n"
    )


@given(st.binary(max_size=200))
def test_entries_give_back_every_text(data):
    expected = data.decode("utf-8", "surrogateescape").translate(
        dict.fromkeys(range(0xDC80, 0xDD00), "\ufffd")
    )
    written = encode("stdout", data, NOON_NS)
    assert "".join(texts(written)) == expected
    assert len(entries(written)) == data.count(b"\n") + (not data.endswith(b"\n") and data != b"")


@given(st.text(max_size=300), st.integers(0, 40))
def test_lines_too_long_give_back_every_text(text, padding):
    data = (text + "é" * (MAX_LINE_BYTES // 2) + "x" * padding + "ab\n" + text).encode()
    written = texts(encode("stdout", data, NOON_NS))
    assert "".join(written) == data.decode()
    assert all(len(piece.encode()) <= MAX_LINE_BYTES + 1 for piece in written)


def test_a_line_that_just_fits_is_one_entry():
    fitting = b"x" * MAX_LINE_BYTES + b"\n"
    assert len(entries(encode("stdout", fitting, NOON_NS))) == 1
    assert [len(t) for t in texts(encode("stdout", b"x" + fitting, NOON_NS))] == [16384, 2]


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_chunks_may_end_anywhere(tmp_path_factory, chunks):
    path = tmp_path_factory.mktemp("log") / "json.log"
    writer = LogWriter(str(path), None, 1)
    for chunk in chunks:
        writer.write("stdout", chunk, NOON_NS)
    writer.flush(NOON_NS)
    writer.close()
    assert path.read_bytes() == encode("stdout", b"".join(chunks), NOON_NS)


def test_streams_do_not_mix_inside_a_line(tmp_path):
    path = tmp_path / "json.log"
    writer = LogWriter(str(path), None, 1)
    writer.write("stdout", b"on", 1)
    writer.write("stderr", b"err\npart", 2)
    writer.write("stdout", b"e\n", 3)
    writer.flush(4)
    writer.close()
    assert [(e["stream"], e["log"]) for e in entries(path.read_bytes())] == [
        ("stderr", "err\n"),
        ("stdout", "one\n"),
        ("stderr", "part"),
    ]


def test_an_endless_line_is_written_as_it_grows(tmp_path):
    path = tmp_path / "json.log"
    writer = LogWriter(str(path), None, 1)
    for _ in range(10):
        writer.write("stdout", b"x" * 4096, NOON_NS)
    assert [len(text) for text in texts(path.read_bytes())] == [16384, 16384]
    writer.close()
    assert sum(len(text) for text in texts(path.read_bytes())) == 40960


def test_an_open_log_is_continued(tmp_path):
    path = tmp_path / "json.log"
    for text in (b"one\n", b"two\n"):
        writer = LogWriter(str(path), None, 1)
        writer.write("stdout", text, NOON_NS)
        writer.close()
    assert texts(path.read_bytes()) == ["one\n", "two\n"]
    assert path.stat().st_mode & 0o777 == 0o640


def test_rotation_keeps_the_newest_files_whole(tmp_path):
    path = tmp_path / "json.log"
    writer = LogWriter(str(path), 300, 3)
    for start in range(0, 40, 20):
        chunk = b"".join(b"line %02d\n" % n for n in range(start, start + 20))
        writer.write("stdout", chunk, NOON_NS)
    writer.close()
    files = [tmp_path / "json.log.2", tmp_path / "json.log.1", path]
    assert sorted(os.listdir(tmp_path)) == ["json.log", "json.log.1", "json.log.2"]
    kept = [text for file in files for text in texts(file.read_bytes())]
    assert kept == [f"line {n:02d}\n" for n in range(40 - len(kept), 40)]
    for file in files[:2]:
        size = file.stat().st_size
        assert 300 <= size < 300 + len(encode("stdout", b"line 00\n", NOON_NS))


def test_one_file_starts_afresh_and_readers_keep_the_old_one(tmp_path):
    path = tmp_path / "json.log"
    writer = LogWriter(str(path), 100, 1)
    writer.write("stdout", b"x" * 100 + b"\n", NOON_NS)
    with path.open("rb") as reader:
        writer.write("stdout", b"next\n", NOON_NS)
        assert texts(reader.read()) == ["x" * 100 + "\n"]
    assert texts(path.read_bytes()) == ["next\n"]
    assert os.listdir(tmp_path) == ["json.log"]
    writer.close()


@pytest.fixture
def file_size_limit():
    """Set RLIMIT_FSIZE: the kernel then refuses to write on, as on a full disk, with EFBIG."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def set_limit(size):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))

    yield set_limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_loses_whole_entries_and_the_log_says_so_once(tmp_path, file_size_limit):
    path = tmp_path / "json.log"
    writer = LogWriter(str(path), None, 1)
    writer.write("stdout", b"before\n", NOON_NS)
    whole = path.read_bytes()
    file_size_limit(len(whole) + 10)
    lost = 0
    for text in (b"lost\n", b"lost too\n"):
        writer.write("stdout", text, NOON_NS)
        lost += len(encode("stdout", text, NOON_NS))
        assert path.read_bytes() == whole
    file_size_limit(resource.RLIM_INFINITY)
    writer.write("stdout", b"after\n", NOON_NS)
    writer.write("stdout", b"and on\n", NOON_NS)
    writer.close()
    assert texts(path.read_bytes()) == [
        "before\n",
        f"berth: {lost} bytes of the log are missing here: File too large\n",
        "after\n",
        "and on\n",
    ]


WRITING = """
import resource, sys
from berth.kernel import processes
from berth.runtime.jsonlog import LogWriter
if sys.argv[2:]:
    processes.keep_freed_memory(1 << 20)
log = LogWriter(sys.argv[1], 10_000_000, 2)
faults = []
for _ in range(2):
    for _ in range(200):
        log.write("stdout", (b"x" * 99 + b"\\n") * 655 + b"the rest", 1)
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(faults[1] - faults[0])
"""


def test_chunk_after_chunk_is_written_in_the_same_memory(tmp_path):
    def faults(*words):
        command = [sys.executable, "-c", WRITING, tmp_path / "log", *words]
        return int(subprocess.run(command, check=True, capture_output=True).stdout)

    assert faults("keep") < 1000 < faults()  # a process of its own: the first one's heap is small
