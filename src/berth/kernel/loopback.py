"""The loopback interface of the calling process's network namespace (netdevice(7))."""

from __future__ import annotations

import _socket
import fcntl
import sys

SIOCSIFFLAGS = 0x8914
IFF_UP = 1
NAME_BYTES = 16
REQUEST_BYTES = 40  # struct ifreq


def bring_up() -> None:
    """Bring ``lo`` up; it gets 127.0.0.1 and ::1 by that."""
    request = b"lo".ljust(NAME_BYTES, b"\0") + IFF_UP.to_bytes(2, sys.byteorder)
    sock = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
    try:
        fcntl.ioctl(sock.fileno(), SIOCSIFFLAGS, request.ljust(REQUEST_BYTES, b"\0"))
    finally:
        sock.close()
