"""Files for a build's client: an archive, sent as the protocol of fsutil has it (see filesync)."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from berth.buildkit import messages
from berth.buildkit.filesync import (
    CHARACTER,
    DATA,
    DEVICE,
    DIRECTORY,
    ERR,
    FIFO,
    FIN,
    REQ,
    SPECIAL,
    STAT,
    SYMLINK,
)
from berth.buildkit.sessions import ENDS, GONE, failure
from berth.errors import Failed, InvalidArgument, Unavailable
from berth.images import tar
from berth.images.filestream import FileStream
from berth.images.layer import clean
from berth.images.save import header

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping
    from pathlib import Path

    from google.protobuf.message import Message
    from grpclib.client import Stream

    from berth.buildkit.sessions import Session

SEND = "moby.filesync.v1.FileSend/DiffCopy"
PACKET_BYTES = 32 << 10
TYPES = {
    tar.REGULAR: 0,
    tar.LINK: 0,
    tar.DIRECTORY: DIRECTORY,
    tar.SYMLINK: SYMLINK,
    tar.FIFO: FIFO,
    tar.BLOCK_DEVICE: DEVICE,
    tar.CHARACTER: DEVICE | CHARACTER,
}
EXPORTER_ID = "buildkit-attachable-exporter-id"


class Spooled:
    """Archives in files, their members in the order that fsutil wants."""

    def __init__(self, paths: Mapping[str, Path]) -> None:
        """``paths``: by the directory that what is in each is to be below; "" for none."""
        self._fds: list[int] = []
        found: dict[str, tuple[tar.Member, int, int]] = {}
        for below, path in paths.items():
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            self._fds.append(fd)
            stream = FileStream(fd)
            prefix = f"{below}/" if below else ""
            if below:
                found[below] = tar.Member(header(f"{below}/", 0, directory=True)), fd, 0
            for member in tar.TarReader(stream):
                name = clean(member.name)
                if name and member.kind in TYPES:
                    if prefix and member.kind == tar.LINK:
                        member.linkname = prefix + clean(member.linkname)
                    found[prefix + name] = member, fd, stream.position
        self.members = [
            (name, *found[name]) for name in sorted(found, key=lambda name: name.split("/"))
        ]

    def close(self) -> None:
        """Close the files."""
        for fd in self._fds:
            os.close(fd)

    def data(self, number: int) -> Iterator[bytes]:
        """Yield the data of a file."""
        _, member, fd, at = self.members[number]
        size = member.size
        while size and (data := os.pread(fd, min(size, PACKET_BYTES), at)):
            size, at = size - len(data), at + len(data)
            yield data


def stat_of(name: str, member: tar.Member) -> Message:
    """Return a member as a STAT."""
    bits = TYPES[member.kind] | (0o777 if member.kind == tar.SYMLINK else member.mode & 0o777)
    bits |= sum(go for go, ours in SPECIAL if member.mode & ours)
    link = clean(member.linkname) if member.kind == tar.LINK else member.linkname
    return messages.of("Stat")(
        path=os.fsencode(name),
        mode=bits,
        uid=member.uid,
        gid=member.gid,
        size=member.size,
        modTime=member.mtime_ns,
        linkname=os.fsencode(link),
        devmajor=member.major,
        devminor=member.minor,
    )


async def send_tree(
    session: Session, exporter: int, spooled: Spooled, progress: Callable[[int], None]
) -> None:
    """Send the files of an archive into a directory of the client's."""
    packet = messages.of("Packet")
    metadata = [(EXPORTER_ID, str(exporter))]
    try:
        async with session.caller.open(SEND, "Packet", "Packet", metadata=metadata) as stream:
            await stream.send_request()
            async with asyncio.TaskGroup() as group:
                group.create_task(_tell(stream, spooled))
                total = 0
                while (asked := await _asked(stream)) is not None:
                    for data in spooled.data(asked):
                        await stream.send_message(packet(type=DATA, ID=asked, data=data))
                        total += len(data)
                        progress(total)
                    await stream.send_message(packet(type=DATA, ID=asked))
            await stream.send_message(packet(type=FIN), end=True)
    except ENDS as error:
        raise failure(error) from error


async def _tell(stream: Stream[Message, Message], spooled: Spooled) -> None:
    for name, member, *_ in spooled.members:
        await stream.send_message(messages.of("Packet")(type=STAT, stat=stat_of(name, member)))
    await stream.send_message(messages.of("Packet")(type=STAT))


async def _asked(stream: Stream[Message, Message]) -> int | None:
    """Return the number of a file that the client wants; None when it wants no more."""
    packet = await stream.recv_message()
    if packet is None:
        await stream.recv_trailing_metadata()
        raise Unavailable(GONE)
    if packet.type == ERR:
        raise Failed(packet.data.decode("utf-8", "replace"))
    if packet.type == FIN:
        return None
    if packet.type != REQ:
        raise InvalidArgument(f"packet of type {packet.type} where a request was expected")
    return int(packet.ID)


async def send_file(
    session: Session, exporter: int, chunks: AsyncIterator[bytes], progress: Callable[[int], None]
) -> None:
    """Send one file, for which the client has a place."""
    metadata = [(EXPORTER_ID, str(exporter))]
    total = 0
    try:
        async with session.caller.open(SEND, "Bytes", "Bytes", metadata=metadata) as stream:
            await stream.send_request()
            async for chunk in chunks:
                await stream.send_message(messages.of("Bytes")(data=chunk))
                total += len(chunk)
                progress(total)
            await stream.end()
            while await stream.recv_message() is not None:
                continue
    except ENDS as error:
        raise failure(error) from error
