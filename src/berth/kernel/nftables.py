"""nf_tables over netlink: the codec of tables, chains, rules, sets and elements.

All but two readings is pure. A ruleset is a list of messages; :func:`batch` frames it, and
:meth:`NetlinkSocket.execute_batch` makes all of it take effect at once, or nothing.
Numbers in attributes are big-endian. Source: linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import sys

from berth.kernel.netlink import (
    NLM_F_APPEND,
    NLM_F_CREATE,
    Message,
    NetlinkSocket,
    attribute,
    attribute_list,
    attributes,
    be16,
    be32,
    nested,
    string,
    text,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_SUBSYSTEM = 10
_BATCH_BEGIN = 0x10
_BATCH_END = 0x11
_NEWTABLE, _GETTABLE, _DELTABLE = 0, 1, 2
_NEWCHAIN, _DELCHAIN = 3, 5
_NEWRULE, _GETRULE, _DELRULE = 6, 7, 8
_NEWSET, _DELSET = 9, 11
_NEWSETELEM, _GETSETELEM, _DELSETELEM = 12, 13, 14
_NEWGEN, _GETGEN = 15, 16

# Kinds of events that changes of elements cause, which are the most; and those that tell of a loss.
ORDINARY_EVENTS = tuple(_SUBSYSTEM << 8 | kind for kind in (_NEWSETELEM, _DELSETELEM, _NEWGEN))
_LOSSES = tuple(_SUBSYSTEM << 8 | kind for kind in (_DELTABLE, _DELCHAIN, _DELRULE, _DELSET))

# Families of packets; a table is for one of them.
IPV4, BRIDGE, IPV6 = 2, 7, 10

# Hooks and the priorities that nft(8) names.
PREROUTING, INPUT, FORWARD, OUTPUT, POSTROUTING = range(5)
RAW, DSTNAT, FILTER, SRCNAT = -300, -100, 0, 100
AFTER_ALL = 0x7FFFFFF0  # but before connections are confirmed, which is at the last numbers

ACCEPT, DROP = 1, 0
_JUMP = -3

# nft(8)'s numbers of data types, so that it prints elements as people expect.
IPV4_ADDR, IPV6_ADDR, ETHER_ADDR, INET_PROTO, INET_SERVICE, IFINDEX, IFNAME = (
    7,
    8,
    9,
    12,
    13,
    20,
    41,
)
_TYPE_BITS = 6
IFNAME_BYTES = 16
_TYPE_BYTES = {
    IPV4_ADDR: 4,
    IPV6_ADDR: 16,
    ETHER_ADDR: 8,
    INET_PROTO: 4,
    INET_SERVICE: 4,
    IFINDEX: 4,
    IFNAME: IFNAME_BYTES,
}

# A note for nft(8), which else prints interface names backwards: type 0 (byte order), 4 bytes, host.
_HOST_ENDIAN_KEY = b"\0\4" + (1).to_bytes(4, sys.byteorder)

SET_INTERVAL = 0x4
_SET_MAP = 0x8
_ELEMENT_INTERVAL_END = 0x1

# Registers: REG_1 is the first sixteen bytes, REG32 the same storage in words of four.
REG_1 = 1
REG32 = tuple(range(8, 24))

META_PROTOCOL, META_IIF, META_OIF, META_IIFNAME, META_OIFNAME, META_L4PROTO = 1, 4, 5, 6, 7, 16
CT_STATE, CT_STATUS = 0, 2
CT_STATE_ESTABLISHED, CT_STATE_RELATED = 0x2, 0x4
CT_STATUS_DNAT = 0x20
CT_STATUS_NAT = 0x30  # either way
CMP_EQ, CMP_NEQ = 0, 1
LINK_HEADER, NETWORK_HEADER, TRANSPORT_HEADER = 0, 1, 2
_FIB_RESULT_ADDRTYPE = 3
_FIB_F_DADDR = 0x2
_RTN_LOCAL = 2
_NAT_SNAT, _NAT_DNAT = 0, 1
_LOOKUP_F_INV = 0x1
_FRAGMENTS_AT, _CHECKSUM_AT = 6, 10  # in the header of IPv4
_CHECKSUM_INTERNET = 1


class Table:
    """A table's name, and the family of packets it is for."""

    __slots__ = ("family", "name")

    def __init__(self, name: str, family: int = IPV4) -> None:
        self.name = name
        self.family = family


