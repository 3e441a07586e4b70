"""A connection to a log server by TLS. The engine's part is text: nothing on disk is seen from here."""

from __future__ import annotations

import encodings.idna  # noqa: F401 - names of servers go through it, when no module is in sight any more
import os
import select
import ssl

from berth.runtime import codec, logconnection
from berth.runtime.logconnection import Connection

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket

    from berth.runtime.messages import CertificatesMessage, RemoteLogMessage

CHUNK_BYTES = 16_384


class SecureConnection(Connection):
    """TLS over a stream, by memory: what is to be sent is encrypted first, then sent as far as it goes."""

    def __init__(self, sock: _socket.socket, context: ssl.SSLContext, name: str) -> None:
        super().__init__(sock)
        self._received, self._unsent = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._received, self._unsent, server_hostname=name)
        self._rest = b""

    @property
    def holds(self) -> bool:  # type: ignore[override]  # of a plain one it is a constant
        """Say whether something that was put is still to be sent."""
        return bool(self._rest or self._unsent.pending)

    def shake_hands(self, timeout_s: float) -> None:
        """Begin, waiting for the server; OSError when it is not the one it should be."""
        self._sock.settimeout(timeout_s)
        try:
            while True:
                try:
                    self._tls.do_handshake()
                except ssl.SSLWantReadError:
                    self._flush()
                    self._fill()
                else:
                    break
            self._flush()
        finally:
            self._sock.setblocking(False)

    def put(self, data: bytes) -> int:
        """Send; a handshake that has not ended goes on first."""
        self._flush()
        while True:
            try:
                count = self._tls.write(data)
            except ssl.SSLWantReadError:
                self._flush()
                self._fill()
            else:
                break
        try:
            self._flush()
        except BlockingIOError:  # it is on its way: `holds` says so
            pass
        return count

    def _flush(self) -> None:
        self.events = select.EPOLLOUT
        while self.holds:
            self._rest = self._rest or self._unsent.read(CHUNK_BYTES)
            self._rest = self._rest[super().put(self._rest) :]

    def _fill(self) -> None:
        self.events = select.EPOLLIN
        data = self._sock.recv(CHUNK_BYTES)
        if data:
            self._received.write(data)
        else:
            self._received.write_eof()

    def finish(self, messages: list[bytes], timeout_s: float) -> None:
        """Send the last, and say that no more follows."""
        self._sock.settimeout(timeout_s)
        for data in messages:
            self.put(data)
        self._flush()
        try:
            self._tls.unwrap()
        except ssl.SSLWantReadError:  # for the server's own word, for which nobody waits
            pass
        self._flush()
        self._leave_nothing_unread()

    def _leave_nothing_unread(self) -> None:
        """Read what the server said (its tickets), or the kernel throws away what is on its way."""
        self._sock.setblocking(False)
        try:
            while self._sock.recv(CHUNK_BYTES):
                pass
        except OSError:
            pass


class Certificates:
    """What a memory file says: whom to trust, and who we are."""

    def __init__(self, message: RemoteLogMessage, fd: int) -> None:
        data = os.pread(fd, os.fstat(fd).st_size, 0)
        self._message = message
        self._told: CertificatesMessage = codec.decode(data)
        self._context = self._made()

    def _made(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.hostname_checks_common_name = False
        if not self._told["verify"]:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        try:
            if self._told["authorities"]:
                context.load_verify_locations(cadata=self._told["authorities"])
            if self._told["own"]:
                _load(context, self._told["own"].encode())
        except OSError as error:
            why = error.strerror or str(error)
            logconnection.refuse(self._message, f"could not load certificates: {why}", error)
        return context

    def secure(self, sock: _socket.socket, timeout_s: float) -> SecureConnection:
        """Return the connection; without time, the first that is put shakes hands."""
        connection = SecureConnection(sock, self._context, self._told["name"])
        if timeout_s:
            try:
                connection.shake_hands(timeout_s)
            except ssl.SSLCertVerificationError as error:
                connection.close()
                why = f"tls: failed to verify certificate: x509: {error.verify_message}"
                logconnection.refuse(self._message, why, error)
            except OSError as error:
                connection.close()
                logconnection.refuse(self._message, f"tls: {error.strerror or error}", error)
        return connection


def _load(context: ssl.SSLContext, own: bytes) -> None:
    """Load a certificate with its key, which the library takes from files only."""
    fd = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        os.write(fd, own)
        context.load_cert_chain(f"/proc/self/fd/{fd}", password="")
    finally:
        os.close(fd)
