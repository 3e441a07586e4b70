import asyncio
import gzip
import json
import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.logs.entries import LogQuery, padded, parse
from berth.logs.reader import read_entries, read_frames
from berth.runtime.jsonlog import LogWriter, encode

SECOND_NS = 1_000_000_000
START_NS = 1_767_322_800 * SECOND_NS


@pytest.fixture
def path(tmp_path):
    return tmp_path / "c-json.log"


def write(path, *lines, max_size_bytes=None, max_files=1, stream="stdout"):
    writer = LogWriter(str(path), max_size_bytes, max_files)
    for line in lines:
        number = int(line.split()[-1]) if line.split()[-1:] and line.split()[-1].isdigit() else 0
        writer.write(stream, line.encode(), START_NS + number * SECOND_NS)
    writer.close()


def read(path, *, terminal=True, ended=True, **query):
    async def collect():
        event = asyncio.Event()
        if ended:
            event.set()
        frames = read_frames(path, LogQuery(**query), terminal=terminal, ended=event)
        return b"".join([frame async for frame in frames])

    return asyncio.run(collect())


def numbered(*numbers):
    return b"".join(b"line %d\n" % n for n in numbers)


def test_a_log_that_is_not_there_is_empty(path):
    assert read(path) == b""
    assert read(path, follow=True) == b""


@given(st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), st.binary(max_size=60))))
def test_what_was_written_is_read(chunks):
    block = b"".join(encode(stream, chunk, START_NS) for stream, chunk in chunks)
    read_back = b"".join(entry.text for entry in parse(block))
    texts = [json.loads(line)["log"] for line in block.splitlines()]
    assert read_back.decode() == "".join(texts)


def test_streams_are_framed(path):
    write(path, "out\n")
    write(path, "err\n", stream="stderr")
    assert read(path, terminal=False) == b"\1\0\0\0\0\0\0\4out\n\2\0\0\0\0\0\0\4err\n"
    assert read(path, terminal=False, stdout=False) == b"\2\0\0\0\0\0\0\4err\n"


def test_times_have_nine_digits(path):
    write(path, "line 0\n")
    assert read(path, timestamps=True) == b"2026-01-02T03:00:00.000000000Z line 0\n"
    assert padded(b"2026-01-02T03:00:00.12Z") == b"2026-01-02T03:00:00.120000000Z"


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        ({"since_ns": START_NS + 3 * SECOND_NS}, range(3, 6)),
        ({"since_ns": START_NS + 3 * SECOND_NS + 1}, range(4, 6)),
        ({"until_ns": START_NS + 2 * SECOND_NS}, range(3)),
        ({"since_ns": START_NS + SECOND_NS, "until_ns": START_NS + 2 * SECOND_NS}, (1, 2)),
        ({"tail": 2}, (4, 5)),
        ({"tail": 0}, ()),
        ({"tail": 100}, range(6)),
        ({"tail": 2, "since_ns": START_NS + 5 * SECOND_NS}, (5,)),
    ],
)
def test_entries_are_selected(path, query, numbers):
    write(path, *(f"line {n}\n" for n in range(6)))
    assert read(path, **query) == numbered(*numbers)


@pytest.mark.parametrize("tail", [None, 1, 3, 7, 11, 20])
def test_rotated_files_are_read_oldest_first(path, tail):
    write(path, *(f"line {n}\n" for n in range(12)), max_size_bytes=200, max_files=5)
    assert len(os.listdir(path.parent)) == 4
    assert read(path, tail=tail) == numbered(*range(12)[-(tail or 12) :])


def test_a_tail_may_be_longer_than_a_block(path):
    write(path, *(f"{'x' * 5000} {n}\n" for n in range(200)))
    assert read(path, tail=120).count(b"\n") == 120
    assert read(path, tail=120).startswith(b"x" * 5000 + b" 80\n")


def test_details_are_sorted_and_quoted(path):
    path.write_bytes(
        b'{"log":"a\\n","stream":"stdout","attrs":{"b":"x y","a":"1"},"time":"2026-01-02T03:00:00Z"}\n'
    )
    write(path, "line 1\n")
    assert read(path, details=True) == b"a=1,b=x+y a\n line 1\n"


def test_foreign_and_broken_lines_do_no_harm(path):
    path.write_bytes(
        b'{"time":"2026-01-02T03:00:00Z","stream":"stdout","log":"other order \\u00e9\\n"}\n'
        b'{"log":"torn\n'
        b"\xff\n"
    )
    write(path, "line 1\n")
    with path.open("ab") as file:
        file.write(b'{"log":"unfinish')
    assert read(path) == "other order é\nline 1\n".encode()


def test_entries_carry_stream_and_time(path):
    write(path, "line 1\n")

    async def collect():
        return [
            e
            async for batch in read_entries(path, LogQuery(), ended=asyncio.Event())
            for e in batch
        ]

    (entry,) = asyncio.run(collect())
    assert (entry.text, entry.stream, entry.time) == (
        b"line 1\n",
        b"stdout",
        b"2026-01-02T03:00:01Z",
    )


