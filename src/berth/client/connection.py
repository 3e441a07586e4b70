"""A synchronous HTTP/1.1 connection to an engine, over a unix socket or TCP.

One connection serves any number of requests, one after the other: a response is read to its end before the
next request. ``send`` and ``receive`` may be called apart, so that two connections wait at the same time.
A hijacked connection leaves HTTP for good: its socket is the caller's.
"""

from __future__ import annotations

import _socket

from berth import errors
from berth.client import documents

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable, Iterator

    from berth.client.address import Address

    Query = dict[str, str] | list[tuple[str, str]] | None

API = "/v1.48"  # the oldest version that has all we ask for
READ_BYTES = 1 << 18
HEAD_LIMIT_BYTES = 1 << 17
KEPT = b"!'()*-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz/:"
NO_BODY = (204, 304)
UPGRADE = {"Connection": "Upgrade", "Upgrade": "tcp"}  # headers of a request that may be hijacked
KINDS: dict[int, type[errors.BerthError]] = {
    400: errors.InvalidArgument,
    401: errors.Unauthorized,
    403: errors.Forbidden,
    404: errors.NotFound,
    409: errors.Conflict,
    501: errors.Unsupported,
    503: errors.Unavailable,
}


def quote(text: str) -> str:
    """Return the text as it stands in a path or a query (RFC 3986)."""
    data = text.encode("utf-8", "surrogateescape")
    return "".join(chr(byte) if byte in KEPT else f"%{byte:02X}" for byte in data)


def target(path: str, query: Query = None) -> str:
    """Return the request target below the API's version; empty parameters are left out."""
    given = query.items() if isinstance(query, dict) else query or ()
    pairs = "&".join(f"{key}={quote(value)}" for key, value in given if value)
    return f"{API}{path}?{pairs}" if pairs else API + path


class Response:
    """The head of an answer, and its body as it comes."""

    __slots__ = ("_body", "headers", "status")

    def __init__(self, status: int, headers: dict[str, str], body: Iterator[bytes]) -> None:
        self.status = status
        self.headers = headers
        self._body = body

    def chunks(self) -> Iterator[bytes]:
        """Give the body in pieces."""
        return self._body

    def read(self) -> bytes:
        """Return the rest of the body."""
        return b"".join(self._body)

    def document(self) -> object:
        """Return the JSON body; None when there is no body."""
        data = self.read()
        return documents.decode(data) if data.strip() else None

    def lines(self) -> Iterator[object]:
        """Give the documents of a body that has one JSON document a line."""
        rest = b""
        for chunk in self._body:
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                if line.strip():
                    yield documents.decode(line)
        if rest.strip():
            yield documents.decode(rest)

    def require(self) -> Response:
        """Return this response if it says success; else read it and raise the error's kind."""
        if self.status < 400:
            return self
        data = self.read()
        try:
            body = documents.mapping(documents.decode(data))
        except errors.Corrupt:
            body = {"message": data.decode("utf-8", "replace").strip()}
        message = documents.text(body, "message") or f"the engine answered {self.status}"
        code = documents.text(body, "code")
        if code in errors.KINDS:
            raise errors.from_record({"code": code, "message": message})
        raise KINDS.get(self.status, errors.Failed)(message)


