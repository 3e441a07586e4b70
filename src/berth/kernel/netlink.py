"""netlink(7): the codec of messages and attributes, and a socket that waits for acknowledgements.

Encoding and decoding are pure; :class:`NetlinkSocket` alone does I/O. Kernel replies to the requests
made here are queued before sendto(2) returns, so nothing waits for another process.
"""

from __future__ import annotations

import _socket
import os
from struct import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12

NLM_F_REQUEST = 0x001
NLM_F_ACK = 0x004
NLM_F_DUMP = 0x300
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_APPEND = 0x800

NLMSG_ERROR = 2
NLMSG_DONE = 3

_AF_NETLINK = 16
_SOL_NETLINK = 270
_SO_SNDBUFFORCE = 32
_NETLINK_CAP_ACK = 10  # an acknowledgement does not repeat the request
_NETLINK_EXT_ACK = 11  # and a refusal says in words what was wrong
_NLMSGERR_ATTR_MSG = 1
_NLM_F_ACK_TLVS = 0x200
_NLM_F_DUMP_INTR = 0x10
_DUMPS = 10
_NLA_F_NESTED = 0x8000
_NLA_TYPE_MASK = 0x3FFF
_RECEIVE_BYTES = 65_536
_KERNEL = 0  # as a sender

_HEADER = Struct("=IHHII")  # length, type, flags, sequence, port
_ATTRIBUTE = Struct("=HH")  # length, type
_ERROR = Struct("=i")
_U16 = Struct("=H")
_U32 = Struct("=I")
_BE16 = Struct(">H")
_BE32 = Struct(">I")

u16 = _U16.pack
u32 = _U32.pack
be16 = _BE16.pack
be32 = _BE32.pack


def read_u32(data: bytes) -> int:
    """Decode a number in the machine's byte order."""
    return int(_U32.unpack_from(data)[0])


class Message:
    """One netlink message: its type, flags, and the body that follows the header."""

    __slots__ = ("body", "flags", "kind", "sequence")

    def __init__(self, kind: int, body: bytes, *, flags: int = 0, sequence: int = 0) -> None:
        self.kind = kind
        self.body = body
        self.flags = flags
        self.sequence = sequence

    def encode(self, sequence: int, flags: int = 0) -> bytes:
        """Return the bytes on the wire, padded to four."""
        length = _HEADER.size + len(self.body)
        head = _HEADER.pack(length, self.kind, self.flags | flags | NLM_F_REQUEST, sequence, 0)
        return head + self.body + bytes(-length % 4)


def attribute(kind: int, payload: bytes) -> bytes:
    """Encode one attribute, padded to four bytes."""
    length = 4 + len(payload)
    return _ATTRIBUTE.pack(length, kind) + payload + bytes(-length % 4)


def nested(kind: int, *attributes: bytes) -> bytes:
    """Encode an attribute that holds attributes."""
    return attribute(kind | _NLA_F_NESTED, b"".join(attributes))


def text(kind: int, value: str) -> bytes:
    """Encode a string attribute, terminated."""
    return attribute(kind, value.encode() + b"\0")


def decode(data: bytes) -> list[Message]:
    """Split received bytes into messages; a truncated tail is a ValueError."""
    messages = []
    offset = 0
    while offset < len(data):
        if len(data) - offset < _HEADER.size:
            raise ValueError("netlink message is shorter than its header")
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
        if not _HEADER.size <= length <= len(data) - offset:
            raise ValueError(f"netlink message has the impossible length {length}")
        body = data[offset + _HEADER.size : offset + length]
        messages.append(Message(kind, body, flags=flags, sequence=sequence))
        offset += (length + 3) & ~3
    return messages


