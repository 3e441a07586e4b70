from __future__ import annotations

import bz2
import gzip
import lzma
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.errors import InvalidArgument
from berth.images import streams
from berth.images.compressions import compression
from berth.images.streams import ByteStream, plain_chunks

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

COMPRESSORS = {
    "gzip": gzip.compress,
    "zstd": zstd.compress,
    "xz": lzma.compress,
    "bzip2": bz2.compress,
    None: bytes,
}
DATA = b"".join(b"%d\n" % n for n in range(60_000))


def cut(data, size):
    return (data[at : at + size] for at in range(0, len(data), size))


@pytest.mark.parametrize("name", COMPRESSORS)
@pytest.mark.parametrize("size", [1 << 20, 4096])
def test_plain_bytes_come_out_in_bounded_pieces(name, size):
    data = COMPRESSORS[name](DATA)
    assert compression(data[:6]) == name
    pieces = list(plain_chunks(cut(data, size)))
    assert b"".join(pieces) == DATA
    assert max(map(len, pieces)) <= streams.CHUNK_BYTES


@pytest.mark.parametrize("name", [name for name in COMPRESSORS if name])
def test_members_follow_each_other_and_zeros_are_padding(name):
    data = COMPRESSORS[name](b"one ") + COMPRESSORS[name](b"two") + bytes(1000)
    assert b"".join(plain_chunks(cut(data, 7))) == b"one two"


@pytest.mark.parametrize("name", [name for name in COMPRESSORS if name])
def test_cut_off_data_is_refused(name):
    data = COMPRESSORS[name](DATA)[:-5]
    with pytest.raises(InvalidArgument, match=name):
        list(plain_chunks(cut(data, 5000)))


@pytest.mark.parametrize("name", ["gzip", "xz", "bzip2"])
def test_damaged_data_is_refused(name):
    data = bytearray(COMPRESSORS[name](DATA))
    data[len(data) // 2] ^= 0xFF
    data[len(data) // 2 + 1] ^= 0xFF
    with pytest.raises(InvalidArgument, match=name):
        list(plain_chunks(cut(bytes(data), 5000)))


def test_a_wrong_checksum_is_noticed():
    data = bytearray(gzip.compress(b"hello"))
    data[-6] ^= 1
    with pytest.raises(InvalidArgument):
        list(plain_chunks(iter([bytes(data)])))


def test_a_bomb_is_not_unpacked_in_memory():
    bomb = gzip.compress(bytes(48 << 20))
    assert all(len(piece) <= streams.CHUNK_BYTES for piece in plain_chunks(iter([bomb])))


def test_gzip_without_isal_is_the_same(monkeypatch):
    monkeypatch.setattr(streams, "FAST_GZIP", False)
    data = gzip.compress(DATA) + gzip.compress(b"more")
    assert b"".join(plain_chunks(cut(data, 3000))) == DATA + b"more"


def test_an_empty_stream_is_empty():
    assert list(plain_chunks(iter([]))) == []


@given(st.lists(st.binary(min_size=1, max_size=20)), st.lists(st.integers(0, 30)))
def test_reads_are_exact_until_the_end(chunks, sizes):
    whole = b"".join(chunks)
    stream = ByteStream(iter(chunks))
    at = 0
    for turn, size in enumerate(sizes):
        if turn % 2:
            assert stream.skip(size) == len(whole[at : at + size])
        else:
            assert stream.read(size) == whole[at : at + size]
        at += size