def _message(kind: int, family: int, *attributes: bytes, flags: int = 0) -> Message:
    body = bytes((family, 0, 0, 0)) + b"".join(attributes)
    return Message(_SUBSYSTEM << 8 | kind, body, flags=flags)


def batch(messages: Iterable[Message], *, generation: int = 0) -> list[Message]:
    """Frame messages as one transaction; refused with ERESTART if the ruleset's generation is another.

    Every transaction that changes something makes a new generation, the next number. 0 is any.
    """
    mark = b"\0\0" + be16(_SUBSYSTEM)
    first = mark + attribute(1, be32(generation)) if generation else mark
    return [Message(_BATCH_BEGIN, first), *messages, Message(_BATCH_END, mark)]


def generation(sock: NetlinkSocket) -> int:
    """Return the ruleset's generation."""
    answer = sock.query(_message(_GETGEN, 0), "look at the nftables generation")
    return int.from_bytes(attributes(answer.body, 4)[1], "big")


def is_loss(event: Message, table: str) -> bool:
    """Say whether an event tells that something of a table of this name was deleted, or all of it."""
    return event.kind in _LOSSES and string(attributes(event.body, 4)[1]) == table


def count_rules(sock: NetlinkSocket, table: Table) -> int:
    """Return how many rules a table has; 0 when there is no such table."""
    message = _message(_GETRULE, table.family, text(1, table.name))
    found = sock.dump(message, f"list rules of nftables table {table.name}")
    return sum(string(attributes(entry.body, 4)[1]) == table.name for entry in found)


def table_names(sock: NetlinkSocket, family: int) -> list[str]:
    """Return the names of all tables of a family."""
    found = sock.dump(_message(_GETTABLE, family), "list nftables tables")
    return [string(attributes(entry.body, 4)[1]) for entry in found]


def keys(sock: NetlinkSocket, table: Table, name: str) -> list[bytes]:
    """Return the keys of a set's elements."""
    message = _message(_GETSETELEM, table.family, text(1, table.name), text(2, name))
    found = sock.dump(message, f"list elements of {name} in nftables table {table.name}")
    listed = [attributes(entry.body, 4).get(3, b"") for entry in found]
    elements = [attributes(each) for part in listed for _, each in attribute_list(part)]
    return [attributes(element[1])[1] for element in elements]


def add_table(table: Table) -> Message:
    """Add a table; nothing changes when it exists."""
    flags = attribute(2, be32(0))
    return _message(_NEWTABLE, table.family, text(1, table.name), flags, flags=NLM_F_CREATE)


def delete_table(table: Table) -> Message:
    """Delete a table with everything in it."""
    return _message(_DELTABLE, table.family, text(1, table.name))


def chain(table: Table, name: str) -> Message:
    """Add a chain to jump to."""
    parts = (text(1, table.name), text(3, name))
    return _message(_NEWCHAIN, table.family, *parts, flags=NLM_F_CREATE)


def base_chain(table: Table, name: str, *, kind: str, hook: int, priority: int) -> Message:
    """Add a chain of ``kind`` (filter, nat) that the kernel calls; its policy is accept."""
    return _message(
        _NEWCHAIN,
        table.family,
        text(1, table.name),
        text(3, name),
        nested(4, attribute(1, be32(hook)), attribute(2, be32(priority & 0xFFFFFFFF))),
        attribute(5, be32(ACCEPT)),
        text(7, kind),
        flags=NLM_F_CREATE,
    )


def rule(table: Table, chain: str, *expressions: bytes) -> Message:
    """Append a rule."""
    return _message(
        _NEWRULE,
        table.family,
        text(1, table.name),
        text(2, chain),
        nested(4, *expressions),
        flags=NLM_F_CREATE | NLM_F_APPEND,
    )