class Connection:
    """See the module. Connects when first used; Unavailable when nobody answers."""

    __slots__ = ("_again", "_buffer", "_fresh", "_socket", "address")

    def __init__(self, address: Address) -> None:
        self.address = address
        self._socket: _socket.socket | None = None
        self._buffer = b""
        self._fresh = True
        self._again: bytes | None = None

    def open(self) -> _socket.socket:
        """Connect if not connected."""
        if self._socket is None:
            self._socket = _connect(self.address)
            self._buffer = b""
            self._fresh = True
        return self._socket

    def close(self) -> None:
        """Hang up; the next request connects again."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def request(
        self,
        method: str,
        path: str,
        query: Query = None,
        *,
        body: object = None,
        data: Iterable[bytes] | None = None,
        headers: dict[str, str] | None = None,
    ) -> Response:
        """Send one request and return the head of its answer. Raises the kind the engine answered with."""
        self.send(method, path, query, body=body, data=data, headers=headers)
        return self.receive().require()

    def send(
        self,
        method: str,
        path: str,
        query: Query = None,
        *,
        body: object = None,
        data: Iterable[bytes] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        """Send one request: ``body`` as JSON, or ``data`` in chunks as an archive."""
        lines = [f"{method} {target(path, query)} HTTP/1.1", "Host: berth", "User-Agent: berth"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        payload = b"" if body is None else documents.encode(body)
        if body is not None:
            lines.append("Content-Type: application/json")
        if data is not None:
            lines += ["Content-Type: application/x-tar", "Transfer-Encoding: chunked"]
        elif payload or method in ("POST", "PUT"):
            lines.append(f"Content-Length: {len(payload)}")
        message = "\r\n".join([*lines, "", ""]).encode("latin-1") + payload
        self._again = None if data is not None else message
        try:
            self.open().sendall(message)
            for piece in data or ():
                if piece:
                    self.open().sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
            if data is not None:
                self.open().sendall(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            # The answer, perhaps an early refusal of the body, is still to be read.
            return

    def look(self, path: str, query: Query = None) -> Response:
        """Send a HEAD request and return the answer, whatever its status; it has no body."""
        self.send("HEAD", path, query)
        return self.receive(bodiless=True)

    def receive(self, *, bodiless: bool = False) -> Response:
        """Return the head of the answer to what was sent."""
        head = self._head()
        while head.startswith((b"HTTP/1.1 100", b"HTTP/1.1 102")):
            head = self._head()
        self._fresh = False
        first, *rest = head.decode("latin-1").split("\r\n")
        version, _, after = first.partition(" ")
        if not version.startswith("HTTP/1.") or not after[:3].isdecimal():
            self.close()
            raise errors.Corrupt(f"read answer of {self.address.url}: not HTTP: {first[:40]!r}")
        headers = {}
        for line in rest:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        body = iter(()) if bodiless else self._body(int(after[:3]), headers)
        return Response(int(after[:3]), headers, body)

    def hijack(self) -> tuple[_socket.socket, bytes]:
        """Take the socket out of HTTP after a request sent with ``UPGRADE``; with it, bytes already read."""
        response = self.receive()
        if response.status not in (101, 200):
            response.require()
        socket, early = self.open(), self._buffer
        self._socket, self._buffer = None, b""
        return socket, early

    def _fill(self) -> bool:
        try:
            data = self.open().recv(READ_BYTES)
        except ConnectionResetError:
            return False
        self._buffer += data
        return bool(data)

    def _head(self) -> bytes:
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > HEAD_LIMIT_BYTES:
                raise errors.Corrupt(f"read answer of {self.address.url}: the head does not end")
            if not self._fill():
                self._send_again()
        head, self._buffer = self._buffer[:end], self._buffer[end + 4 :]
        return head

    def _send_again(self) -> None:
        """Ask once more on a new connection if the engine hung up on an idle one."""
        asked, retry = self._again, not self._fresh and not self._buffer
        self.close()
        self._again = None
        if not retry or asked is None:
            raise errors.Unavailable(f"the engine at {self.address.url} hung up")
        self.open().sendall(asked)

    def _body(self, status: int, headers: dict[str, str]) -> Iterator[bytes]:
        if status == 101 or status in NO_BODY:
            return
        if headers.get("transfer-encoding", "").lower() == "chunked":
            yield from self._chunked()
        elif "content-length" in headers:
            yield from self._counted(int(headers["content-length"]))
        else:
            yield from self._until_closed()
        if headers.get("connection", "").lower() == "close":
            self.close()

    def _counted(self, left: int) -> Iterator[bytes]:
        while left:
            if not self._buffer and not self._fill():
                raise errors.Unavailable(f"the engine at {self.address.url} hung up in an answer")
            piece, self._buffer = self._buffer[:left], self._buffer[left:]
            left -= len(piece)
            yield piece

    def _chunked(self) -> Iterator[bytes]:
        while True:
            size = int(self._line().split(b";")[0], 16)
            if size == 0:
                while self._line():
                    pass
                return
            yield from self._counted(size)
            self._line()

    def _line(self) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            if not self._fill():
                raise errors.Unavailable(f"the engine at {self.address.url} hung up in an answer")
        line, self._buffer = self._buffer[:end], self._buffer[end + 2 :]
        return line

    def _until_closed(self) -> Iterator[bytes]:
        if self._buffer:
            yield self._buffer
            self._buffer = b""
        while data := self.open().recv(READ_BYTES):
            yield data
        self.close()


def _connect(address: Address) -> _socket.socket:
    if address.ssh:
        from berth.client import ssh

        return ssh.connect(address)
    try:
        if address.path:
            socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
            socket.connect(address.path)
            return socket
        found = _socket.getaddrinfo(address.host, address.port, 0, _socket.SOCK_STREAM)
        family, kind, protocol, _, where = found[0]
        socket = _socket.socket(family, kind | _socket.SOCK_CLOEXEC, protocol)
        socket.connect(where)
        socket.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
    except PermissionError as error:
        raise errors.Forbidden(
            f"permission denied while trying to connect to the berth engine at {address.url}",
            hint="use sudo, or join the group that owns the socket",
        ) from error
    except OSError as error:
        raise errors.Unavailable(
            f"Cannot connect to the berth engine at {address.url}. Is the engine running (berth serve)?"
        ) from error
    if address.tls is None:
        return socket
    from berth.client import tls

    return tls.connect(address, _as_public(socket))


def _as_public(sock: _socket.socket) -> socket.socket:
    """Return the standard library's kind of socket, which TLS is written for."""
    import socket

    return socket.socket(fileno=sock.detach())
