"""The kernel's records of connections, by ctnetlink: find those to a port, and delete them.

Source: linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

import errno
import sys

from berth.kernel.netlink import Message, NetlinkSocket, attribute, attributes, be16, nested

_SUBSYSTEM = 1
_GET, _DELETE = _SUBSYSTEM << 8 | 1, _SUBSYSTEM << 8 | 2
_ORIGINAL, _ZONE, _FILTER = 1, 18, 25  # attributes of a record
_IP, _PROTOCOL = 1, 2  # of a tuple
_IPV4_DESTINATION, _IPV6_DESTINATION = 2, 4
_NUMBER, _DESTINATION_PORT = 1, 3
_OF_ORIGINAL = 1  # what a filter looks at:
_BY_NUMBER_AND_PORT = 1 << 3 | 1 << 5


class Flow:
    """A record. ``destination`` is the packed address that its first packet was sent to."""

    __slots__ = ("_body", "destination")

    def __init__(self, body: bytes) -> None:
        found = attributes(body, 4)
        address = attributes(attributes(found[_ORIGINAL])[_IP])
        self.destination = address.get(_IPV4_DESTINATION) or address[_IPV6_DESTINATION]
        kept = [nested(_ORIGINAL, found[_ORIGINAL])]
        if _ZONE in found:
            kept.append(attribute(_ZONE, found[_ZONE]))
        self._body = body[:4] + b"".join(kept)

    def deletion(self) -> Message:
        """Return what deletes it."""
        return Message(_DELETE, self._body)


def flows(sock: NetlinkSocket, family: int, protocol: int, port: int) -> list[Flow]:
    """Return the records of connections whose first packet was sent to a port."""
    wanted = attribute(_NUMBER, bytes((protocol,))) + attribute(_DESTINATION_PORT, be16(port))
    message = Message(
        _GET,
        bytes((family, 0, 0, 0))
        + nested(_ORIGINAL, nested(_PROTOCOL, wanted))
        + nested(_FILTER, attribute(_OF_ORIGINAL, _BY_NUMBER_AND_PORT.to_bytes(4, sys.byteorder))),
    )
    found = sock.dump(message, "list connections")
    # A kernel older than 5.8 knows no such filter, and lists all.
    return [Flow(entry.body) for entry in found if _is_to(entry.body, protocol, port)]


def _is_to(body: bytes, protocol: int, port: int) -> bool:
    ends = attributes(attributes(attributes(body, 4)[_ORIGINAL])[_PROTOCOL])
    return ends[_NUMBER] == bytes((protocol,)) and ends.get(_DESTINATION_PORT) == be16(port)


def delete(sock: NetlinkSocket, flow: Flow) -> None:
    """Delete a record; nothing when it is gone."""
    try:
        sock.execute([flow.deletion()], "delete a connection's record")
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
