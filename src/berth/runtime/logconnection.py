"""A connection to a log server: it never makes the monitor wait once it is open."""

from __future__ import annotations

import _socket
import select

from berth.errors import Failed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from berth.runtime.messages import RemoteLogMessage

DATAGRAMS = ("udp", "unixgram")
SECURE = "tcp+tls"


class Connection:
    """Datagrams or a stream, in the clear."""

    events = select.EPOLLOUT  # for which it waits, while something is to be sent
    holds = False  # something that was put already

    def __init__(self, sock: _socket.socket) -> None:
        self._sock = sock
        sock.setblocking(False)

    def fileno(self) -> int:
        """Return the descriptor to watch."""
        return self._sock.fileno()

    def put(self, data: bytes) -> int:
        """Send what goes now, and return how much; BlockingIOError when nothing does."""
        return self._sock.send(data, _socket.MSG_NOSIGNAL)

    def finish(self, messages: list[bytes], timeout_s: float) -> None:
        """Send the last, to a server that takes them in time."""
        self._sock.settimeout(timeout_s)
        for data in messages:
            self._sock.sendall(data, _socket.MSG_NOSIGNAL)

    def close(self) -> None:
        """Close it."""
        self._sock.close()


def connect(message: RemoteLogMessage, fd: int | None, timeout_s: float) -> _socket.socket:
    """Return a socket that is connected, or that begins to be when there is no time.

    ``fd``: the folder of a unix socket. Failed, in Docker's words, when nobody is there.
    """
    kind = _socket.SOCK_DGRAM if message["network"] in DATAGRAMS else _socket.SOCK_STREAM
    address, family = message["address"], message["family"]
    sock = _socket.socket(family, kind | _socket.SOCK_CLOEXEC)
    if family == _socket.AF_UNIX:
        # By its folder's descriptor: the host's paths are not seen from here.
        where: object = f"/proc/self/fd/{fd}/{address[0]}"
    else:
        where = (address[0], int(address[1]))
    sock.settimeout(timeout_s)
    try:
        sock.connect(where)  # type: ignore[arg-type]  # of the one kind or the other
    except BlockingIOError:
        pass
    except OSError as error:
        sock.close()
        refuse(message, f"connect: {(error.strerror or str(error)).lower()}", error)
    return sock


def refuse(message: RemoteLogMessage, why: str, error: OSError) -> NoReturn:
    """Raise what a start fails with."""
    network, shown = message["network"].removesuffix("+tls"), message["shown"]
    raise Failed(f"failed to initialize logging driver: dial {network} {shown}: {why}") from error
