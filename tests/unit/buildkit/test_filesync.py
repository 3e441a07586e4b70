from __future__ import annotations

import asyncio
import io
import tarfile
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from berth.buildkit import filesync, messages
from berth.buildkit.filesync import DATA, DIRECTORY, ERR, FIN, REQ, STAT, SYMLINK, Transfer
from berth.errors import BerthError, Failed, InvalidArgument

Packet, Stat = messages.of("Packet"), messages.of("Stat")


class Stream:
    """A client that sends what it was told to, whatever it is asked."""

    def __init__(self, packets) -> None:
        self.packets = deque(packets)
        self.sent = []

    async def recv_message(self):
        return self.packets.popleft() if self.packets else None

    async def recv_trailing_metadata(self) -> None:
        return

    async def send_message(self, message, end=False) -> None:
        self.sent.append((message.type, message.ID, end))


def told(path=b"", mode=0o644, size=0, **more):
    return Packet(type=STAT, stat=Stat(path=path, mode=mode, size=size, **more))


ALL_TOLD = Packet(type=STAT)
OVER = Packet(type=FIN)


def data(number, content=b""):
    return Packet(type=DATA, ID=number, data=content)


def pieces_of(*packets):
    stream = Stream(packets)

    async def collect():
        return [piece async for piece in Transfer(stream, lambda _: True).pieces()]

    return asyncio.run(collect()), stream


def test_small_files_are_asked_for_together_and_may_come_mixed():
    found, stream = pieces_of(
        *(told(b"a", size=2), told(b"b", size=2), data(0, b"x"), data(1, b"y"), ALL_TOLD),
        *(data(1, b"z"), data(1), data(0, b"w"), data(0), OVER),
    )
    assert [(piece.member.name, piece.data) for piece in found] == [("b", b"yz"), ("a", b"xw")]
    assert stream.sent == [(REQ, 0, False), (REQ, 1, False), (FIN, 0, True)]


def test_a_large_file_comes_alone_and_in_pieces():
    size = filesync.SMALL_BYTES + 1
    found, stream = pieces_of(
        *(told(b"large", size=size), told(b"small", size=1), ALL_TOLD),
        *(data(0, b"x" * (size - 1)), data(0, b"x"), data(0), data(1, b"y"), data(1), OVER),
    )
    assert [(piece.first, piece.last) for piece in found] == [
        *((True, False), (False, False), (False, True), (True, True)),
    ]
    assert stream.sent[:2] == [(REQ, 0, False), (REQ, 1, False)]


@pytest.mark.parametrize(
    ("packets", "kind"),
    [
        ((data(7, b"x"),), InvalidArgument),
        ((told(b"a", size=1), data(1, b"x")), InvalidArgument),
        ((OVER,), InvalidArgument),
        ((Packet(type=ERR, data=b"why \xff"),), Failed),
        ((told(b"a", size=-1),), InvalidArgument),
        ((told(b"a\0b", size=1),), InvalidArgument),
        ((told(b"a", size=1), data(0, b"x" * (3 << 20))), Failed),
        ((told(b"a", size=2 << 20), data(0, b"x"), data(0)), Failed),
        ((told(b"a", size=2 << 20), data(0, b"x" * (3 << 20))), Failed),
    ],
)
def test_what_makes_no_sense_is_refused(packets, kind):
    with pytest.raises(kind):
        pieces_of(*packets)