def _concatenation(types: Sequence[int]) -> tuple[int, int]:
    number = 0
    for kind in types:
        number = number << _TYPE_BITS | kind
    return number, sum(_TYPE_BYTES[kind] for kind in types)


def named_set(
    table: Table,
    name: str,
    key: Sequence[int],
    *,
    number: int,
    data: Sequence[int] = (),
    flags: int = 0,
) -> Message:
    """Add a set of keys, or with ``data`` a map. ``number`` is unique in the batch."""
    key_type, key_bytes = _concatenation(key)
    parts = [
        text(1, table.name),
        text(2, name),
        attribute(3, be32(flags | (_SET_MAP if data else 0))),
        attribute(4, be32(key_type)),
        attribute(5, be32(key_bytes)),
        attribute(10, be32(number)),
    ]
    if key == (IFNAME,):
        parts.append(attribute(13, _HOST_ENDIAN_KEY))
    if data:
        data_type, data_bytes = _concatenation(data)
        parts += [attribute(6, be32(data_type)), attribute(7, be32(data_bytes))]
    return _message(_NEWSET, table.family, *parts, flags=NLM_F_CREATE)


def element(key: bytes, data: bytes | None = None) -> bytes:
    """One element: its key, and what a map gives for it. Parts are padded to four bytes each."""
    return nested(
        1, nested(1, attribute(1, key)), *([nested(2, attribute(1, data))] if data else [])
    )


def interval(first: bytes, after: bytes, data: bytes | None = None) -> tuple[bytes, bytes]:
    """Two elements of an interval set or map: from ``first`` up to, not including, ``after``."""
    end = nested(1, nested(1, attribute(1, after)), attribute(3, be32(_ELEMENT_INTERVAL_END)))
    return element(first, data), end


def add_elements(table: Table, name: str, elements: Sequence[bytes]) -> Message:
    """Put elements into a set or map; one that is there with the same data changes nothing."""
    parts = (text(1, table.name), text(2, name), nested(3, *elements))
    return _message(_NEWSETELEM, table.family, *parts, flags=NLM_F_CREATE)


def delete_elements(table: Table, name: str, elements: Sequence[bytes]) -> Message:
    """Take elements out of a set or map; ENOENT when one is not there."""
    parts = (text(1, table.name), text(2, name), nested(3, *elements))
    return _message(_DELSETELEM, table.family, *parts)


def _expression(name: str, *attributes: bytes) -> bytes:
    return nested(1, text(1, name), nested(2, *attributes))


def meta(key: int, register: int = REG_1) -> bytes:
    """Load a property of the packet."""
    return _expression("meta", attribute(1, be32(register)), attribute(2, be32(key)))


def payload(base: int, offset: int, length: int, register: int = REG_1) -> bytes:
    """Load bytes of one of the packet's headers."""
    numbers = (register, base, offset, length)
    return _expression("payload", *(attribute(i, be32(n)) for i, n in enumerate(numbers, 1)))


def source_address(register: int = REG_1, *, family: int = IPV4) -> bytes:
    """Load the sender's address."""
    return payload(NETWORK_HEADER, *((12, 4) if family == IPV4 else (8, 16)), register)


def destination_address(register: int = REG_1, *, family: int = IPV4) -> bytes:
    """Load the receiver's address."""
    return payload(NETWORK_HEADER, *((16, 4) if family == IPV4 else (24, 16)), register)


def destination_port(register: int = REG_1) -> bytes:
    """Load the receiver's port (tcp, udp, sctp have it at the same place)."""
    return payload(TRANSPORT_HEADER, 2, 2, register)


def compare(operator: int, data: bytes, register: int = REG_1) -> bytes:
    """Go on with the next rule unless the register compares so."""
    return _expression(
        "cmp",
        attribute(1, be32(register)),
        attribute(2, be32(operator)),
        nested(3, attribute(1, data)),
    )


