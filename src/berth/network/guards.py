"""Keeps containers from using addresses that are not theirs: the engine's table of the family bridge.

Every frame that comes out of a veth pair of ours is looked at before the bridge does. Its sender's MAC,
what it says of itself in ARP and neighbour advertisements, and its sender's IP address must be those
that this interface was given. The rules never change; interfaces are elements of sets, by their indexes:

    macs      interface . MAC                   senders6  interface . MAC . IPv6 address
    senders   interface . MAC . IPv4 address    free      interfaces of networks without this protection

Nearly every frame is let through by one look, at ``senders``: it comes first. What the kernel copies for
it is what it costs, therefore indexes instead of names.
An interface that is gone harms nobody, and its index goes to no other before two thousand million more
have been made: its elements are taken out with the next change.
"""

from __future__ import annotations

import sys
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from berth.kernel import nftables as nft
from berth.network.ipam import link_local

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from berth.kernel.netlink import Message
    from berth.network.shortcuts import Shortcuts

MACS, SENDERS, SENDERS6, FREE = "macs", "senders", "senders6", "free"

_CHAIN = "check"
_ARP, _IPV4, _IPV6 = b"\x08\x06", b"\x08\0", b"\x86\xdd"
_TAGS = (b"\x81\0", b"\x88\xa8")  # of VLANs: 802.1Q, 802.1ad
_ICMPV6, _NEIGHBOUR_ADVERTISEMENT = 58, 136
_ACCEPT, _DROP = nft.verdict(nft.ACCEPT), nft.verdict(nft.DROP)
# Where the parts of a key are loaded: the interface, a MAC, an address.
_INTERFACE = nft.meta(nft.META_IIF, nft.REG32[0])
_MAC, _ADDRESS = nft.REG32[1], nft.REG32[3]
_SENDER = _INTERFACE + nft.payload(nft.LINK_HEADER, 6, 6, _MAC)


class Guard(NamedTuple):
    """What an interface may send from."""

    interface: int  # its index
    mac: bytes
    addresses: tuple[bytes, ...]  # packed
    is_free: bool = False
    bridge: int = 0  # its index, if there is a shortcut past it


class Guards:
    """The interfaces that there are. ``prefix`` of eight bytes begins the names of our veth pairs.

    :meth:`forget` may be called by any thread, everything else by the one that changes the kernel.
    """

    def __init__(self, table: nft.Table | None, *, prefix: str, shortcuts: Shortcuts) -> None:
        self._table = table
        self._shortcuts = shortcuts
        self._prefix = prefix.encode()
        self._guards: dict[str, Guard] = {}
        self._gone: deque[str] = deque()

    def add(self, interface: str, guard: Guard) -> list[Message]:
        """Return what lets an interface send, and takes out those that are gone."""
        if self._table is None:
            return []
        messages = []
        while self._gone:
            name = self._gone.popleft()
            if old := self._guards.pop(name, None):
                messages += _messages(nft.delete_elements, self._table, {name: old})
                self._shortcuts.remove(old)
        self._guards[interface] = guard
        self._shortcuts.add(guard)
        return messages + _messages(nft.add_elements, self._table, {interface: guard})

    def restore(self, interface: str, guard: Guard) -> None:
        """Know an interface that was there before; the whole table is to be set up afterwards."""
        self._guards[interface] = guard
        self._shortcuts.add(guard)

    def forget(self, interface: str) -> None:
        """Say that an interface is gone."""
        self._gone.append(interface)

    def is_forgotten(self, interface: str) -> bool:
        """Say whether an interface of ours belongs to nobody any more."""
        is_known = interface in self._guards and interface not in self._gone
        return self._table is not None and not is_known

    def ruleset(self) -> list[Message]:
        """Return what replaces the table."""
        table = self._table
        if table is None:
            return []
        chain = nft.base_chain(table, _CHAIN, kind="filter", hook=nft.PREROUTING, priority=nft.RAW)
        rules = [nft.rule(table, _CHAIN, rule) for rule in _rules(self._prefix)]
        elements = _messages(nft.add_elements, table, dict(self._guards))
        start = [nft.add_table(table), nft.delete_table(table), nft.add_table(table)]
        return [*start, *_sets(table), chain, *rules, *elements]


