"""Files of a build's client: what it sends of a directory, by the protocol of fsutil.

    client → berthd    STAT for each file, in order; one without a file when there are no more
    berthd → client    REQ with the number of a STAT: its data is wanted
    client → berthd    DATA with that number, in pieces; an empty one is the end of the file
    either → other     FIN when all is done; ERR with a text

Nothing here touches a file: what comes is turned into an archive, which a worker extracts.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote_plus

from berth.buildkit import messages
from berth.buildkit.sessions import ENDS, GONE, failure
from berth.errors import Failed, InvalidArgument, NotFound, Unavailable
from berth.images import tar
from berth.images.tar_writer import END, headers, padding

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from google.protobuf.message import Message
    from grpclib.client import Stream

    from berth.buildkit.sessions import Session

DIFF_COPY = "moby.filesync.v1.FileSync/DiffCopy"
STAT, REQ, DATA, FIN, ERR = range(5)
SMALL_BYTES = 1 << 20  # files up to this size are asked for several at a time
AHEAD_BYTES = 4 << 20
MAX_WAITING = 1_000_000  # files announced whose data has not come yet
MAX_READ = 4  # times what one of a few files may have, all of them may have
MAX_FEW = 10_000  # of them, and of links to them
MAX_NAME_BYTES = 1 << 16
MAX_LINKS = 40

# The bits of Go's FileMode.
DIRECTORY, SYMLINK, DEVICE, FIFO, SOCKET, CHARACTER = (1 << n for n in (31, 27, 26, 25, 24, 21))
IRREGULAR = 1 << 19
TYPES = DIRECTORY | SYMLINK | DEVICE | FIFO | SOCKET | CHARACTER | IRREGULAR
SPECIAL = ((1 << 23, stat.S_ISUID), (1 << 22, stat.S_ISGID), (1 << 20, stat.S_ISVTX))


@dataclass(slots=True)
class Entry:
    """One file that a client has told of."""

    number: int
    member: tar.Member
    data: bytearray | None = None  # of a small one, while it comes
    size_bytes: int = 0  # of a large one, so far


@dataclass(frozen=True, slots=True)
class Piece:
    """Some of a file: all of it when it is ``first`` and ``last``."""

    member: tar.Member
    data: bytes = b""
    first: bool = True
    last: bool = True


def member_of(found: Message) -> tar.Member | None:
    """Return a STAT as a member of an archive; None for what has no place there."""
    bits = found.mode
    kinds = {
        0: tar.LINK if found.linkname else tar.REGULAR,
        DIRECTORY: tar.DIRECTORY,
        SYMLINK: tar.SYMLINK,
        FIFO: tar.FIFO,
        DEVICE: tar.BLOCK_DEVICE,
        DEVICE | CHARACTER: tar.CHARACTER,
    }
    kind = kinds.get(bits & TYPES)
    if kind is None:
        return None
    member = tar.Member(bytes(tar.BLOCK))
    member.kind = kind
    member.name = os.fsdecode(found.path)
    if kind in (tar.LINK, tar.SYMLINK):
        member.linkname = os.fsdecode(found.linkname)
    member.mode = bits & 0o777 | sum(ours for go, ours in SPECIAL if bits & go)
    member.uid, member.gid = found.uid, found.gid
    member.size = member.real_size = found.size if kind == tar.REGULAR else 0
    member.mtime_ns = found.modTime
    member.major, member.minor = found.devmajor & 0xFFFFFFFF, found.devminor & 0xFFFFFFFF
    member.xattrs = dict(found.xattrs) or None
    size = len(found.path) + len(found.linkname)
    if member.size < 0 or size > MAX_NAME_BYTES or "\0" in member.name + member.linkname:
        raise InvalidArgument(f"{member.name[:200]!r}: no file is like that")
    return member


class Transfer:
    """Files of one directory that come from a client."""

    def __init__(
        self, stream: Stream[Message, Message], wanted: Callable[[tar.Member], bool]
    ) -> None:
        """``wanted``: says of a file whether its data is."""
        self._stream = stream
        self._wanted = wanted
        self._packet = messages.of("Packet")
        self._count = 0
        self._all_told = False
        self._waiting: deque[Entry] = deque()
        self._asked: dict[int, Entry] = {}
        self._asked_bytes = 0
        self._is_large = False  # what was asked for last

    async def pieces(self) -> AsyncIterator[Piece]:
        """Yield what comes, to the end. Failed: what the client says went wrong."""
        while not (self._all_told and not self._waiting and not self._asked):
            packet = await self._receive()
            if packet.type == STAT:
                if piece := self._told(packet):
                    yield piece
            elif packet.type == DATA:
                if piece := self._came(packet):
                    yield piece
            elif packet.type != REQ:
                raise InvalidArgument("the build's client ended a transfer before its end")
            await self._ask()
        # With the end of our side: else the client's comes as a reset, which would overtake what it sent.
        await self._stream.send_message(self._packet(type=FIN), end=True)
        while (await self._receive()).type != FIN:
            continue

    async def _receive(self) -> Message:
        packet = await self._stream.recv_message()
        if packet is None:
            await self._stream.recv_trailing_metadata()  # raises what the client says
            raise Unavailable(GONE)
        if packet.type == ERR:
            raise Failed(packet.data.decode("utf-8", "replace"))
        return packet

    def _told(self, packet: Message) -> Piece | None:
        """Take note of a file; return it if it has no data."""
        if not packet.HasField("stat"):
            self._all_told = True
            return None
        number = self._count
        self._count += 1
        member = member_of(packet.stat)
        if member is None:
            return None
        if member.kind != tar.REGULAR:
            return Piece(member)
        if self._wanted(member):
            self._waiting.append(Entry(number, member))
            if len(self._waiting) > MAX_WAITING:
                raise InvalidArgument(f"more than {MAX_WAITING} files wait to be sent")
        return None

    async def _ask(self) -> None:
        """Ask for data: of several small files, or of one large one."""
        while self._waiting:
            entry = self._waiting[0]
            small = entry.member.size <= SMALL_BYTES
            room = self._asked_bytes + entry.member.size <= AHEAD_BYTES
            if self._asked and not (small and room and not self._is_large):
                return
            self._is_large = not small
            self._waiting.popleft()
            entry.data = bytearray() if small else None
            self._asked[entry.number] = entry
            self._asked_bytes += entry.member.size
            await self._stream.send_message(self._packet(type=REQ, ID=entry.number))

    def _came(self, packet: Message) -> Piece | None:
        entry = self._asked.get(packet.ID)
        if entry is None:
            raise InvalidArgument(f"data came for file {packet.ID}, which was not asked for")
        member, last = entry.member, not packet.data
        if last:
            del self._asked[packet.ID]
            self._asked_bytes -= member.size
        if entry.data is not None:
            return self._small(entry, packet.data, last=last)
        first = entry.size_bytes == 0
        entry.size_bytes += len(packet.data)
        if entry.size_bytes > member.size or (last and entry.size_bytes != member.size):
            raise Failed(f"{member.name}: the file changed while it was sent")
        return Piece(member, packet.data, first=first, last=last)

    def _small(self, entry: Entry, data: bytes, *, last: bool) -> Piece | None:
        assert entry.data is not None
        entry.data += data
        if len(entry.data) > 2 * SMALL_BYTES:
            raise Failed(f"{entry.member.name}: the file changed while it was sent")
        if not last:
            return None
        entry.member.size = entry.member.real_size = len(entry.data)
        return Piece(entry.member, bytes(entry.data))


async def transfer(
    session: Session,
    name: str,
    *,
    excludes: Sequence[str] = (),
    only: Sequence[str] = (),
    wanted: Callable[[tar.Member], bool] = lambda _: True,
) -> AsyncIterator[Piece]:
    """Yield what the client's directory ``name`` has, ``only`` some paths of it and what they lead to."""
    metadata = [("dir-name", name)]
    for key, values in (("exclude-patterns", excludes), ("followpaths", only)):
        plain = all(value.isascii() and value.isprintable() for value in values)
        metadata += [(key, value if plain else quote_plus(value)) for value in values]
        if not plain:
            metadata.append((f"{key}-encoded", "1"))
    try:
        async with session.caller.open(DIFF_COPY, "Packet", "Packet", metadata=metadata) as stream:
            await stream.send_request()
            async for piece in Transfer(stream, wanted).pieces():
                yield piece
    except ENDS as error:
        raise failure(error) from error


