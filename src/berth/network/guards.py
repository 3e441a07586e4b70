"""Keeps containers from using addresses that are not theirs: the engine's table of the family bridge.

Every frame that comes out of a veth pair of ours is looked at before the bridge does. Its sender's MAC,
what it says of itself in ARP and neighbour advertisements, and its sender's IP address must be those
that this interface was given. The rules never change; interfaces are elements of sets:

    macs        interface . MAC             addresses   interface . IPv4 address
    addresses6  interface . IPv6 address    free        interfaces of networks without this protection

An interface that is gone harms nobody: its elements are taken out with the next change.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from berth.kernel import nftables as nft
from berth.network.ipam import link_local

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from berth.kernel.netlink import Message

MACS, ADDRESSES, ADDRESSES6, FREE = "macs", "addresses", "addresses6", "free"

_CHAIN = "senders"
_ARP, _IPV4, _IPV6 = b"\x08\x06", b"\x08\0", b"\x86\xdd"
_ICMPV6, _NEIGHBOUR_ADVERTISEMENT = 58, 136
_ACCEPT, _DROP = nft.verdict(nft.ACCEPT), nft.verdict(nft.DROP)
_INTERFACE = nft.meta(nft.META_IIFNAME, nft.REG32[0])
_BESIDE = nft.REG32[4]  # where what belongs to the interface is loaded


class Guard(NamedTuple):
    """What an interface may send from."""

    mac: bytes
    addresses: tuple[bytes, ...]  # packed
    is_free: bool = False


class Guards:
    """The interfaces that there are. ``prefix`` of eight bytes begins the names of our veth pairs.

    :meth:`forget` may be called by any thread, everything else by the one that changes the kernel.
    """

    def __init__(self, table: nft.Table | None, *, prefix: str) -> None:
        self._table = table
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
        self._guards[interface] = guard
        return messages + _messages(nft.add_elements, self._table, {interface: guard})

    def restore(self, interface: str, guard: Guard) -> None:
        """Know an interface that was there before; the whole table is to be set up afterwards."""
        self._guards[interface] = guard

    def forget(self, interface: str) -> None:
        """Say that an interface is gone."""
        self._gone.append(interface)

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
    name = nft.IFNAME
    return [
        nft.named_set(table, MACS, (name, nft.ETHER_ADDR), number=11),
        nft.named_set(table, ADDRESSES, (name, nft.IPV4_ADDR), number=12),
        nft.named_set(table, ADDRESSES6, (name, nft.IPV6_ADDR), number=13),
        nft.named_set(table, FREE, (name,), number=14),
    ]


def _rules(prefix: bytes) -> list[bytes]:
    def network(offset: int, length: int) -> bytes:
        return nft.payload(nft.NETWORK_HEADER, offset, length, _BESIDE)

    def unless_in(name: str, load: bytes) -> bytes:
        return _INTERFACE + load + nft.lookup(name, nft.REG32[0], is_in=False) + _DROP

    def is_protocol(number: bytes) -> bytes:
        return nft.meta(nft.META_PROTOCOL) + nft.compare(nft.CMP_EQ, number)

    def is_unspecified(length: int) -> bytes:
        return nft.compare(nft.CMP_EQ, bytes(length), _BESIDE) + _ACCEPT

    advertises = (
        nft.meta(nft.META_L4PROTO)
        + nft.compare(nft.CMP_EQ, bytes((_ICMPV6,)))
        + nft.payload(nft.TRANSPORT_HEADER, 0, 1)
        + nft.compare(nft.CMP_EQ, bytes((_NEIGHBOUR_ADVERTISEMENT,)))
    )
    target = nft.payload(nft.TRANSPORT_HEADER, 8, 16, _BESIDE)
    arp, ipv4, ipv6 = map(is_protocol, (_ARP, _IPV4, _IPV6))
    return [
        nft.meta(nft.META_IIFNAME) + nft.compare(nft.CMP_NEQ, prefix) + _ACCEPT,
        nft.meta(nft.META_IIFNAME) + nft.lookup(FREE) + _ACCEPT,
        unless_in(MACS, nft.payload(nft.LINK_HEADER, 6, 6, _BESIDE)),
        arp + unless_in(MACS, network(8, 6)),
        arp + network(14, 4) + is_unspecified(4),  # somebody asks whether an address is free
        arp + unless_in(ADDRESSES, network(14, 4)),
        ipv4 + network(12, 4) + is_unspecified(4),  # DHCP
        ipv4 + unless_in(ADDRESSES, network(12, 4)),
        ipv6 + advertises + unless_in(ADDRESSES6, target),
        ipv6 + network(8, 16) + is_unspecified(16),
        ipv6 + unless_in(ADDRESSES6, network(8, 16)),
    ]


def _messages(
    change: Callable[[nft.Table, str, list[bytes]], Message],
    table: nft.Table,
    guards: dict[str, Guard],
) -> list[Message]:
    found: dict[str, list[bytes]] = {MACS: [], ADDRESSES: [], ADDRESSES6: [], FREE: []}
    for interface, guard in guards.items():
        name = interface.encode().ljust(nft.IFNAME_BYTES, b"\0")
        for kind, packed in _kept(guard):
            found[kind].append(nft.element(name + packed))
    return [change(table, name, elements) for name, elements in found.items() if elements]


def _kept(guard: Guard) -> Iterable[tuple[str, bytes]]:
    if guard.is_free:
        yield FREE, b""
        return
    yield MACS, guard.mac + bytes(2)
    for packed in guard.addresses:
        yield (ADDRESSES if len(packed) == 4 else ADDRESSES6), packed
    if any(len(packed) == 16 for packed in guard.addresses):
        yield ADDRESSES6, link_local(guard.mac)