PATHS = st.sampled_from(
    (b"", b"/", b"a", b"a/b", b"../x", b"/etc/x", b"a/../../x", b"\xff", b"n" * 5000)
)
MODES = st.sampled_from((0o644, DIRECTORY | 0o755, SYMLINK, 1 << 26, 1 << 24, 1 << 25, 0xFFFFFFFF))
PACKETS = st.one_of(
    st.builds(
        told,
        path=PATHS,
        mode=MODES,
        size=st.sampled_from((0, 1, 1 << 20, (1 << 20) + 1, 1 << 62, -5)),
        linkname=PATHS,
        uid=st.integers(0, (1 << 32) - 1),
        modTime=st.integers(-(1 << 63), (1 << 63) - 1),
        devmajor=st.integers(-(1 << 63), (1 << 63) - 1),
        xattrs=st.dictionaries(st.text(max_size=5), st.binary(max_size=5), max_size=2),
    ),
    st.builds(data, st.integers(0, 3), st.binary(max_size=9)),
    st.builds(Packet, type=st.integers(-1, 9), ID=st.integers(0, 3), data=st.binary(max_size=9)),
    st.just(ALL_TOLD),
)


@settings(deadline=None, max_examples=300)
@given(st.lists(PACKETS, max_size=12))
def test_whatever_comes_ends_in_files_or_in_an_error_of_ours(packets):
    try:
        found, _ = pieces_of(*packets, ALL_TOLD, OVER)
    except BerthError:
        return
    assert all(piece.member.size >= 0 for piece in found)


class Session:
    """A session of such a client."""

    def __init__(self, packets) -> None:
        self.stream = Stream(packets)
        self.stream.send_request = self.send_request
        self.caller = self
        self.metadata = []

    async def send_request(self) -> None:
        return

    def open(self, *names, metadata):
        self.metadata = metadata
        return self

    async def __aenter__(self):
        return self.stream

    async def __aexit__(self, *error):
        return None


def archive_of(*packets):
    async def collect():
        chunks = filesync.archive(Session(packets), "context", [], lambda _: None)
        return b"".join([chunk async for chunk in chunks])

    return tarfile.open(fileobj=io.BytesIO(asyncio.run(collect())))


def test_an_archive_is_whole_whatever_comes_while_a_large_file_does():
    size = filesync.SMALL_BYTES + 5
    archive = archive_of(
        *(told(b"large", size=size), data(0, b"x" * 100), told(b"d", DIRECTORY | 0o755)),
        *(told(b"d/link", SYMLINK, linkname=b"../large"), told(b"hard", linkname=b"large")),
        *(told(b"d/small", size=1), ALL_TOLD, data(0, b"x" * (size - 100)), data(0)),
        *(data(4, b"y"), data(4), OVER),
    )
    assert archive.getnames() == ["large", "d", "d/link", "d/small", "hard"]
    assert archive.extractfile("large").read() == b"x" * size
    assert archive.extractfile("d/small").read() == b"y"
    assert archive.getmember("hard").islnk()


def test_a_file_is_read_through_links_of_the_same_directory():
    async def read(*packets):
        return await filesync.read(Session(packets), "dockerfile", ["Dockerfile"], 100)

    found = asyncio.run(
        read(
            told(b"Dockerfile", SYMLINK, linkname=b"in/real"),
            *(told(b"in/real", size=1), ALL_TOLD, data(1, b"x"), data(1), OVER),
        )
    )
    assert found == {"Dockerfile": b"x"}
    circle = told(b"Dockerfile", SYMLINK, linkname=b"Dockerfile")
    with pytest.raises(BerthError, match="symbolic links"):
        asyncio.run(read(circle, ALL_TOLD, OVER))
    with pytest.raises(InvalidArgument, match="larger"):
        asyncio.run(read(told(b"Dockerfile", size=101)))


def test_patterns_that_are_no_ascii_are_quoted():
    session = Session((ALL_TOLD, OVER))

    async def run():
        return [
            p async for p in filesync.transfer(session, "c", excludes=["a b", "ä+"], only=["x"])
        ]

    assert asyncio.run(run()) == []
    assert session.metadata == [
        *(("dir-name", "c"), ("exclude-patterns", "a+b"), ("exclude-patterns", "%C3%A4%2B")),
        *(("exclude-patterns-encoded", "1"), ("followpaths", "x")),
    ]
