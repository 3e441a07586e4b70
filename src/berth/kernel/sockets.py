"""Messages with descriptors between berth's own processes: SOCK_SEQPACKET, JSON, SCM_RIGHTS.

A packet is one JSON document. One too large for a packet travels in a memfd that is the first
descriptor, announced by an empty packet body. So a message arrives whole or not at all.
"""

from __future__ import annotations

import _socket
import os

MAX_PACKET_BYTES = 65_536
MAX_DESCRIPTORS = 250  # the kernel's SCM_MAX_FD is 253

Socket = _socket.socket

_FD_BYTES = 4


def pair() -> tuple[Socket, Socket]:
    """Return a connected pair of packet sockets, both CLOEXEC."""
    left, right = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    return left, right


def adopt(fd: int) -> Socket:
    """Own the packet socket ``fd``."""
    return Socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, fd)


def send(sock: Socket, data: bytes, fds: tuple[int, ...] | list[int] = ()) -> None:
    """Send one message. BrokenPipeError when nobody listens any more."""
    if len(data) > MAX_PACKET_BYTES:
        memory = os.memfd_create("message", os.MFD_CLOEXEC)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(memory, view) :]
            send_packet(sock, b"\0", [memory, *fds])
        finally:
            os.close(memory)
    else:
        send_packet(sock, data, list(fds))


def send_packet(sock: Socket, data: bytes, fds: list[int]) -> None:
    """Send bytes with descriptors beside them, on any kind of Unix socket."""
    rights = b"".join(fd.to_bytes(_FD_BYTES, "little") for fd in fds)
    ancillary = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)] if fds else []
    sock.sendmsg([data], ancillary, _socket.MSG_NOSIGNAL)


def receive(sock: Socket) -> tuple[bytes, list[int]]:
    """Receive one message; empty bytes at the end. The descriptors are CLOEXEC and the caller's."""
    data, ancillary, flags, _ = sock.recvmsg(
        MAX_PACKET_BYTES, _socket.CMSG_LEN(MAX_DESCRIPTORS * _FD_BYTES), _socket.MSG_CMSG_CLOEXEC
    )
    fds: list[int] = []
    for level, kind, rights in ancillary:
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
            whole = len(rights) - len(rights) % _FD_BYTES
            fds += [
                int.from_bytes(rights[i : i + _FD_BYTES], "little")
                for i in range(0, whole, _FD_BYTES)
            ]
    if flags & (_socket.MSG_TRUNC | _socket.MSG_CTRUNC):
        for fd in fds:
            os.close(fd)
        raise OSError(90, "recvmsg: message truncated")
    if data == b"\0" and fds:
        memory = fds.pop(0)
        try:
            data = os.pread(memory, os.fstat(memory).st_size, 0)
        finally:
            os.close(memory)
    return data, fds
