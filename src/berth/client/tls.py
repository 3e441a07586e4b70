"""TLS around an engine's connection, with both directions ended apart, and a client's way through it.

The standard library's sockets do not end one direction alone, and a thread that reads one may not write it.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
import threading

from berth import errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.client.address import Address

CHUNK_BYTES = 128 << 10
NOT_TLS = (
    b"HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n"
    b"Client sent an HTTP request to an HTTPS server.\n"
)


class Tls:
    """One connection, without I/O: bytes in, bytes out."""

    def __init__(self, context: ssl.SSLContext, *, server_name: str | None) -> None:
        """Be the server when ``server_name`` is None."""
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=server_name is None,
            server_hostname=server_name,
        )
        self.ready = False
        self.ended = False

    def receive(self, data: bytes) -> bytes:
        """Return what was inside; go on with the handshake before there is anything."""
        self._incoming.write(data)
        found = bytearray()
        try:
            if not self.ready:
                self._tls.do_handshake()
                self.ready = True
            while chunk := self._tls.read(CHUNK_BYTES):
                found += chunk
            self.ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.ended = True
        except ssl.SSLError as error:
            if error.reason == "HTTP_REQUEST":
                self._outgoing.read()
                self._outgoing.write(NOT_TLS)
            why = getattr(error, "verify_message", "") or error.reason or error
            raise errors.InvalidArgument(f"TLS: {why}") from error
        return bytes(found)

    def send(self, data: bytes) -> None:
        """Encrypt."""
        self._tls.write(data)

    def finish(self) -> None:
        """Say that nothing more comes (close_notify)."""
        try:
            self._tls.unwrap()
        except ssl.SSLError:  # the other side has not said so yet
            return

    def outgoing(self) -> bytes:
        """Return what is to be sent now."""
        return self._outgoing.read()


class TlsFiles:
    """What a client shows and trusts: PEM files. Without ``verify`` any engine will do."""

    __slots__ = ("ca", "cert", "key", "verify")

    def __init__(self, *, ca: str, cert: str, key: str, verify: bool) -> None:
        self.ca = ca
        self.cert = cert
        self.key = key
        self.verify = verify

    def context(self) -> ssl.SSLContext:
        """Return what a client speaks; Failed names the file that cannot be read."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # Docker's documentation makes authorities without keyUsage, which Go does not mind.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        try:
            if self.verify:
                context.load_verify_locations(self.ca)
            if self.verify or os.path.exists(self.cert):
                context.load_cert_chain(self.cert, self.key)
        except (OSError, ssl.SSLError) as error:
            files = f"{self.ca}, {self.cert}, {self.key}"
            raise errors.Failed(f"load TLS files ({files}): {error.strerror or error}") from error
        return context


def connect(address: Address, outer: socket.socket) -> socket.socket:
    """Speak TLS on a connected socket; return one that carries what is inside."""
    assert address.tls is not None
    codec = Tls(address.tls.context(), server_name=address.host)
    early = b""
    try:
        codec.receive(b"")
        while not codec.ready:
            outer.sendall(codec.outgoing())
            data = outer.recv(CHUNK_BYTES)
            if not data:
                raise errors.InvalidArgument("TLS: the engine hung up")
            early = codec.receive(data)
        outer.sendall(codec.outgoing())
    except (errors.InvalidArgument, OSError) as error:
        outer.close()
        raise errors.Unavailable(f"connect to {address.url}: {error}") from error
    inner, ours = socket.socketpair()
    ours.sendall(early)
    threading.Thread(target=_pump, args=(outer, ours, codec), daemon=True).start()
    return inner


def _pump(outer: socket.socket, ours: socket.socket, codec: Tls) -> None:
    reading = [outer, ours]
    try:
        while outer in reading:
            for sock in select.select(reading, [], [])[0]:
                data = sock.recv(CHUNK_BYTES)
                if sock is ours:
                    codec.send(data) if data else codec.finish()
                    outer.sendall(codec.outgoing())
                elif data:
                    ours.sendall(codec.receive(data))
                    outer.sendall(codec.outgoing())
                if not data or (sock is outer and codec.ended):
                    reading.remove(sock)
    except (errors.InvalidArgument, OSError):
        pass  # whoever reads or writes the other end sees its end
    finally:
        ours.close()
        outer.close()
