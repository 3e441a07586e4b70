from __future__ import annotations

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.api import plain

GET = b"GET /_ping HTTP/1.1\r\nHost: docker\r\nUser-Agent: Go (linux)\r\n\r\n"


def by_h11(data):
    """The request and its body as h11 reads them, None unless they are exactly one."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    try:
        request = connection.next_event()
        if not isinstance(request, h11.Request):
            return None
        body, event = b"", connection.next_event()
        while isinstance(event, h11.Data):
            body, event = body + bytes(event.data), connection.next_event()
    except h11.RemoteProtocolError:
        return None
    if not isinstance(event, h11.EndOfMessage) or connection.trailing_data[0]:
        return None
    return request.method, request.target, [(bytes(n), bytes(v)) for n, v in request.headers], body


NAMES = st.sampled_from(
    [
        b"Host",
        b"X-A",
        b"Content-Length",
        b"content-length",
        b"Connection",
        b"Expect",
        b"bad name",
        b"",
    ]
)
VALUES = st.one_of(
    st.sampled_from(
        [b"", b" ", b"0", b"3", b"03", b"-1", b"close", b"Upgrade", b"a b", b"\t x \t"]
    ),
    st.binary(max_size=4),
)
HEADERS = st.lists(st.tuples(NAMES, VALUES), max_size=4)


@given(
    st.sampled_from([b"GET", b"POST", b"get", b"G T", b"PATCH"]),
    st.sampled_from([b"/", b"/x?a=b", b"*", b"/ x", b"/\xff", b""]),
    st.sampled_from([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/1.1 "]),
    HEADERS,
    st.sampled_from([b"", b"abc", b"abcd"]),
)
def test_what_is_plain_is_read_as_h11_reads_it(method, target, version, headers, body):
    lines = b"".join(name + b": " + value + b"\r\n" for name, value in [(b"Host", b"x"), *headers])
    data = b"%b %b %b\r\n%b\r\n%b" % (method, target, version, lines, body)
    found = plain.parse(data)
    if found is not None:
        assert tuple(found) == by_h11(data)


@given(st.integers(0, len(GET) - 1), st.binary(max_size=3))
def test_what_is_changed_is_read_as_h11_reads_it(position, change):
    data = GET[:position] + change + GET[position + len(change) :]
    found = plain.parse(data)
    if found is not None:
        assert tuple(found) == by_h11(data)


@pytest.mark.parametrize(
    "data",
    [
        GET,
        b"HEAD /_ping HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /v1.44/containers/x/attach HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n",
        b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
    ],
)
def test_what_clients_send_is_plain(data):
    assert tuple(plain.parse(data)) == by_h11(data)


@pytest.mark.parametrize(
    "data",
    [
        GET + GET,
        GET[:-2],
        GET.replace(b"Host", b"Hast"),
        GET.replace(b"1.1", b"1.0"),
        GET.replace(b"User-Agent: Go (linux)", b"Connection: close"),
        GET.replace(b"User-Agent: Go (linux)", b"Transfer-Encoding: chunked"),
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{}",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    ],
)
def test_the_rest_is_for_the_parser(data):
    assert plain.parse(data) is None


def test_answers_are_those_of_h11():
    for headers, data in (
        ([("Content-Type", "x"), ("Content-Length", "3")], b"abc"),
        ([("Transfer-Encoding", "chunked")], b"abc"),
        ([("Content-Length", "0")], b""),
    ):
        connection = h11.Connection(h11.SERVER)
        connection.receive_data(GET)
        connection.next_event()
        head = h11.Response(status_code=200, headers=headers, reason=b"OK")
        events = [head, *([h11.Data(data=data)] if data else []), h11.EndOfMessage()]
        answer = plain.Answer()
        for event in events:
            assert answer.encode(event) == connection.send(event)
        assert answer.done


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n" + (b"X:" + b" " * 60 + b"\r\n") * 40 + b"\xff",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: a" + b" " * 60_000 + b"b\x01\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a " * 30_000 + b"\x01\r\n\r\n",
    ],
    ids=["blank values", "a run of blanks", "words"],
)
def test_no_bytes_of_a_client_keep_it_busy(data):
    """With an expression that tries twice, each of these would not end in this life."""
    assert plain.parse(data) is None
