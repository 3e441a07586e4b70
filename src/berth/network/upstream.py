"""The name servers that know the rest of the world: the host's, or those a container was given."""

from __future__ import annotations

import asyncio
import os
import socket
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING

from berth.network import dns, files

if TYPE_CHECKING:
    from berth.network.foundation import Foundation

PORT = 53
TIMEOUT_S = 4.0
MAX_SERVERS = 3
MAX_ANSWER = 65_535


class Upstream:
    """Asks one server after the other.

    The host's are asked from the host, where its loopback is; a container's own from its namespace,
    whose descriptor is the caller's.
    """

    def __init__(self, foundation: Foundation, netns_fd: int, servers: tuple[str, ...]) -> None:
        self._base = foundation
        self._netns_fd = netns_fd
        self._servers = servers

    async def ask(self, question: dns.Question, data: bytes, *, stream: bool) -> bytes | None:
        """Return the first server's answer; None when none gives one."""
        servers = self._servers or files.name_servers(files.host_resolv_conf())
        for server in servers[:MAX_SERVERS]:
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    return await self._ask(server, question, data, stream=stream)
            except (OSError, EOFError, TimeoutError, ValueError):
                continue
        return None

    async def _ask(
        self, server: str, question: dns.Question, data: bytes, *, stream: bool
    ) -> bytes:
        loop = asyncio.get_running_loop()
        sock = await self._socket(server, socket.SOCK_STREAM if stream else socket.SOCK_DGRAM)
        with sock:
            await loop.sock_connect(sock, (server, PORT))
            id_ = int.from_bytes(os.urandom(2), "big")
            message = dns.with_id(data, id_)
            if stream:
                await loop.sock_sendall(sock, len(message).to_bytes(2, "big") + message)
                length = int.from_bytes(await _read(sock, 2), "big")
                found = await _read(sock, length)
                if not dns.is_answer_to(found, question, id_):
                    raise ValueError("not an answer to what was asked")
                return dns.with_id(found, question.id)
            await loop.sock_sendall(sock, message)
            while True:
                found = await loop.sock_recv(sock, MAX_ANSWER)
                if dns.is_answer_to(found, question, id_):
                    return dns.with_id(found, question.id)
                await asyncio.sleep(0)  # whatever comes, and how fast: others use the loop too

    async def _socket(self, server: str, kind: int) -> socket.socket:
        family = socket.AF_INET if ip_address(server).version == 4 else socket.AF_INET6
        if not self._servers:
            return socket.socket(family, kind | socket.SOCK_NONBLOCK)
        work = partial(self._base.wiring.sockets, self._netns_fd, kind, family=family)
        return (await self._base.thread.run(work, undo=_close))[0]


def _close(sockets: list[socket.socket]) -> None:
    for sock in sockets:
        sock.close()


async def _read(sock: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        part = await asyncio.get_running_loop().sock_recv(sock, length - len(data))
        if not part:
            raise EOFError
        data += part
    return data
