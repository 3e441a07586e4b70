"""Answers containers' questions for names at 127.0.0.11, and asks other servers what it does not know.

One resolver a container, with sockets inside its network namespace, all of them served by the event
loop. What a container sends is hostile: bytes are parsed by :mod:`berth.network.dns`, and the questions
that wait for other servers are bounded.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import random
import socket
from contextlib import suppress
from ipaddress import ip_address
from typing import TYPE_CHECKING

from berth.network import dns, names
from berth.network.records import hosts
from berth.network.upstream import Upstream
from berth.network.wiring import RESOLVER

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from berth.network.foundation import Foundation
    from berth.network.records import EndpointRecord
    from berth.network.sandboxes import Sandboxes

log = logging.getLogger("berth")

# Of one container:
MAX_WAITING = 1024  # questions to other servers
MAX_ASKED = 32  # of them at once, for each is a socket of the engine's
MAX_CONNECTIONS = 64
IDLE_S = 10.0
PAUSE_S = 1.0  # when there are no descriptors
DATAGRAMS_AT_ONCE = 32
MAX_DATAGRAM = 4096
NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_LENGTHS = {dns.A: 4, dns.AAAA: 16}

_Peer = tuple[str, int]


class Resolvers:
    """The resolvers of an engine."""

    def __init__(self, foundation: Foundation, sandboxes: Sandboxes) -> None:
        self._base = foundation
        self._sandboxes = sandboxes
        self._directories: dict[str, names.Directory] = {}
        self._version = 0

    async def listen(self, netns_fd: int) -> list[socket.socket]:
        """Return sockets at which questions from inside a namespace arrive: of datagrams, of connections."""
        wiring = self._base.wiring

        def make() -> list[socket.socket]:
            made = wiring.sockets(netns_fd, socket.SOCK_DGRAM, socket.SOCK_STREAM)
            try:
                for sock in made:
                    sock.bind((RESOLVER, 0))
                made[1].listen()
                udp, tcp = (sock.getsockname()[1] for sock in made)
                wiring.redirect_names(netns_fd, udp=udp, tcp=tcp)
            except BaseException:
                _close(made)
                raise
            return made

        return await self._base.thread.run(make, undo=_close)

    def open(
        self,
        sockets: Sequence[socket.socket],
        netns_fd: int,
        *,
        container_id: str,
        servers: tuple[str, ...],
    ) -> Resolver:
        """Begin to answer. Sockets and namespace stay the caller's, and open meanwhile."""
        udp, tcp = sockets
        upstream = Upstream(self._base, netns_fd, servers)
        return Resolver(self, container_id, udp=udp, tcp=tcp, upstream=upstream)

    def places(self, container_id: str) -> list[tuple[EndpointRecord, names.Directory]]:
        """Return a container's endpoints in networks that have names, with the names."""
        return [
            (endpoint, self._directory(endpoint.network_id))
            for endpoint in self._sandboxes.of(container_id)
            if self._base.has_names(endpoint)
        ]

    def _directory(self, network_id: str) -> names.Directory:
        if self._version != self._sandboxes.version:
            self._directories.clear()
            self._version = self._sandboxes.version
        found = self._directories.get(network_id)
        if found is None:
            found = names.Directory(self._sandboxes.in_network(network_id))
            self._directories[network_id] = found
        return found

    def gateways(self, container_id: str) -> list[str]:
        """Return the host's addresses as a container reaches it; none when nothing leads out."""
        return hosts(self._sandboxes.of(container_id))


