"""TLS for TCP listeners, ended here: behind it a client looks like one on a unix socket.

asyncio's own TLS cannot end one direction alone and has no descriptor to hand over; a relay can do both.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from typing import TYPE_CHECKING

from berth.api.relay import CHUNK_BYTES, Relay
from berth.client.tls import Tls
from berth.engine.background import Background
from berth.errors import Failed, InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

log = logging.getLogger("berth.api")

HANDSHAKE_S = 10.0
ACCEPT_PAUSE_S = 0.5  # when there are no descriptors
MAX_STRANGERS = 256  # at once: whoever can connect would take all descriptors of the engine


def server_context(*, cert: str, key: str, ca: str | None) -> ssl.SSLContext:
    """Return what an engine speaks; with ``ca`` only clients that it has signed may connect."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    for name, paths in (("certificate and key", (cert, key)), ("certificates of the CA", (ca,))):
        try:
            if len(paths) > 1:
                context.load_cert_chain(cert, key)
            elif ca is not None:
                context.load_verify_locations(ca)
        except (OSError, ssl.SSLError) as error:
            where = ", ".join(filter(None, paths))
            raise Failed(f"could not load {name} ({where}): {error.strerror or error}") from error
    if ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        # Docker's documentation makes authorities without keyUsage, which Go does not mind.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


class TlsListener:
    """Accepts connections, and gives each a relay to an inner one."""

    def __init__(
        self,
        sock: socket.socket,
        context: ssl.SSLContext,
        serve: Callable[[socket.socket], Awaitable[None]],
    ) -> None:
        self._sock = sock
        self._context = context
        self._serve = serve
        self._room = asyncio.Semaphore(MAX_STRANGERS)
        self._tasks = Background()
        self._accepting = self._tasks.start(self._accept(), name="accept TLS")

    def close(self) -> None:
        """Accept no more."""
        self._accepting.cancel()
        self._sock.close()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._room.acquire()
            try:
                client, _ = await loop.sock_accept(self._sock)
            except OSError as error:
                self._room.release()
                log.warning("accept a connection: %s", error.strerror)
                await asyncio.sleep(ACCEPT_PAUSE_S)
                continue
            client.setblocking(False)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._tasks.start(self._relay(client), name="TLS connection")

    async def _relay(self, client: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        codec = Tls(self._context, server_name=None)
        try:
            async with asyncio.timeout(HANDSHAKE_S):
                early = await _handshake(client, codec)
        except (OSError, InvalidArgument, TimeoutError) as error:
            log.info("TLS handshake: %s", error)
            client.close()
            return
        finally:
            self._room.release()
        inner, served = socket.socketpair()
        inner.setblocking(False)
        served.setblocking(False)
        await self._serve(served)
        if early:
            await loop.sock_sendall(inner, early)
        await Relay(client, inner, codec).run()


async def _handshake(client: socket.socket, codec: Tls) -> bytes:
    """Come to an agreement with the client; return what it has sent after that."""
    loop = asyncio.get_running_loop()
    while not codec.ready:
        data = await loop.sock_recv(client, CHUNK_BYTES)
        if not data:
            raise InvalidArgument("the client hung up")
        try:
            plain = codec.receive(data)
        finally:  # also an alert that says what was wrong
            await loop.sock_sendall(client, codec.outgoing())
    return plain
