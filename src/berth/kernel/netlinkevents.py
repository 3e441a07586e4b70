"""What the kernel tells of changes that somebody else makes: multicast groups of netlink(7)."""

from __future__ import annotations

import _socket
import errno
import struct

from berth.kernel import c
from berth.kernel.netlink import NETLINK_NETFILTER, Message, decode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

NFTABLES = 7  # group of NETLINK_NETFILTER

_AF_NETLINK = 16
_SO_ATTACH_FILTER = 26
_RECEIVE_BYTES = 65_536
_KIND_AT = 4  # in the header of a message

# Classic BPF (linux/filter.h): load a half word at an offset, skip if equal, return how much is kept.
_LOAD_HALF, _JUMP_EQUAL, _RETURN = 0x28, 0x15, 0x06
_ALL, _NOTHING = 0xFFFFFFFF, 0


class Listener:
    """Packets of one group of NETLINK_NETFILTER, in the network namespace of the thread that makes it.

    Packets that begin with a message of an ``ignored`` kind do not even wake anybody.
    """

    def __init__(self, group: int, *, ignored: Sequence[int]) -> None:
        kind = _socket.SOCK_RAW | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK
        self._socket = _socket.socket(_AF_NETLINK, kind, NETLINK_NETFILTER)
        try:
            self._filter(ignored)
            self._socket.bind((0, 1 << (group - 1)))
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._socket.fileno()

    def read(self) -> list[Message] | None:
        """Return the messages of the next packet, none when there is no packet; None when some were lost."""
        try:
            return list(decode(self._socket.recv(_RECEIVE_BYTES)))
        except BlockingIOError:
            return []
        except OSError as error:
            if error.errno == errno.ENOBUFS:
                return None
            raise

    def _filter(self, ignored: Sequence[int]) -> None:
        # A filter loads numbers as they come over a wire; a kind is in the machine's byte order.
        kinds = [int.from_bytes(struct.pack("=H", kind), "big") for kind in ignored]
        program = [
            (_LOAD_HALF, 0, 0, _KIND_AT),
            *((_JUMP_EQUAL, len(kinds) - n, 0, kind) for n, kind in enumerate(kinds)),
            (_RETURN, 0, 0, _ALL),
            (_RETURN, 0, 0, _NOTHING),
        ]
        code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
        buffer = c.create_string_buffer(code, len(code))
        description = struct.pack("@HP", len(program), c.addressof(buffer))
        self._socket.setsockopt(_socket.SOL_SOCKET, _SO_ATTACH_FILTER, description)
