"""Clients of BuildKit's protocol that are hostile, each at the other end of a socket pair."""

from __future__ import annotations

import asyncio
import io
import os
import socket
import tarfile
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from berth.buildkit import filesync, grpc, lending, messages
from berth.buildkit.grpc import Caller, Services
from berth.buildkit.health import Health
from berth.buildkit.lending import Lending
from berth.buildkit.sessions import Session, Sessions
from berth.errors import Conflict, InvalidArgument, NotFound

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from google.protobuf.message import Message
    from grpclib.server import Stream

    Serve = Callable[[Stream[Message, Message]], Awaitable[None]]

TREE = "moby.filesync.v1.FileSync"
AGENTS = "moby.sshforward.v1.SSH"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0"
PING = b"\0\0\x08\x06\0\0\0\0\0" + bytes(8)


def run(test: Awaitable[None]) -> None:
    asyncio.run(asyncio.wait_for(test, 60))


@asynccontextmanager
async def served(services: Services) -> AsyncIterator[socket.socket]:
    """Serve the other end of a socket."""
    ours, theirs = socket.socketpair()
    task = asyncio.create_task(services.serve(theirs, b""))
    try:
        yield ours
    finally:
        ours.close()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def session(**methods: tuple[Serve, str, str, str]) -> AsyncIterator[Session]:
    """Give the session of a client that serves methods of files or of agents."""
    table = {TREE: methods, AGENTS: methods}
    async with served(Services(table)) as sock:
        caller = await Caller.on(sock, b"")
        try:
            yield Session(caller, [f"/{name}/{key}" for name in table for key in methods])
        finally:
            caller.close()


def files(*stats: Message) -> tuple[Serve, str, str, str]:
    """Serve a directory, whose files are all one byte."""

    async def serve(stream: Stream[Message, Message]) -> None:
        packet = messages.of("Packet")
        for stat in stats:
            await stream.send_message(packet(type=filesync.STAT, stat=stat))
        await stream.send_message(packet(type=filesync.STAT))
        while (asked := await stream.recv_message()) is not None:
            if asked.type == filesync.REQ:
                await stream.send_message(packet(type=filesync.DATA, ID=asked.ID, data=b"x" * 1000))
                await stream.send_message(packet(type=filesync.DATA, ID=asked.ID))
            elif asked.type == filesync.FIN:
                await stream.send_message(packet(type=filesync.FIN))

    return serve, "many-many", "Packet", "Packet"


def stat(name: str, mode: int = 0o644, **more: object) -> Message:
    return messages.of("Stat")(path=name.encode(), mode=mode, **more)


def test_a_session_has_an_id_of_its_own():
    async def test() -> None:
        sessions = Sessions()
        with pytest.raises(InvalidArgument):
            await sessions.serve("", [], socket.socketpair()[0], b"")
        pairs = [socket.socketpair() for _ in range(2)]
        tasks = [
            asyncio.create_task(sessions.serve("one", [str(n)], theirs, b""))
            for n, (_, theirs) in enumerate(pairs)
        ]
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        assert len(done) == 1
        assert isinstance(done.pop().exception(), Conflict)
        assert await sessions.find("one")
        for ours, _ in pairs:
            ours.close()
        await asyncio.gather(*pending)
        with pytest.raises(NotFound):
            await asyncio.wait_for(sessions.find("one"), 30)

    run(test())


def test_who_asks_and_does_not_listen_is_left(monkeypatch):
    monkeypatch.setattr(grpc, "MAX_UNREAD_BYTES", 100_000)

    async def test() -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        serving = asyncio.create_task(
            Services({Health.NAME: Health().methods()}).serve(theirs, b"")
        )
        loop = asyncio.get_running_loop()
        with ours, pytest.raises(OSError, match=r"Broken pipe|reset"):
            await loop.sock_sendall(ours, PREFACE)
            while True:
                await loop.sock_sendall(ours, PING * 1000)
        await serving

    run(test())


