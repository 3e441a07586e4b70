"""One request and its answer, as a route's handler sees them."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import h11
import msgspec

from berth import __version__
from berth.api.reasons import REASONS
from berth.engine import checkpoints
from berth.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from berth.api.plain import Plain
    from berth.api.protocol import HttpConnection

API_VERSION = (1, 56)
MIN_API_VERSION = (1, 24)
MAX_DOCUMENT_BYTES = 16 << 20

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
TAR = "application/x-tar"
RAW_STREAM = "application/vnd.docker.raw-stream"
MULTIPLEXED_STREAM = "application/vnd.docker.multiplexed-stream"

Headers = list[tuple[str, str]]

BASE_HEADERS: Headers = [
    ("Api-Version", "{}.{}".format(*API_VERSION)),
    ("Docker-Experimental", str(checkpoints.ARE_POSSIBLE).lower()),
    ("Ostype", "linux"),
    ("Server", f"berth/{__version__} (linux)"),
]

_encode = msgspec.json.Encoder().encode


class Exchange:
    """A handler reads the body if it wants it, then answers once: whole, in pieces, or by taking over.

    Whole: :meth:`respond`. In pieces: :meth:`begin`, :meth:`write` any number of times, :meth:`end`.
    Taking over: :meth:`upgrade`, after which the connection is the handler's.
    """

    __slots__ = (
        "_connection",
        "_headers",
        "answered",
        "content_type",
        "local",
        "long",
        "method",
        "target",
    )

    def __init__(
        self, connection: HttpConnection, request: h11.Request | Plain, *, local: bool
    ) -> None:
        self._connection = connection
        self._headers = request.headers
        self.method = request.method.decode("ascii")
        self.target = request.target.decode("ascii")
        self.local = local  # came over a unix socket
        self.long = False  # ends with its client, as a stream does; other work is finished
        self.answered = False
        self.content_type = ""

    def header(self, name: bytes) -> str | None:
        """Return the value of a header, named in lower case; the first of several."""
        for key, value in self._headers:
            if key == name:
                return value.decode("latin-1")
        return None

    @property
    def raw_headers(self) -> list[tuple[bytes, bytes]]:
        """Return all headers, their names in lower case."""
        return list(self._headers)

    # The request's body

    async def body(self) -> bytes:
        """Return the whole body; InvalidArgument when it is larger than a document may be."""
        parts, size = [], 0
        async for chunk in self.body_stream():
            size += len(chunk)
            if size > MAX_DOCUMENT_BYTES:
                raise InvalidArgument("http: request body too large")
            parts.append(chunk)
        return b"".join(parts)

    async def body_stream(self) -> AsyncIterator[bytes]:
        """Yield the body as it comes; a client that is quicker than the handler is held back."""
        while (chunk := await self._connection.next_chunk()) is not None:
            yield chunk

    # The answer

    async def respond(self, status: int, document: object = None) -> None:
        """Answer with a JSON document, or without a body for None."""
        if document is None:
            await self.respond_bytes(status, b"", "")
        else:
            await self.respond_bytes(status, _encode(document) + b"\n", JSON)

    async def respond_bytes(
        self, status: int, data: bytes, content_type: str, *, headers: Headers | None = None
    ) -> None:
        """Answer with a whole body."""
        lines = [*BASE_HEADERS, *(headers or ())]
        if content_type:
            lines.append(("Content-Type", content_type))
        if status not in (204, 304):
            lines.append(("Content-Length", str(len(data))))
        body = [h11.Data(data=data)] if data and self.method != "HEAD" else []
        self._connection.send(self._head(status, lines), *body, h11.EndOfMessage())
        await self._connection.drain()

    def begin(
        self, content_type: str = JSON, *, close: bool = False, more: Headers | None = None
    ) -> None:
        """Answer 200 with a body that follows in pieces; the head leaves at once."""
        headers = [
            *(more or ()),
            *BASE_HEADERS,
            ("Content-Type", content_type),
            ("Transfer-Encoding", "chunked"),
        ]
        if close:
            headers.append(("Connection", "close"))
        self.content_type = content_type
        self._connection.send(self._head(200, headers))

    def _head(self, status: int, headers: Headers) -> h11.Response:
        self.answered = True
        return response_head(status, tuple(headers))

    def _send_data(self, data: bytes) -> None:
        if self.method != "HEAD":
            self._connection.send(h11.Data(data=data))

    async def write(self, data: bytes) -> None:
        """Send one piece; waits while the client does not read."""
        if data:
            self._send_data(data)
            await self._connection.drain()

    @property
    def is_held_back(self) -> bool:
        """Say whether the client does not read as fast as it is written to."""
        return self._connection.is_held_back

    def send_document(self, document: object) -> None:
        """Send one JSON document of a stream of them, without waiting for the client."""
        self._send_data(_encode(document) + b"\r\n")

    async def write_document(self, document: object) -> None:
        """Send one JSON document of a stream of them; waits while the client does not read."""
        self.send_document(document)
        await self._connection.drain()

    async def end(self, document: object = None) -> None:
        """End the body, with one more document unless it is None."""
        last = [] if document is None else [h11.Data(data=_encode(document) + b"\r\n")]
        self._connection.send(*last, h11.EndOfMessage())
        await self._connection.drain()

    # Leaving HTTP

    def duplicate(self) -> int:
        """Return a duplicate of the socket, for a monitor to answer on should berthd die.

        The caller closes it. Unavailable when the client is gone.
        """
        return self._connection.duplicate()

    async def upgrade(
        self, content_type: str = RAW_STREAM, *, ahead: AsyncIterator[bytes] | None = None
    ) -> tuple[int, bytes]:
        """Answer 101 if the client asked for an upgrade, else 200, and take the connection out of HTTP.

        ``ahead`` is sent first. Returns a descriptor of its socket, blocking and the caller's to close, and
        the bytes that the client sent ahead. Unavailable when the client is gone.
        """
        wanted = self.header(b"upgrade") is not None
        return await self.switch(upgrade_head(content_type, wanted=wanted), ahead)

    async def switch(
        self, head: bytes, ahead: AsyncIterator[bytes] | None = None
    ) -> tuple[int, bytes]:
        """Answer with a head of the caller's, then as :meth:`upgrade`."""
        await self._connection.flush()
        self.answered = True
        if ahead is not None:
            await self._connection.write_raw(head)
            await self._connection.wait_taken()
            async for chunk in ahead:
                await self._connection.write_raw(chunk)
            await self._connection.flush()
            head = b""
        return self._connection.detach(head)


@lru_cache(maxsize=256)
def response_head(status: int, headers: tuple[tuple[str, str], ...]) -> h11.Response:
    """Return the head of an answer. Most are alike, and h11 looks at every character of a new one."""
    # h11 takes strings; its types say bytes only for what it gives.
    return h11.Response(status_code=status, headers=list(headers), reason=REASONS[status])


def upgrade_head(content_type: str, *, wanted: bool) -> bytes:
    """Return the head of the answer after which the connection carries a stream."""
    lines = ["HTTP/1.1 101 UPGRADED" if wanted else "HTTP/1.1 200 OK"]
    lines.append(f"Content-Type: {content_type}")
    if wanted:
        lines += ["Connection: Upgrade", "Upgrade: tcp"]
    lines += [f"{name}: {value}" for name, value in BASE_HEADERS]
    return "\r\n".join([*lines, "", ""]).encode()
