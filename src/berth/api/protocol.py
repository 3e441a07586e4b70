"""HTTP/1.1 on one connection: h11 for the syntax, an asyncio protocol for the bytes.

One request at a time; a handler reads the body, then answers once: a whole response, a stream, or by
taking the socket over (``upgrade``), after which HTTP and the event loop are done with it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import uuid
from http import HTTPStatus
from typing import TYPE_CHECKING

import h11
import msgspec

from berth import __version__
from berth.errors import (
    BerthError,
    Conflict,
    Forbidden,
    InvalidArgument,
    NotFound,
    NotModified,
    Unauthorized,
    Unavailable,
    Unsupported,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

log = logging.getLogger("berth.api")

API_VERSION = "1.51"
MIN_API_VERSION = "1.24"
MAX_HEAD_BYTES = 1 << 20
MAX_BODY_BYTES = 16 << 20
HIGH_WATER_BYTES = 1 << 20

STATUSES: tuple[tuple[type[BerthError], int], ...] = (
    (NotModified, 304),
    (InvalidArgument, 400),
    (Unauthorized, 401),
    (Forbidden, 403),
    (NotFound, 404),
    (Conflict, 409),
    (Unsupported, 501),
    (Unavailable, 503),
)
BASE_HEADERS = [
    ("Api-Version", API_VERSION),
    ("Docker-Experimental", "false"),
    ("Ostype", "linux"),
    ("Server", f"berth/{__version__} (linux)"),
]
RAW_STREAM = "application/vnd.docker.raw-stream"
MULTIPLEXED_STREAM = "application/vnd.docker.multiplexed-stream"


def status_of(error: BerthError) -> int:
    """Return the HTTP status of an error's kind."""
    return next((status for kind, status in STATUSES if isinstance(error, kind)), 500)


def reason(status: int) -> str:
    """Return a status's phrase."""
    return HTTPStatus(status).phrase


class Exchange:
    """One request and its answer."""

    def __init__(self, connection: HttpConnection, request: h11.Request) -> None:
        self._connection = connection
        self.method = request.method.decode("ascii")
        self.target = request.target.decode("ascii")
        self.headers = {name.decode(): value.decode("latin-1") for name, value in request.headers}
        self.answered = False

    async def body(self) -> bytes:
        """Return the whole body, bounded."""
        parts, size = [], 0
        async for chunk in self.body_stream():
            size += len(chunk)
            if size > MAX_BODY_BYTES:
                raise InvalidArgument("request body too large")
            parts.append(chunk)
        return b"".join(parts)

    async def body_stream(self) -> AsyncIterator[bytes]:
        """Yield the body as it comes; the client is held back meanwhile."""
        while (chunk := await self._connection.next_body_chunk()) is not None:
            yield chunk

    async def respond(self, status: int, document: object = None) -> None:
        """Answer with a JSON document, or with no body at all."""
        data = b"" if document is None else msgspec.json.encode(document) + b"\n"
        await self.respond_bytes(status, data, "application/json")

    async def respond_bytes(self, status: int, data: bytes, content_type: str) -> None:
        """Answer with a whole body."""
        headers = [*BASE_HEADERS]
        if status not in (204, 304):
            headers.append(("Content-Length", str(len(data))))
            if data:
                headers.append(("Content-Type", content_type))
        self.answered = True
        self._connection.send(
            h11.Response(status_code=status, headers=headers, reason=reason(status))
        )
        if data and self.method != "HEAD":
            self._connection.send(h11.Data(data=data))
        self._connection.send(h11.EndOfMessage())
        await self._connection.drain()

    async def begin(self, content_type: str = "application/json", *, close: bool = False) -> None:
        """Answer 200 with a body that follows in pieces."""
        headers = [*BASE_HEADERS, ("Content-Type", content_type), ("Transfer-Encoding", "chunked")]
        if close:
            headers.append(("Connection", "close"))
        self.answered = True
        self._connection.send(h11.Response(status_code=200, headers=headers))

    async def write(self, data: bytes) -> None:
        """Send one piece; waits while the client does not read."""
        self._connection.send(h11.Data(data=data))
        await self._connection.drain()

    async def end(self) -> None:
        """End the body."""
        self._connection.send(h11.EndOfMessage())
        await self._connection.drain()

    def duplicate(self) -> int:
        """Return a duplicate of the socket for a monitor to answer on should berthd die."""
        return self._connection.duplicate()

    async def upgrade(self, *, multiplexed: bool) -> tuple[int, bytes]:
        """Take the connection out of HTTP: (its descriptor, bytes the client already sent)."""
        self.answered = True
        content_type = MULTIPLEXED_STREAM if multiplexed else RAW_STREAM
        return self._connection.detach(content_type, wanted="upgrade" in self.headers)