async def archive(
    session: Session, name: str, excludes: Sequence[str], progress: Callable[[int], None]
) -> AsyncIterator[bytes]:
    """Yield a directory of the client as an archive. Hard links come last, after what they lead to."""
    links: list[tar.Member] = []
    held: list[tar.Member] = []  # what comes while a large file does, which has no data
    total, is_open = 0, False
    async for piece in transfer(session, name, excludes=excludes):
        is_link = piece.member.kind == tar.LINK
        if is_link or (is_open and piece.member.kind != tar.REGULAR):
            (links if is_link else held).append(piece.member)
            if len(links) + len(held) > MAX_WAITING:
                raise InvalidArgument(f"more than {MAX_WAITING} links and directories wait")
            continue
        is_open = not piece.last
        head = headers(piece.member) if piece.first else b""
        fill = padding(piece.member.size) if piece.last else b""
        total += len(piece.data)
        yield head + piece.data + fill
        progress(total)
        if piece.last:
            for member in held:
                yield headers(member)
            held.clear()
    for member in links:
        yield headers(member)
    yield END


async def read(session: Session, name: str, paths: Sequence[str], limit: int) -> dict[str, bytes]:
    """Return the files of a directory that are there, of some paths; links are followed inside of it."""
    links: dict[str, str] = {}
    found: dict[str, bytes] = {}
    total = 0

    def wanted(member: tar.Member) -> bool:
        if member.size > limit:
            raise InvalidArgument(f"{member.name} is larger than {limit >> 20} MiB")
        return True

    async for piece in transfer(session, name, only=paths, wanted=wanted):
        path = piece.member.name
        total += len(piece.data)
        if total > MAX_READ * limit or len(links) + len(found) > MAX_FEW:
            raise InvalidArgument(f"the build's client sends more than {', '.join(paths)}")
        if piece.member.kind == tar.SYMLINK:
            links[path] = posixpath.join(posixpath.dirname(path), piece.member.linkname)
        elif piece.member.kind == tar.REGULAR:
            found[path] = found.get(path, b"") + piece.data
    return {path: found[at] for path in paths if (at := _end_of(path, links)) in found}


def _end_of(path: str, links: dict[str, str]) -> str:
    for _ in range(MAX_LINKS):
        path = posixpath.normpath(path).lstrip("/")
        if path not in links:
            return path
        path = links[path]
    raise NotFound(f"{path}: too many levels of symbolic links")
