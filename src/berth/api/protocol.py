"""HTTP/1.1 on one connection: h11 for the syntax (or `plain`), an asyncio protocol for the bytes.

One task a connection, one request at a time; a client that sends the next one early waits. A client that
goes away ends the requests that are ``long`` (streams, waits); other work is done to its end, as Docker
does: half a `stop` helps nobody.
"""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

import h11
import msgspec

from berth.api import plain
from berth.api.bodies import ChunkedBody, has_body, head_size
from berth.api.errors import document_of, message_of, status_of, unforeseen
from berth.api.exchange import JSON, Exchange
from berth.api.peers import hung_up, unread_bytes
from berth.api.reasons import REASONS
from berth.errors import BerthError, InvalidArgument, Unavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

log = logging.getLogger("berth.api")

# Build arguments travel in the target, registry credentials in a header: far above h11's default of 16 KiB.
MAX_HEAD_BYTES = 1 << 20
HIGH_WATER_BYTES = 256 << 10
READ_BYTES = 256 << 10
# How long an unread body is thrown away after the answer, so that the client gets to read the answer.
LINGER_S = 5.0
TAKEN_CHECKS = 20
TAKEN_PAUSE_S = 0.001
CLIENT_GONE = "the client is gone"

# Shared by all connections: asyncio fills it and hands it over in one step.
_buffer = memoryview(bytearray(READ_BYTES))


class Owner(Protocol):
    """Who keeps account of connections."""

    def opened(self, connection: HttpConnection) -> None:
        """Note a new connection."""
        ...

    def closed(self, connection: HttpConnection) -> None:
        """Forget a connection: its socket is closed or handed over."""
        ...