def mask(data: bytes, register: int = REG_1) -> bytes:
    """Keep only these bits of the register."""
    return _expression(
        "bitwise",
        attribute(1, be32(register)),
        attribute(2, be32(register)),
        attribute(3, be32(len(data))),
        nested(4, attribute(1, data)),
        nested(5, attribute(1, bytes(len(data)))),
    )


def lookup(
    name: str, register: int = REG_1, *, into: int | None = None, is_in: bool = True
) -> bytes:
    """Go on with the next rule unless the set has the register; a map's data goes ``into`` another.

    With ``is_in`` false, unless the set does not have it.
    """
    parts = [text(1, name), attribute(2, be32(register))]
    if into is not None:
        parts.append(attribute(3, be32(into)))
    if not is_in:
        parts.append(attribute(5, be32(_LOOKUP_F_INV)))
    return _expression("lookup", *parts)


def ct(key: int, bits: int, *, is_any: bool = True) -> bytes:
    """Go on with the next rule unless the connection has one of these bits; or none, without ``is_any``."""
    load = _expression("ct", attribute(1, be32(REG_1)), attribute(2, be32(key)))
    # The kernel keeps state and status in the machine's byte order.
    value = bits.to_bytes(4, sys.byteorder)
    return load + mask(value) + compare(CMP_NEQ if is_any else CMP_EQ, bytes(4))


def destination_is_local() -> bytes:
    """Go on with the next rule unless the packet is for an address of this host."""
    fib = _expression(
        "fib",
        attribute(1, be32(REG_1)),
        attribute(2, be32(_FIB_RESULT_ADDRTYPE)),
        attribute(3, be32(_FIB_F_DADDR)),
    )
    return fib + compare(CMP_EQ, _RTN_LOCAL.to_bytes(4, sys.byteorder))


def load(data: bytes, register: int) -> bytes:
    """Put a constant into a register."""
    value = nested(2, attribute(1, data))
    return _expression("immediate", attribute(1, be32(register)), value)


def snat(address: int, *, family: int = IPV4) -> bytes:
    """Let the connection leave with the address in this register."""
    return _expression(
        "nat",
        attribute(1, be32(_NAT_SNAT)),
        attribute(2, be32(family)),
        attribute(3, be32(address)),
    )


def dnat(address: int, port: int | None = None, *, family: int = IPV4) -> bytes:
    """Send the connection to the address in this register, and the port in that one or its own."""
    return _expression(
        "nat",
        attribute(1, be32(_NAT_DNAT)),
        attribute(2, be32(family)),
        attribute(3, be32(address)),
        *([attribute(5, be32(port))] if port is not None else []),
    )


def duplicate(address: bytes, index: int) -> bytes:
    """Send a copy of the packet out of the interface ``index``, as if to a gateway there."""
    return (
        load(address, REG32[0])
        + load(index.to_bytes(4, sys.byteorder), REG32[8])
        + _expression("dup", attribute(1, be32(REG32[0])), attribute(2, be32(REG32[8])))
    )


def allow_fragments() -> bytes:
    """Clear the flags and the offset of an IPv4 packet that is whole."""
    numbers = (NETWORK_HEADER, _FRAGMENTS_AT, 2)
    return load(bytes(2), REG_1) + _expression(
        "payload",
        *(attribute(i, be32(n)) for i, n in enumerate(numbers, 2)),
        attribute(5, be32(REG_1)),
        attribute(6, be32(_CHECKSUM_INTERNET)),
        attribute(7, be32(_CHECKSUM_AT)),
    )


def masquerade() -> bytes:
    """Let the connection leave with the address of the outgoing interface."""
    return _expression("masq")


def verdict(code: int) -> bytes:
    """End with :data:`ACCEPT` or :data:`DROP`."""
    return _verdict(attribute(1, be32(code & 0xFFFFFFFF)))


def jump(chain: str) -> bytes:
    """Continue in another chain, and come back."""
    return _verdict(attribute(1, be32(_JUMP & 0xFFFFFFFF)), text(2, chain))


def _verdict(*parts: bytes) -> bytes:
    data = nested(2, nested(2, *parts))
    return _expression("immediate", attribute(1, be32(0)), data)
