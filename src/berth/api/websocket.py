"""WebSocket for ``attach/ws``: the handshake, and messages that carry a container's streams unframed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsproto.connection import ConnectionType
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Ping,
    Request,
    TextMessage,
)
from wsproto.handshake import H11Handshake
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from berth.api.exchange import BASE_HEADERS
from berth.errors import InvalidArgument

if TYPE_CHECKING:
    from berth.api.exchange import Exchange

NORMAL_CLOSURE = 1000


class WebSocket:
    """A connection after its handshake, as a :class:`berth.api.relay.Codec`."""

    def __init__(self, exchange: Exchange) -> None:
        """Read the client's part of the handshake; InvalidArgument when it is none."""
        handshake = H11Handshake(ConnectionType.SERVER)
        try:
            handshake.initiate_upgrade_connection(exchange.raw_headers, exchange.target)
        except RemoteProtocolError as error:
            raise InvalidArgument(f"WebSocket handshake: {error}") from error
        request = next(handshake.events())
        assert isinstance(request, Request)
        headers = [(name.encode(), value.encode()) for name, value in BASE_HEADERS]
        protocol = request.subprotocols[0] if request.subprotocols else None
        self.head = handshake.send(AcceptConnection(subprotocol=protocol, extra_headers=headers))
        assert handshake.connection is not None
        self._connection = handshake.connection
        self._outgoing = bytearray()
        self._closed = False
        self.ended = False

    def receive(self, data: bytes) -> bytes:
        """Return what the client's messages carry; answer pings and the closing handshake."""
        found = bytearray()
        try:
            self._connection.receive_data(data)
            for event in self._connection.events():
                if isinstance(event, BytesMessage):
                    found += event.data
                elif isinstance(event, TextMessage):
                    found += event.data.encode()
                elif isinstance(event, Ping):
                    self._outgoing += self._connection.send(event.response())
                elif isinstance(event, CloseConnection):
                    self.ended = True
                    if not self._closed:
                        self._closed = True
                        self._outgoing += self._connection.send(event.response())
        except (LocalProtocolError, RemoteProtocolError) as error:
            raise InvalidArgument(f"WebSocket: {error}") from error
        return bytes(found)

    def send(self, data: bytes) -> None:
        """Make a binary message of a piece of output."""
        if not self._closed:
            self._outgoing += self._connection.send(BytesMessage(data=data))

    def finish(self) -> None:
        """Begin the closing handshake."""
        if not self._closed:
            self._closed = True
            self._outgoing += self._connection.send(CloseConnection(code=NORMAL_CLOSURE))

    def outgoing(self) -> bytes:
        """Return what is to be sent now."""
        data = bytes(self._outgoing)
        self._outgoing.clear()
        return data
