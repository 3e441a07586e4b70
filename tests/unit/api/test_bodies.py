"""Chunked bodies: any cut of any body gives its bytes, and what is none is h11's to refuse."""

from __future__ import annotations

import itertools

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.api.bodies import ChunkedBody, head_size

HEAD = b"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


def framed(pieces: list[bytes]) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)


@given(
    pieces=st.lists(st.binary(min_size=1, max_size=40), max_size=6),
    tail=st.sampled_from([b"0\r\n\r\n", b"000;a=b\r\nX: y\r\n\r\n", b"0\r\n\r\nGET / HTTP"]),
    cuts=st.lists(st.integers(0, 300), max_size=8),
)
def test_any_cut_gives_the_same_body_and_rest(
    pieces: list[bytes], tail: bytes, cuts: list[int]
) -> None:
    data = framed(pieces) + tail
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    body, found, rest = ChunkedBody(), b"", b""
    for start, end in itertools.pairwise(edges):
        rest += body.receive(data[start:end])
        found += body.take()
    assert (found, rest, body.is_over) == (b"".join(pieces), tail, True)


@pytest.mark.parametrize(
    "data",
    [
        b"x\r\nabc",
        b"-1\r\n",
        b"3\r\nabcde\r\n",
        b"3\nabc\r\n",
        b"1" * 17 + b"\r\n",
        b"3;" + b"a" * 5000,
        b"3\r\nabc\rX",
    ],
)
def test_what_is_no_chunk_is_refused_by_h11(data: bytes) -> None:
    http = h11.Connection(h11.SERVER)
    http.receive_data(HEAD)
    assert isinstance(http.next_event(), h11.Request)
    rest = ChunkedBody().receive(data)
    assert rest
    http.receive_data(rest)
    with pytest.raises(h11.RemoteProtocolError):
        while http.next_event() is not h11.NEED_DATA:
            continue


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (HEAD + b"3\r\nabc", len(HEAD)),
        (HEAD[:-2], 0),
        (HEAD.replace(b"chunked", b"gzip, chunked"), 0),
        (b"POST /x HTTP/1.1\r\nHost: x\r\n\r\nTransfer-Encoding: chunked\r\n\r\n", 0),
    ],
)
def test_a_head_is_told_by_what_it_says(data: bytes, size: int) -> None:
    assert head_size(data) == size
