"""Clients of BuildKit's protocol that mean no good: what they send of a directory, and how they send it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING

import pytest
from grpclib.exceptions import GRPCError, StreamTerminatedError

from berth.buildkit import messages
from berth.buildkit.filesync import DATA, DIRECTORY, FIN, REQ, STAT, SYMLINK
from berth.buildkit.grpc import Caller, Services
from support.projects import clear_images, remains
from support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.engine import EngineProcess

Packet, Stat = messages.of("Packet"), messages.of("Stat")
ID = "x-docker-expose-session-uuid"
DOCKERFILE = b"FROM busybox\nCOPY . /got\n"


@pytest.fixture(autouse=True)
def _clean(engine: EngineProcess) -> Iterator[None]:
    yield
    clear_images(engine)
    wait_for(lambda: not remains(engine), "nothing of a build is left")
    assert engine.is_running
    log = engine.log.read_text()
    assert "Traceback" not in log, log


def upgraded(engine: EngineProcess, path: str, *headers: str) -> socket.socket:
    """Leave HTTP on a new connection."""
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(engine.socket))
    lines = (
        f"POST {path} HTTP/1.1",
        "Host: docker",
        "Connection: Upgrade",
        "Upgrade: h2c",
        *headers,
    )
    sock.sendall("\r\n".join((*lines, "", "")).encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += sock.recv(1)
    assert head.startswith(b"HTTP/1.1 101"), head
    return sock


def told(path: bytes, mode: int = 0o644, **more: object) -> object:
    return Packet(type=STAT, stat=Stat(path=path, mode=mode, **more))


def data(number: int, content: bytes = b"") -> object:
    return Packet(type=DATA, ID=number, data=content)


class Client:
    """One whose directory is what ``packets`` says; it sends data when it is asked, or never."""

    def __init__(
        self, engine: EngineProcess, packets: list[object], *, answers: bool = True
    ) -> None:
        self.engine = engine
        self.packets = packets
        self.answers = answers

    async def files(self, stream) -> None:
        name = stream.metadata["dir-name"]
        if name == "dockerfile":
            packets = [told(b"Dockerfile", size=len(DOCKERFILE))]
        else:
            packets = [] if "followpaths" in stream.metadata else self.packets
        for packet in packets:
            await stream.send_message(packet)
        await stream.send_message(Packet(type=STAT))
        async for asked in stream:
            if asked.type == FIN:
                await stream.send_message(Packet(type=FIN))
                return
            if asked.type == REQ and (self.answers or name == "dockerfile"):
                await stream.send_message(data(asked.ID, DOCKERFILE))
                await stream.send_message(data(asked.ID))

    async def build(self) -> str:
        """Build; return what went wrong, "" for nothing."""
        table = {
            "moby.filesync.v1.FileSync": {"DiffCopy": (self.files, "many-many", "Packet", "Packet")}
        }
        session = upgraded(
            self.engine,
            "/session",
            "X-Docker-Expose-Session-Uuid: hostile",
            "X-Docker-Expose-Session-Grpc-Method: /moby.filesync.v1.FileSync/DiffCopy",
        )
        serving = asyncio.ensure_future(Services(table).serve(session, b""))
        caller = await Caller.on(upgraded(self.engine, "/grpc"), b"")
        try:
            await caller.ask(
                "moby.buildkit.v1.Control/Solve",
                *("SolveRequest", "SolveResponse"),
                Ref="hostile",
                Session="hostile",
                Frontend="dockerfile.v0",
                Exporters=[{"Type": "moby", "Attrs": {"name": "hostile"}}],
            )
        except GRPCError as error:
            return error.message or "?"
        finally:
            caller.close()
            serving.cancel()
        return ""


def build(engine: EngineProcess, packets: list[object], *, answers: bool = True) -> str:
    client = Client(engine, packets, answers=answers)
    return asyncio.run(asyncio.wait_for(client.build(), 100))


@pytest.mark.parametrize(
    "packets",
    [
        [told(b"../outside", size=1)],
        [told(b"a/../../outside", size=1)],
        [told(b"hard", linkname=b"/etc/shadow")],
        [told(b"hard", linkname=b"../../../../etc/shadow")],
        [told(b"huge", size=1 << 62)],
        [told(b"negative", size=-1)],
        [told(b"n" * 300, size=1)],
        [told(b"many/" * 3000 + b"x", size=1)],
        [told(b"file", size=1), told(b"file/below", size=1)],
        [told(b"zero\0byte", size=1)],
        [data(5, b"x")],
        [Packet(type=FIN)],
        [Packet(type=77)],
    ],
)
def test_what_leads_outside_or_makes_no_sense_is_refused(
    engine: EngineProcess, packets: list[object], tmp_path: Path
) -> None:
    before = sorted(path.name for path in engine.data_root.rglob("outside*"))
    assert build(engine, packets)
    assert sorted(path.name for path in engine.data_root.rglob("outside*")) == before


@pytest.mark.parametrize(
    ("packets", "there"),
    [
        ([told(b"/absolute", size=1)], "absolute"),
        ([told(b"up", SYMLINK, linkname=b"../.."), told(b"up/in", size=1)], "in up"),
        ([told(b"out", SYMLINK, linkname=b"/etc")], "out"),
        ([told(b"device", (1 << 26) | (1 << 21) | 0o666, devmajor=1, devminor=3)], "device"),
        ([told(b"d", DIRECTORY | 0o755), told(b"d/f", size=99)], "d"),
        ([told(b"socket", 1 << 24), told(b"odd", 1 << 19), told(b"f", size=1)], "f"),
    ],
)
def test_what_stays_inside_is_taken(
    engine: EngineProcess, packets: list[object], there: str
) -> None:
    assert build(engine, packets) == ""
    done = engine.docker("run", "--rm", "--network=none", "hostile", "ls", "/got")
    assert done.out.split() == there.split()


def test_a_client_that_never_answers_ends_with_its_connection(engine: EngineProcess) -> None:
    async def hang_up() -> None:
        client = Client(engine, [told(b"file", size=1)], answers=False)
        building = asyncio.ensure_future(client.build())
        while not remains(engine):
            await asyncio.sleep(0.01)
        building.cancel()
        with pytest.raises(asyncio.CancelledError):
            await building

    asyncio.run(asyncio.wait_for(hang_up(), 100))
    wait_for(lambda: not remains(engine), "the build is gone")


def test_a_message_without_end_is_hung_up_on(engine: EngineProcess) -> None:
    async def send() -> None:
        caller = await Caller.on(upgraded(engine, "/grpc"), b"")
        method = "moby.buildkit.v1.Control/Session"
        call = caller.open(method, "Bytes", "Bytes", metadata=[(ID, "one")])
        async with call as stream:
            await stream.send_request()
            endless = b"\0\xff\xff\xff\xff" + bytes(64 << 20)
            sending = asyncio.ensure_future(stream._stream.send_data(endless))
            await caller.wait_gone()
            sending.cancel()

    with contextlib.suppress(StreamTerminatedError):
        asyncio.run(asyncio.wait_for(send(), 100))
    assert engine.request("GET", "/_ping")[0] == 200


@pytest.mark.parametrize("path", ["/session", "/grpc"])
@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\0" * 100,
        b"GET / HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 99,
    ],
)
def test_what_is_no_http2_is_hung_up_on(engine: EngineProcess, path: str, garbage: bytes) -> None:
    with upgraded(engine, path, f"{ID}: one") as sock:
        sock.sendall(garbage)
        sock.shutdown(socket.SHUT_WR)
        sock.settimeout(60)
        while sock.recv(1 << 16):
            continue
    assert engine.request("GET", "/_ping")[0] == 200


@pytest.mark.parametrize(
    ("headers", "why"),
    [((), "no upgrade proto"), (("Upgrade: websocket",), "protocol websocket not supported")],
)
def test_only_http2_is_spoken(engine: EngineProcess, headers: tuple[str, ...], why: str) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(engine.socket))
        lines = ("POST /grpc HTTP/1.1", "Host: docker", "Connection: close", *headers, "", "")
        sock.sendall("\r\n".join(lines).encode())
        answer = b""
        while piece := sock.recv(1 << 16):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 400")
    assert why.encode() in answer