def attributes(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """Decode the attributes that follow ``offset``; of equal types the last wins."""
    return dict(attribute_list(data, offset))


def attribute_list(data: bytes, offset: int = 0) -> list[tuple[int, bytes]]:
    """Decode the attributes that follow ``offset``, in order."""
    found = []
    while offset + 4 <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < 4 or offset + length > len(data):
            raise ValueError(f"netlink attribute has the impossible length {length}")
        found.append((kind & _NLA_TYPE_MASK, data[offset + 4 : offset + length]))
        offset += (length + 3) & ~3
    return found


def string(payload: bytes) -> str:
    """Decode a terminated string."""
    return payload.rstrip(b"\0").decode(errors="replace")


def refusal(message: Message, call: str) -> OSError | None:
    """Return the error that an NLMSG_ERROR message reports; None for an acknowledgement."""
    number = -int(_ERROR.unpack_from(message.body)[0])
    if number == 0:
        return None
    reason = os.strerror(number)
    if message.flags & _NLM_F_ACK_TLVS:
        # With CAP_ACK only the request's header lies between the number and the attributes.
        words = attributes(message.body, _ERROR.size + _HEADER.size).get(_NLMSGERR_ATTR_MSG)
        if words:
            reason = f"{reason} ({string(words)})"
    return OSError(number, f"{call}: {reason}")


class NetlinkSocket:
    """A netlink socket in the network namespace of the thread that makes it. For one thread."""

    def __init__(self, protocol: int) -> None:
        kind = _socket.SOCK_RAW | _socket.SOCK_CLOEXEC
        self._socket = _socket.socket(_AF_NETLINK, kind, protocol)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
        self._sequence = 0

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def __enter__(self) -> NetlinkSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def execute(self, messages: Sequence[Message], call: str) -> None:
        """Send ``messages`` in one packet and wait for every acknowledgement.

        They are not atomic: a refused one does not stop those after it. The first refusal is raised
        as `OSError` with ``call`` in its text.
        """
        self._send([m.encode(self._next(), NLM_F_ACK) for m in messages])
        error: OSError | None = None
        waiting = len(messages)
        while waiting:
            for reply in self._receive():
                if reply.kind == NLMSG_ERROR:
                    waiting -= 1
                    error = error or refusal(reply, call)
        if error:
            raise error

    def execute_batch(self, messages: Sequence[Message], call: str) -> None:
        """Send an nfnetlink batch (begin and end included) in one packet; all of it takes effect or none.

        Only the last message before the end is acknowledged, so that a long batch's replies fit the
        receive buffer; refusals always come, and all of them before sendto(2) returns.
        """
        last = len(messages) - 2
        self._send(
            [m.encode(self._next(), NLM_F_ACK if i == last else 0) for i, m in enumerate(messages)]
        )
        error: OSError | None = None
        while True:
            try:
                replies = self._receive(_socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            for reply in replies:
                if reply.kind == NLMSG_ERROR:
                    error = error or refusal(reply, call)
        if error:
            raise error

    def query(self, message: Message, call: str) -> Message:
        """Send a request that has one answer, and return it."""
        self._send([message.encode(self._next())])
        reply = self._receive()[0]
        if reply.kind == NLMSG_ERROR and (error := refusal(reply, call)):
            raise error
        return reply

    def dump(self, message: Message, call: str) -> list[Message]:
        """Send a request for a table, and return its entries.

        While others change the table entries may be missing: then it is asked for again, a few times.
        """
        entries: list[Message] = []
        for _ in range(_DUMPS):
            entries, is_whole = self._dump(message, call)
            if is_whole:
                break
        return entries

    def _dump(self, message: Message, call: str) -> tuple[list[Message], bool]:
        """Return a table's entries, and whether nobody changed it meanwhile."""
        self._send([message.encode(self._next(), NLM_F_DUMP)])
        entries: list[Message] = []
        is_whole = True
        while True:
            for reply in self._receive():
                is_whole = is_whole and not reply.flags & _NLM_F_DUMP_INTR
                if reply.kind == NLMSG_DONE:
                    return entries, is_whole
                if reply.kind == NLMSG_ERROR and (error := refusal(reply, call)):
                    raise error
                entries.append(reply)

    def _receive(self, flags: int = 0) -> list[Message]:
        """Return the messages of the kernel's next packet.

        A container that may (NET_ADMIN) can send some to a socket in its network namespace, too.
        """
        while True:
            data, (sender, _) = self._socket.recvfrom(_RECEIVE_BYTES, flags)
            if sender == _KERNEL:
                return decode(data)

    def _next(self) -> int:
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        return self._sequence

    def _send(self, packets: Iterable[bytes]) -> None:
        data = b"".join(packets)
        if len(data) > 150_000:
            # A netlink packet must fit the send buffer (208 KiB unless told otherwise).
            self._socket.setsockopt(_socket.SOL_SOCKET, _SO_SNDBUFFORCE, 2 * len(data))
        self._socket.sendto(data, (0, 0))