def _sets(table: nft.Table) -> list[Message]:
    mac = (nft.IFINDEX, nft.ETHER_ADDR)
    return [
        nft.named_set(table, MACS, mac, number=11),
        nft.named_set(table, SENDERS, (*mac, nft.IPV4_ADDR), number=12),
        nft.named_set(table, SENDERS6, (*mac, nft.IPV6_ADDR), number=13),
        nft.named_set(table, FREE, (nft.IFINDEX,), number=14),
    ]


def _rules(prefix: bytes) -> list[bytes]:
    def network(offset: int, length: int, register: int = _ADDRESS) -> bytes:
        return nft.payload(nft.NETWORK_HEADER, offset, length, register)

    def is_in(name: str) -> bytes:
        return nft.lookup(name, nft.REG32[0])

    def is_not_in(name: str) -> bytes:
        return nft.lookup(name, nft.REG32[0], is_in=False)

    def is_protocol(number: bytes) -> bytes:
        return nft.meta(nft.META_PROTOCOL) + nft.compare(nft.CMP_EQ, number)

    def is_type(number: bytes) -> bytes:  # here the kernel shows tags that it has put aside
        return nft.payload(nft.LINK_HEADER, 12, 2) + nft.compare(nft.CMP_EQ, number)

    def is_unspecified(length: int) -> bytes:
        return nft.compare(nft.CMP_EQ, bytes(length), _ADDRESS)

    advertises = (
        nft.meta(nft.META_L4PROTO)
        + nft.compare(nft.CMP_EQ, bytes((_ICMPV6,)))
        + nft.payload(nft.TRANSPORT_HEADER, 0, 1)
        + nft.compare(nft.CMP_EQ, bytes((_NEIGHBOUR_ADVERTISEMENT,)))
    )
    target = nft.payload(nft.TRANSPORT_HEADER, 8, 16, _ADDRESS)
    arp, ipv4, ipv6 = map(is_protocol, (_ARP, _IPV4, _IPV6))
    arp_sender = _INTERFACE + network(8, 6, _MAC)
    return [
        is_type(_IPV4) + _SENDER + network(12, 4) + is_in(SENDERS) + _ACCEPT,
        nft.meta(nft.META_IIFNAME) + nft.compare(nft.CMP_NEQ, prefix) + _ACCEPT,
        nft.meta(nft.META_IIF) + nft.lookup(FREE) + _ACCEPT,
        # Receivers take off the tags of VLAN 0, also one in another; what is inside nobody has looked at:
        # not this table, and not the rules for IP, which keep containers apart in networks without ICC.
        *(is_type(tag) + _DROP for tag in _TAGS),
        _SENDER + is_not_in(MACS) + _DROP,
        arp + arp_sender + is_not_in(MACS) + _DROP,
        arp + arp_sender + network(14, 4) + is_in(SENDERS) + _ACCEPT,
        arp + network(14, 4) + is_unspecified(4) + _ACCEPT,  # is an address free?
        arp + _DROP,
        ipv4 + network(12, 4) + is_unspecified(4) + _ACCEPT,  # DHCP
        ipv4 + _DROP,
        ipv6 + advertises + _SENDER + target + is_not_in(SENDERS6) + _DROP,
        ipv6 + _SENDER + network(8, 16) + is_in(SENDERS6) + _ACCEPT,
        ipv6 + network(8, 16) + is_unspecified(16) + _ACCEPT,
        ipv6 + _DROP,
    ]


def _messages(
    change: Callable[[nft.Table, str, list[bytes]], Message],
    table: nft.Table,
    guards: dict[str, Guard],
) -> list[Message]:
    found: dict[str, list[bytes]] = {MACS: [], SENDERS: [], SENDERS6: [], FREE: []}
    for guard in guards.values():
        index = guard.interface.to_bytes(4, sys.byteorder)
        for kind, packed in _kept(guard):
            found[kind].append(nft.element(index + packed))
    return [change(table, name, elements) for name, elements in found.items() if elements]


def _kept(guard: Guard) -> Iterable[tuple[str, bytes]]:
    if guard.is_free:
        yield FREE, b""
        return
    yield MACS, guard.mac + bytes(2)
    for packed in guard.addresses:
        yield (SENDERS if len(packed) == 4 else SENDERS6), guard.mac + bytes(2) + packed
    if any(len(packed) == 16 for packed in guard.addresses):
        yield SENDERS6, guard.mac + bytes(2) + link_local(guard.mac)