class Resolver:
    """Answers one container."""

    def __init__(
        self,
        owner: Resolvers,
        container_id: str,
        *,
        udp: socket.socket,
        tcp: socket.socket,
        upstream: Upstream,
    ) -> None:
        self._owner = owner
        self._container_id = container_id
        self._udp, self._tcp = udp, tcp
        self._upstream = upstream
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections = 0
        self._waiting = 0
        self._asking = asyncio.Semaphore(MAX_ASKED)
        self._pause: asyncio.TimerHandle | None = None
        self._loop.add_reader(udp, self._read)
        self._listen()

    def _listen(self) -> None:
        self._loop.add_reader(self._tcp, self._accept)

    def close(self) -> None:
        """Answer no more."""
        if self._pause is not None:
            self._pause.cancel()
        for sock in (self._udp, self._tcp):
            self._loop.remove_reader(sock)
        for task in self._tasks:
            task.cancel()

    def _begin(self, work: Coroutine[object, object, None]) -> None:
        task = self._loop.create_task(work, name=f"names for {self._container_id[:12]}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _read(self) -> None:
        for _ in range(DATAGRAMS_AT_ONCE):
            try:
                data, peer = self._udp.recvfrom(MAX_DATAGRAM)
            except (BlockingIOError, ConnectionError):
                return
            found = self._answer(data, stream=False)
            if isinstance(found, dns.Question):
                self._forward(found, data, peer)
            elif found is not None:
                self._send(found, peer)

    def _send(self, data: bytes, peer: _Peer) -> None:
        try:
            self._udp.sendto(data, peer)
        except OSError:  # nobody waits for it there any more
            return

    def _forward(self, question: dns.Question, data: bytes, peer: _Peer) -> None:
        if self._waiting >= MAX_WAITING:
            self._send(dns.answer(question, code=dns.REFUSED), peer)
            return

        async def work() -> None:
            self._send(await self._ask(question, data, stream=False), peer)

        self._begin(work())

    async def _ask(self, question: dns.Question, data: bytes, *, stream: bool) -> bytes:
        """Ask the other servers; a container without a way out gets no answer from them."""
        if not self._owner.gateways(self._container_id):
            return dns.answer(question, code=dns.SERVER_FAILURE)
        self._waiting += 1
        try:
            async with self._asking:
                found = await self._upstream.ask(question, data, stream=stream)
        finally:
            self._waiting -= 1
        return found or dns.answer(question, code=dns.SERVER_FAILURE)

    def _answer(self, data: bytes, *, stream: bool) -> bytes | dns.Question | None:
        """Return the answer, or the question when others are to be asked, or None for silence."""
        try:
            question = dns.parse(data)
        except dns.Malformed as error:
            return None if error.code is None else dns.refusal(data, error.code)
        if not question.is_internet:
            return question
        places = self._owner.places(self._container_id)
        packed = dns.reversed_address(question.name)
        if packed is not None:
            known = (directory.name(packed) for _, directory in places)
            name = next(filter(None, known), None)
            return dns.answer(question, name=name) if name else question
        by_place = (directory.addresses(question.name, asker) for asker, directory in places)
        found = next(filter(None, by_place), None)
        if found is None and question.name in names.GATEWAY_NAMES:
            gateways = self._owner.gateways(self._container_id)
            found = [ip_address(gateway).packed for gateway in gateways] or None
        if found is None:
            return question
        random.shuffle(found)
        # A name that exists has no records of other types: "no such name" would deny its addresses.
        length = _LENGTHS.get(question.kind)
        addresses = [packed for packed in found if len(packed) == length]
        return dns.answer(question, addresses=addresses, stream=stream)

    def _accept(self) -> None:
        try:
            sock, _ = self._tcp.accept()
        except (BlockingIOError, ConnectionError):
            return
        except OSError as error:
            # It stays readable: who looks again at once does nothing else.
            self._loop.remove_reader(self._tcp)
            if error.errno in NO_DESCRIPTORS:
                self._pause = self._loop.call_later(PAUSE_S, self._listen)
            return  # else a container that may (NET_ADMIN) has destroyed it
        if self._connections >= MAX_CONNECTIONS:
            sock.close()
            return
        self._connections += 1
        self._begin(self._serve(sock))

    async def _serve(self, sock: socket.socket) -> None:
        """Answer one connection, whose messages have their lengths before them."""
        reader, writer = await asyncio.open_connection(sock=sock)
        try:
            while True:
                async with asyncio.timeout(IDLE_S):
                    length = int.from_bytes(await reader.readexactly(2), "big")
                    data = await reader.readexactly(length)
                found = self._answer(data, stream=True)
                if isinstance(found, dns.Question):
                    found = await self._ask(found, data, stream=True)
                if found is None:
                    return
                writer.write(len(found).to_bytes(2, "big") + found)
                async with asyncio.timeout(IDLE_S):
                    await writer.drain()
                await asyncio.sleep(0)  # thousands may have come at once: others use the loop too
        except (EOFError, OSError, TimeoutError):
            await _end(writer)
        finally:
            writer.transport.abort()
            self._connections -= 1


async def _end(writer: asyncio.StreamWriter) -> None:
    """Wait until what is left was taken, by one who may take nothing."""
    writer.close()
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(IDLE_S):
            await writer.wait_closed()


def _close(sockets: list[socket.socket]) -> None:
    for sock in sockets:
        sock.close()
