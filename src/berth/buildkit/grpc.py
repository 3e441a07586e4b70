"""gRPC on connections that are there already, with either side as the client."""

from __future__ import annotations

import asyncio
import functools
import logging
from typing import TYPE_CHECKING

from grpclib.client import Channel
from grpclib.config import Configuration
from grpclib.const import Cardinality, Handler, Status
from grpclib.encoding.base import StatusDetailsCodecBase
from grpclib.encoding.proto import ProtoCodec
from grpclib.exceptions import GRPCError
from grpclib.protocol import H2Protocol
from grpclib.server import Handler as Calls
from grpclib.server import Server

from berth.buildkit import messages
from berth.buildkit.located import Located
from berth.errors import BerthError, Unavailable

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable, Mapping

    from google.protobuf.message import Message
    from grpclib.client import Stream as ClientStream
    from grpclib.server import Stream

    Serve = Callable[["Stream[Message, Message]"], Awaitable[None]]
    Method = tuple[Serve, str, str, str]  # what serves it, its kind, the request, the answer

KINDS = {
    "one-one": Cardinality.UNARY_UNARY,
    "one-many": Cardinality.UNARY_STREAM,
    "many-many": Cardinality.STREAM_STREAM,
}
WINDOW_BYTES = 8 << 20
MAX_MESSAGE_BYTES = 16 << 20  # as Go's servers have it
MAX_UNREAD_BYTES = 16 << 20  # answers that the other side does not take
# What grpclib tells of clients that cancel is no news.
logging.getLogger("grpclib").setLevel(logging.WARNING)


class Connection(H2Protocol):
    """HTTP/2 on one connection, whose end can be waited for."""

    gone: asyncio.Event

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        super().connection_made(transport)
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Take bytes; hang up on who sends a message without end, or asks and does not listen."""
        super().data_received(data)
        # Not public, but there is no other place where a message that is not whole yet can be measured.
        buffers = [stream.buffer for stream in self.processor.streams.values()]
        if any(buffer._acked_size > MAX_MESSAGE_BYTES for buffer in buffers):
            self.processor.close("the message is too large")
        if self._transport.get_write_buffer_size() > MAX_UNREAD_BYTES:
            self._transport.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Tell who waits."""
        super().connection_lost(exc)
        self.gone.set()


async def _adopt(make: Callable[[], H2Protocol], sock: socket.socket, early: bytes) -> Connection:
    """Speak HTTP/2 on a socket. ``early``: what was read of it before."""
    sock.setblocking(False)
    _, protocol = await asyncio.get_running_loop().connect_accepted_socket(make, sock=sock)
    assert isinstance(protocol, Connection)
    if early:
        protocol.data_received(early)
    return protocol


class Services(Server):
    """What is served, on any number of connections."""

    def __init__(self, services: Mapping[str, Mapping[str, Method]]) -> None:
        """``services``: by their names, their methods by names."""
        self._table = {
            f"/{service}/{name}": Handler(
                refusing(serve), KINDS[kind], messages.of(request), messages.of(answer)
            )
            for service, methods in services.items()
            for name, (serve, kind, request, answer) in methods.items()
        }
        super().__init__([self], codec=ProtoCodec(), status_details_codec=Details())

    def __mapping__(self) -> Mapping[str, Handler]:
        """Return what grpclib is to serve."""
        return self._table

    def _protocol_factory(self) -> Connection:
        calls = Calls(
            Table(self._mapping), self._codec, self._status_details_codec, self.__dispatch__
        )
        protocol = Connection(calls, self._config, self._h2_config)
        protocol.gone = asyncio.Event()
        return protocol

    async def serve(self, sock: socket.socket, early: bytes) -> None:
        """Serve a client until it hangs up."""
        protocol = await _adopt(self._protocol_factory, sock, early)
        try:
            await protocol.gone.wait()
        finally:
            protocol.processor.close()


class Table(dict[str, Handler]):
    """Methods by their paths. One that is not there is answered in a form that Go's clients understand."""

    def get(self, key: str, default: object = None) -> Handler:
        """Return a method."""
        del default
        return super().get(key) or Handler(
            unknown, Cardinality.STREAM_STREAM, messages.of("Empty"), messages.of("Empty")
        )


async def unknown(stream: Stream[Message, Message]) -> None:
    """Answer a call of a method that there is not."""
    del stream
    raise GRPCError(Status.UNIMPLEMENTED, "unknown method")


def refusing(serve: Serve) -> Serve:
    """Return a method that answers errors of ours as gRPC has them."""

    @functools.wraps(serve)
    async def served(stream: Stream[Message, Message]) -> None:
        try:
            await serve(stream)
        except BerthError as error:
            raise refusal(error) from error

    return served


def refusal(error: BerthError) -> GRPCError:
    """Return an error as gRPC has it."""
    text = f"{error.message} ({error.hint})" if error.hint else error.message
    details = list(error.details) if isinstance(error, Located) else None
    return GRPCError(Status.UNKNOWN, text, details)  # clients print the name of any other status


class Details(StatusDetailsCodecBase):
    """What is told of an error beside its text: bytes of a message, as the client understands it."""

    def encode(self, status: Status, message: str | None, details: object) -> bytes:
        """Return the message that carries status, text and details."""
        found = messages.of("RpcStatus")(code=status.value, message=message or "")
        assert isinstance(details, list)
        for url, value in details:
            found.details.add(type_url=url, value=value)
        return bytes(found.SerializeToString())

    def decode(self, status: Status, message: str | None, data: bytes) -> None:
        """Pass over what others tell."""


class Caller(Channel):
    """Calls what the other side of a connection serves."""

    @classmethod
    async def on(cls, sock: socket.socket, early: bytes) -> Caller:
        """Speak on a socket."""
        window = Configuration(
            http2_connection_window_size=WINDOW_BYTES, http2_stream_window_size=WINDOW_BYTES
        )
        self = cls(codec=ProtoCodec(), status_details_codec=Details(), config=window)
        self._protocol = await _adopt(self._protocol_factory, sock, early)
        return self

    def _protocol_factory(self) -> Connection:
        protocol = super()._protocol_factory()
        found = Connection(protocol.handler, protocol.config, protocol.h2_config)
        found.gone = asyncio.Event()
        return found

    async def _create_connection(self) -> H2Protocol:
        raise Unavailable("the session of the build's client is over")

    async def wait_gone(self) -> None:
        """Wait until the other side hangs up."""
        assert isinstance(self._protocol, Connection)
        await self._protocol.gone.wait()

    def open(
        self,
        method: str,
        request: str,
        answer: str,
        *,
        kind: str = "many-many",
        metadata: list[tuple[str, str]] | None = None,
    ) -> ClientStream[Message, Message]:
        """Return a call that goes both ways."""
        return self.request(
            f"/{method}", KINDS[kind], messages.of(request), messages.of(answer), metadata=metadata
        )

    async def ask(self, method: str, request: str, answer: str, **fields: object) -> Message:
        """Ask once. NotFound, Failed and others: what the other side says."""
        async with self.open(method, request, answer, kind="one-one") as stream:
            await stream.send_message(messages.of(request)(**fields), end=True)
            found = await stream.recv_message()
        if found is None:
            raise Unavailable(f"{method}: no answer")
        return found