async def follow(path, ended, **query):
    frames = read_frames(path, LogQuery(follow=True, **query), terminal=True, ended=ended)
    return b"".join([frame async for frame in frames])


async def next_bytes(frames, size):
    data = b""
    async for frame in frames:
        data += frame
        if len(data) >= size:
            return data
    return data


def test_following_sees_what_comes_and_ends_with_the_container(path):
    async def scenario():
        ended = asyncio.Event()
        writer = LogWriter(str(path), 200, 2)
        writer.write("stdout", b"line 0\n", START_NS)
        frames = read_frames(path, LogQuery(follow=True), terminal=True, ended=ended)
        assert await next_bytes(frames, 1) == b"line 0\n"
        for number in range(1, 10):
            frames = read_frames(path, LogQuery(follow=True, tail=0), terminal=True, ended=ended)
            waiting = asyncio.ensure_future(next_bytes(frames, 1))
            await asyncio.sleep(0)
            writer.write("stdout", b"line %d\n" % number, START_NS)
            assert await asyncio.wait_for(waiting, 5) == b"line %d\n" % number
            await frames.aclose()
        reading = asyncio.ensure_future(follow(path, ended, tail=1))
        await asyncio.sleep(0)
        writer.write("stdout", b"last", START_NS)
        writer.close()
        ended.set()
        assert await asyncio.wait_for(reading, 5) == b"line 9\nlast"

    before = os.listdir("/proc/self/fd")
    asyncio.run(scenario())
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize("max_files", [1, 3])
def test_following_survives_rotations(path, max_files):
    async def scenario():
        ended = asyncio.Event()
        writer = LogWriter(str(path), 150, max_files)
        frames = read_frames(path, LogQuery(follow=True), terminal=True, ended=ended)
        for number in range(20):
            writer.write("stdout", b"line %d\n" % number, START_NS)
            expected = numbered(number)
            data = await asyncio.wait_for(anext(frames), 5)
            assert data == expected
        writer.close()
        ended.set()
        assert [frame async for frame in frames] == []

    asyncio.run(scenario())


@pytest.mark.parametrize("hole", [1, 2, 3])
def test_following_misses_nothing_in_the_middle_of_a_rotation(path, hole):
    async def scenario():
        ended = asyncio.Event()
        write(path, "line 0\n")
        frames = read_frames(path, LogQuery(follow=True), terminal=True, ended=ended)
        assert await anext(frames) == numbered(0)
        for number in range(1, 5):
            age(path, 3)
            write(path, f"line {number}\n")
        age(path, 5, last=hole)  # as far as a writer has come that is at this name
        ended.set()
        return b"".join([frame async for frame in frames])

    assert asyncio.run(scenario()) == numbered(*range(1, 5))


def test_following_misses_no_packed_file_whose_inode_is_the_newest_ones_now(path):
    async def scenario():
        ended = asyncio.Event()
        write(path, "line 0\n")
        frames = read_frames(path, LogQuery(follow=True), terminal=True, ended=ended)
        assert await anext(frames) == numbered(0)
        age(path, 1)
        write(path, "line 1\n")
        data = path.read_bytes()
        path.with_name("new").touch()
        path.with_name("new").rename(path)  # empty yet
        with (
            path.with_name(path.name + ".1.gz").open("wb") as file,
            gzip.GzipFile(str(path.stat().st_ino), "wb", fileobj=file) as packed,
        ):
            packed.write(data)
        age(path, 1, last=1)
        ended.set()
        return b"".join([frame async for frame in frames])

    assert asyncio.run(scenario()) == numbered(1)


def age(path, oldest, last=0):
    """Give files their next names, the oldest first."""
    for number in range(oldest, last - 1, -1):
        name = path.with_name(f"{path.name}.{number}") if number else path
        if name.exists():
            name.rename(path.with_name(f"{path.name}.{number + 1}"))


def test_following_until_a_moment_ends_then(path):
    async def scenario():
        until = time.time_ns() + SECOND_NS // 20
        write(path, "line 0\n")
        return await asyncio.wait_for(follow(path, asyncio.Event(), until_ns=until), 5)

    assert asyncio.run(scenario()) == b"line 0\n"


def test_following_begins_before_there_is_a_log(path):
    async def scenario():
        ended = asyncio.Event()
        reading = asyncio.ensure_future(follow(path, ended))
        await asyncio.sleep(0)
        write(path, "line 0\n")
        ended.set()
        return await asyncio.wait_for(reading, 5)

    assert asyncio.run(scenario()) == b"line 0\n"


def test_what_is_read_in_one_frame_is_what_lines_say(path):
    write(path, *(f"line {n}\n" for n in range(3000)))
    expected = numbered(*range(3000))
    assert read(path) == expected
    frames = read(path, terminal=False)
    assert frames.count(b"\x01\0\0\0") < 100
    found = b""
    while frames:
        size = int.from_bytes(frames[4:8], "big")
        found, frames = found + frames[8 : 8 + size], frames[8 + size :]
    assert found == expected
    followed = read(path, terminal=False, follow=True)
    assert followed.count(b"\x01\0\0\0") == 3000
    assert read(path, stdout=False) == b""