class HttpConnection(asyncio.BufferedProtocol):
    """A client's connection."""

    def __init__(
        self, handle: Callable[[Exchange], Awaitable[None]], owner: Owner, *, local: bool
    ) -> None:
        self._handle = handle
        self._owner = owner
        self._local = local
        self._parser: h11.Connection | None = None
        self._plain: plain.Plain | None = None  # a request that waits to be served
        self._body: bytes | None = None  # of the one that is served, when that is plain
        self._chunks: ChunkedBody | None = None  # the body that h11 does not see
        self._answering: plain.Answer | None = None
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._exchange: Exchange | None = None
        self._refused = False  # what the client sends is not HTTP
        self._leaving = False  # no request after this one
        self._detached = False
        self._duplicated = False
        self._ended = False  # the client's side
        self._closed = False
        self._gone = asyncio.Event()  # the client, or its side of the connection

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to serve."""
        assert isinstance(transport, asyncio.Transport)
        transport.set_write_buffer_limits(high=HIGH_WATER_BYTES)
        self._transport = transport
        self._owner.opened(self)
        self._task = asyncio.get_running_loop().create_task(self._serve(), name="connection")

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where bytes of the client go."""
        del sizehint
        return _buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take bytes of the client; when nobody asked for them, no more until somebody does."""
        if self._refused:
            return
        self._receive(bytes(_buffer[:nbytes]))
        if self._readable.is_set():
            self._transport.pause_reading()
        else:
            self._readable.set()

    @property
    def _http(self) -> h11.Connection:
        """h11's state of the connection, once there is something that is not plain."""
        if self._parser is None:
            self._parser = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
            if self._ended:
                self._parser.receive_data(b"")
        return self._parser

    def _receive(self, data: bytes) -> None:
        parser = self._parser
        idle = self._exchange is None and self._plain is None
        # With nothing before it, it may be a request by itself.
        if idle and (
            parser is None or (parser.their_state is h11.IDLE and not parser.trailing_data[0])
        ):
            self._plain = plain.parse(data)
        if self._plain is None or not idle:
            self._receive_parsed(data, begins=idle)

    def _receive_parsed(self, data: bytes, *, begins: bool) -> None:
        """Give h11 what it is to take apart, but not a body that comes in chunks."""
        if begins and not self._http.trailing_data[0] and (size := head_size(data)):
            self._http.receive_data(data[:size])
            self._chunks, data = ChunkedBody(), data[size:]
        if self._chunks is not None:
            data = self._chunks.receive(data)
        if data:
            self._http.receive_data(data)

    def eof_received(self) -> bool:
        """Take the end of the client's side. True keeps ours open.

        Over a unix socket the kernel knows whether the client hung up or only ended its side. Over TCP
        it does not, and whoever waits for long is taken to be gone, as Go's server does.
        """
        self._feed_end()
        if self._exchange is None or hung_up(self._transport.get_extra_info("socket").fileno()):
            return False
        return self._local or not self._exchange.long

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop working for a client that is gone."""
        del exc
        if self._detached:
            return
        self._closed = True
        self._writable.set()
        self._feed_end()
        self._owner.closed(self)
        if self._exchange is None or self._exchange.long:
            self._task.cancel()

    def pause_writing(self) -> None:
        """Hold the handler back."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Let it go on."""
        self._writable.set()

    def _feed_end(self) -> None:
        self._gone.set()
        if not self._ended:
            self._ended = True
            if self._parser is not None:
                self._parser.receive_data(b"")
        self._readable.set()

    # What the owner calls

    def leave(self) -> None:
        """Serve no further request; end a long one now."""
        self._leaving = True
        if self._exchange is None or self._exchange.long:
            self._task.cancel()

    def cancel(self) -> None:
        """End whatever is being done."""
        self._task.cancel()

    async def wait_closed(self) -> None:
        """Wait until nothing is being done any more."""
        await asyncio.wait([self._task])

    # What the exchange calls

    def send(self, *events: h11.Event) -> None:
        """Send events of the response in one piece: each is a client woken. Nothing when it is gone."""
        if self._answering is not None:
            data = b"".join([self._answering.encode(event) for event in events])
        else:
            data = b"".join(self._http.send(event) or b"" for event in events)
        if data and not self._closed:
            self._transport.write(data)

    async def drain(self) -> None:
        """Wait until the client has read enough."""
        if not self._writable.is_set():
            await self._writable.wait()

    @property
    def is_held_back(self) -> bool:
        """Say whether there is more to write than may wait."""
        return not self._writable.is_set()

    async def next_chunk(self) -> bytes | None:
        """Return the next piece of the request's body, None at its end."""
        if self._answering is not None:
            body, self._body = self._body, None
            return body or None
        if self._http.their_state is not h11.SEND_BODY:
            return None
        if self._http.they_are_waiting_for_100_continue:
            self.send(h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue"))
        try:
            while self._chunks is not None:
                if data := self._chunks.take():
                    return data
                if self._chunks.is_over or self._ended:
                    self._chunks = None
                else:
                    await self._wait_readable()
            event = await self._next_event()
        except h11.RemoteProtocolError as error:
            raise InvalidArgument(f"read request body: {error}") from error
        if isinstance(event, h11.Data):
            return bytes(event.data)
        return None

    def duplicate(self) -> int:
        """Return a duplicate of the socket."""
        if self._closed:
            raise Unavailable(CLIENT_GONE)
        self._duplicated = True
        return os.dup(self._transport.get_extra_info("socket").fileno())

    async def flush(self) -> None:
        """Read the request to its end, and write what is still to be written."""
        while await self.next_chunk() is not None:
            continue
        if self._transport.get_write_buffer_size():
            self._transport.set_write_buffer_limits(high=0)
            await self.drain()

    async def write_raw(self, data: bytes) -> None:
        """Send bytes that are not HTTP, after the last request; waits while the client does not read."""
        if self._closed:
            raise Unavailable(CLIENT_GONE)
        self._transport.write(data)
        await self.drain()

    async def wait_taken(self) -> None:
        """Wait a moment until the client has read what was written.

        docker-py reads the head through a buffer that it forgets, with all that came along.
        """
        fd = self._transport.get_extra_info("socket").fileno()
        for _ in range(TAKEN_CHECKS):
            if unread_bytes(fd) == 0:
                return
            await asyncio.sleep(TAKEN_PAUSE_S)

    def detach(self, head: bytes) -> tuple[int, bytes]:
        """Send ``head`` and let go of the socket; nothing is waiting to be written (``flush``)."""
        self._transport.pause_reading()
        fd = self.duplicate()
        try:
            os.set_blocking(fd, True)
            while head:
                head = head[os.write(fd, head) :]
        except OSError as error:
            os.close(fd)
            raise Unavailable(CLIENT_GONE) from error
        early, _ = self._http.trailing_data
        self._detached = True
        self._owner.closed(self)
        # Closes asyncio's descriptor and nothing else: no shutdown, so the duplicate goes on.
        self._transport.abort()
        return fd, early

    # The task

    async def _next_event(self) -> object:
        while True:
            event = self._http.next_event()
            if event is not h11.NEED_DATA:
                return event
            await self._wait_readable()

    async def _wait_readable(self) -> None:
        self._readable.clear()
        self._transport.resume_reading()
        await self._readable.wait()

    async def _serve(self) -> None:
        try:
            while not self._leaving and await self._serve_one():
                continue
        except h11.RemoteProtocolError as error:
            await self._refuse(error)
        except BaseException:
            # Cancelled: a monitor may still answer on a duplicate, so the socket is not shut down.
            if not self._detached:
                self._transport.abort()
            raise
        if not self._detached and not self._closed:
            if self._duplicated:  # closing alone would not tell the client
                await self.flush()
                self._transport.write_eof()
            self._transport.close()

    async def _next_request(self) -> object:
        while self._plain is None:
            if self._parser is not None or self._ended:
                event = self._http.next_event()
                if event is not h11.NEED_DATA:
                    return event
            await self._wait_readable()
        found, self._plain = self._plain, None
        return found

    async def _serve_plain(self, request: plain.Plain) -> bool:
        """Serve a request that came whole; False when the connection is of no further use."""
        answering = self._answering = plain.Answer()
        self._body = request.body
        exchange = Exchange(self, request, local=self._local)
        self._transport.resume_reading()
        if not await self._answer(exchange):
            return False
        self._answering = None
        return answering.done and not answering.closes

    async def _serve_one(self) -> bool:
        """Serve one request; False when the connection is of no further use."""
        event = await self._next_request()
        if isinstance(event, plain.Plain):
            return await self._serve_plain(event)
        if not isinstance(event, h11.Request):
            return False
        if not has_body(event):
            # The end of the message, so that the connection is free to upgrade.
            await self._next_event()
        # From here on reading shows that the client hung up.
        self._transport.resume_reading()
        waits_for_permission = self._http.they_are_waiting_for_100_continue
        if not await self._answer(Exchange(self, event, local=self._local)):
            return False
        if self._http.their_state is h11.SEND_BODY:
            if waits_for_permission:
                return False
            await self._discard_body()
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True

    async def _discard_body(self) -> None:
        try:
            async with asyncio.timeout(LINGER_S):
                while await self.next_chunk() is not None:
                    continue
        except (InvalidArgument, TimeoutError):
            return

    async def _answer(self, exchange: Exchange) -> bool:
        """Answer a request; False when the connection is somebody else's by now, or closed."""
        self._exchange = exchange
        try:
            await self._handle(exchange)
        except BerthError as error:
            await self._fail(exchange, error)
        except Exception as error:  # noqa: BLE001 - told to the client, and to the log
            await self._fail(exchange, unforeseen(error, f"{exchange.method} {exchange.target}"))
        finally:
            self._exchange = None
        return not (self._detached or self._closed)

    async def _fail(self, exchange: Exchange, error: BerthError) -> None:
        if self._detached or self._closed:
            return
        if not exchange.answered:
            status = status_of(error)
            await exchange.respond(status, None if status == 304 else document_of(error))
        elif exchange.content_type == JSON and self._is_sending_body():
            await exchange.end(message_of(error))
        else:
            # Too late for words: a body that ends without its end is how HTTP says so.
            log.warning("%s %s failed: %s", exchange.method, exchange.target, error)
            self._transport.close()

    def _is_sending_body(self) -> bool:
        if self._answering is not None:
            return self._answering.open
        return self._http.our_state is h11.SEND_BODY

    async def _refuse(self, error: h11.RemoteProtocolError) -> None:
        """Say why, and let the client read it: closing while it still sends would throw that away."""
        if self._closed or self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        # Without h11's quotation of what was sent, which is Python.
        data = msgspec.json.encode({"message": str(error).partition(": bytearray")[0]})
        headers = [
            ("Content-Type", JSON),
            ("Content-Length", str(len(data))),
            ("Connection", "close"),
        ]
        status = error.error_status_hint
        head = h11.Response(status_code=status, headers=headers, reason=REASONS[status])
        self.send(head, h11.Data(data=data), h11.EndOfMessage())
        self._refused = True
        self._transport.write_eof()
        self._transport.resume_reading()
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                await self._gone.wait()