class HttpConnection(asyncio.Protocol):
    """A client's connection."""

    def __init__(
        self, handle: Callable[[Exchange], Awaitable[None]], on_close: Callable[[], None]
    ) -> None:
        self._handle = handle
        self._on_close = on_close
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._transport: asyncio.Transport | None = None
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._task: asyncio.Task[None] | None = None
        self._detached = False
        self._closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to serve."""
        assert isinstance(transport, asyncio.Transport)
        transport.set_write_buffer_limits(high=HIGH_WATER_BYTES)
        self._transport = transport
        self._task = asyncio.get_running_loop().create_task(self._serve())

    def data_received(self, data: bytes) -> None:
        """Take bytes from the client."""
        self._http.receive_data(data)
        self._readable.set()
        assert self._transport is not None
        self._transport.pause_reading()

    def eof_received(self) -> bool:
        """Give up the request of a client that hung up, as Go's server does."""
        if self._detached:
            return True
        if self._http.their_state is h11.DONE and self._task is not None:
            self._task.cancel()
            return False
        self._http.receive_data(b"")
        self._readable.set()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop working for a client that is gone."""
        del exc
        self._closed = True
        self._writable.set()
        self._on_close()
        if self._task is not None and not self._detached:
            self._task.cancel()

    def pause_writing(self) -> None:
        """Hold the handler back."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Let it go on."""
        self._writable.set()

    def send(self, event: h11.Event) -> None:
        """Send an event of the response."""
        data = self._http.send(event)
        if data and self._transport is not None:
            self._transport.write(data)

    async def drain(self) -> None:
        """Wait until the client has read enough."""
        await self._writable.wait()

    async def _next_event(self) -> object:
        while True:
            event = self._http.next_event()
            if event is not h11.NEED_DATA:
                return event
            if self._http.they_are_waiting_for_100_continue:
                self.send(h11.InformationalResponse(status_code=100, headers=[]))
            self._readable.clear()
            assert self._transport is not None
            self._transport.resume_reading()
            await self._readable.wait()

    async def next_body_chunk(self) -> bytes | None:
        """Return the next piece of the request's body, None at its end."""
        if self._http.their_state is not h11.SEND_BODY:
            return None
        event = await self._next_event()
        if isinstance(event, h11.Data):
            return bytes(event.data)
        # While the handler works, reading shows that the client hung up.
        if self._transport is not None:
            self._transport.resume_reading()
        return None

    async def _serve(self) -> None:
        try:
            while not self._detached:
                event = await self._next_event()
                if not isinstance(event, h11.Request):
                    break
                await self._answer(Exchange(self, event))
                if not await self._prepare_next():
                    break
        except h11.RemoteProtocolError as error:
            self._refuse(error)
        if self._transport is not None and not self._detached:
            self._transport.close()

    async def _prepare_next(self) -> bool:
        if self._detached:
            return False
        while await self.next_body_chunk() is not None:
            continue
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True

    async def _answer(self, exchange: Exchange) -> None:
        if "content-length" not in exchange.headers and "transfer-encoding" not in exchange.headers:
            await self.next_body_chunk()  # there is none: its end
        try:
            await self._handle(exchange)
        except BerthError as error:
            await self._fail(exchange, status_of(error), str(error))
        except Exception:
            id_ = uuid.uuid4().hex[:12]
            log.exception("internal error %s: %s %s", id_, exchange.method, exchange.target)
            await self._fail(exchange, 500, f"internal error (id {id_})")

    async def _fail(self, exchange: Exchange, status: int, message: str) -> None:
        if self._detached or self._closed:
            return
        if not exchange.answered:
            document = None if status == 304 else {"message": message}
            await exchange.respond(status, document)
        elif self._http.our_state is h11.SEND_BODY:
            detail = {"errorDetail": {"message": message}, "error": message}
            await exchange.write(msgspec.json.encode(detail) + b"\n")
            await exchange.end()

    def _refuse(self, error: h11.RemoteProtocolError) -> None:
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        data = msgspec.json.encode({"message": str(error)})
        headers = [("Content-Length", str(len(data))), ("Connection", "close")]
        status = error.error_status_hint
        self.send(h11.Response(status_code=status, headers=headers, reason=reason(status)))
        self.send(h11.Data(data=data))
        self.send(h11.EndOfMessage())

    def duplicate(self) -> int:
        """Return a duplicate of the socket."""
        assert self._transport is not None
        return os.dup(self._transport.get_extra_info("socket").fileno())

    def detach(self, content_type: str, *, wanted: bool) -> tuple[int, bytes]:
        """Answer 101 (200 when no upgrade was asked for) and let go of the socket."""
        assert self._transport is not None
        lines = [f"Content-Type: {content_type}"]
        if wanted:
            lines = ["HTTP/1.1 101 UPGRADED", *lines, "Connection: Upgrade", "Upgrade: tcp"]
        else:
            lines = ["HTTP/1.1 200 OK", *lines]
        lines += [f"{name}: {value}" for name, value in BASE_HEADERS]
        self._transport.pause_reading()
        fd = self.duplicate()
        os.set_blocking(fd, True)
        head = "\r\n".join([*lines, "", ""]).encode()
        while head:
            head = head[os.write(fd, head) :]
        early, _ = self._http.trailing_data
        self._detached = True
        # Closes asyncio's descriptor only: no shutdown, the duplicate goes on.
        self._transport.abort()
        return fd, early