def test_of_a_few_files_only_a_few_are_taken():
    async def test() -> None:
        many = [stat(f"f{n:05}", size=1000) for n in range(12_000)]
        async with session(DiffCopy=files(*many)) as found:
            with pytest.raises(InvalidArgument, match="sends more than"):
                await filesync.read(found, "dockerfile", ["f00000"], 1 << 10)
        async with session(DiffCopy=files(stat("f", size=1000), stat("g", size=1))) as found:
            assert await filesync.read(found, "d", ["f"], 1 << 10) == {"f": b"x" * 1000}

    run(test())


def test_names_are_not_of_any_length():
    async def test() -> None:
        async with session(DiffCopy=files(stat("n" * (1 << 17), size=1000))) as found:
            with pytest.raises(InvalidArgument, match="no file is like that"):
                await filesync.read(found, "dockerfile", ["n"], 1 << 10)

    run(test())


async def send_a_large_file_first(stream: Stream[Message, Message]) -> None:
    """Tell of directories while the data of a file comes, and of links."""
    packet = messages.of("Packet")
    await stream.send_message(packet(type=filesync.STAT, stat=stat("a", size=1000)))
    while (asked := await stream.recv_message()) is not None:
        if asked.type == filesync.FIN:
            await stream.send_message(packet(type=filesync.FIN))
            continue
        data = packet(type=filesync.DATA, ID=asked.ID, data=b"x" * 500)
        await stream.send_message(data)
        for n in range(50):
            folder = stat(f"d{n}", filesync.DIRECTORY | 0o755)
            await stream.send_message(packet(type=filesync.STAT, stat=folder))
        await stream.send_message(data)
        await stream.send_message(packet(type=filesync.DATA, ID=asked.ID))
        await stream.send_message(packet(type=filesync.STAT))


def test_what_comes_while_a_large_file_does_follows_it(monkeypatch):
    monkeypatch.setattr(filesync, "SMALL_BYTES", 10)
    method = send_a_large_file_first, "many-many", "Packet", "Packet"

    async def archive() -> bytes:
        async with session(DiffCopy=method) as found:
            pieces = filesync.archive(found, "context", [], lambda _: None)
            return b"".join([data async for data in pieces])

    async def test() -> None:
        with tarfile.open(fileobj=io.BytesIO(await archive())) as found:
            assert found.getnames() == ["a", *(f"d{n}" for n in range(50))]
            assert found.extractfile("a").read() == b"x" * 1000
        monkeypatch.setattr(filesync, "MAX_WAITING", 20)
        with pytest.raises(InvalidArgument, match="wait"):
            await archive()

    run(test())


def test_connections_to_an_agent_are_few_and_end_with_its_use(tmp_path):
    async def answer(stream: Stream[Message, Message]) -> None:
        await stream.recv_message()
        await stream.send_message(messages.of("Empty")())

    async def echo(stream: Stream[Message, Message]) -> None:
        async for message in stream:
            await stream.send_message(message)

    async def test() -> None:
        methods = {
            "CheckAgent": (answer, "one-one", "AgentRequest", "Empty"),
            "ForwardAgent": (echo, "many-many", "Bytes", "Bytes"),
        }
        async with session(**methods) as found:
            loan = Lending(found)
            loan.folder = tmp_path
            agent = await loan.agent("default")
            assert agent is not None
            async with agent as path:
                assert os.path.exists(path)
                open_ones = []
                for _ in range(lending.MAX_CALLERS):
                    reader, writer = await asyncio.open_unix_connection(path)
                    writer.write(b"hello")
                    assert await reader.readexactly(5) == b"hello"
                    open_ones.append((reader, writer))
                reader, writer = await asyncio.open_unix_connection(path)
                assert not await reader.read()
                writer.close()
            for reader, writer in open_ones:
                assert not await reader.read()
                writer.close()

    run(test())
