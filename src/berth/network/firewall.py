"""The engine's one nftables table: NAT, published ports, isolation. Pure: returns messages.

Networks and ports are elements of sets and maps, so the rules never change while the engine runs:

    bridges   interfaces of our networks          internal  those that reach nothing outside
    pairs     (in, out) that may talk             subnets   those whose senders are masqueraded
    ports     (host address, protocol, port) → (container address, port)
    any_ports (protocol, port) → the same, for every local address
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING

from berth.kernel import nftables as nft
from berth.network.ports import ANY
from berth.network.records import PROTOCOLS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from berth.kernel.netlink import Message
    from berth.network.records import EndpointRecord, NetworkRecord

BRIDGES, INTERNAL, PAIRS, SUBNETS = "bridges", "internal", "pairs", "subnets"
PORTS, ANY_PORTS = "ports", "any_ports"

_LOOPBACK = nft.mask(b"\xff\0\0\0") + nft.compare(nft.CMP_EQ, b"\x7f\0\0\0")
_INPUT_IS_OURS = nft.meta(nft.META_IIFNAME) + nft.lookup(BRIDGES)
_OUTPUT_IS_OURS = nft.meta(nft.META_OIFNAME) + nft.lookup(BRIDGES)
_ACCEPT, _DROP = nft.verdict(nft.ACCEPT), nft.verdict(nft.DROP)
_WORD_0, _WORD_1, _WORD_2, _WORD_4 = nft.REG32[0], nft.REG32[1], nft.REG32[2], nft.REG32[4]


def ruleset(
    table: str, networks: Iterable[NetworkRecord], endpoints: Iterable[EndpointRecord]
) -> list[Message]:
    """Return what replaces the whole table, whatever was in it."""
    messages = [*_emptied(table), *_sets(table), *_chains(table), *_rules(table)]
    for network in networks:
        messages += add_network(table, network)
    messages += _ports(nft.add_elements, table, endpoints)
    return messages


def removal(table: str) -> list[Message]:
    """Return what deletes the table, there or not."""
    return [nft.table(table), nft.delete_table(table)]


def publish(table: str, endpoint: EndpointRecord) -> list[Message]:
    """Return what opens the endpoint's ports."""
    return _ports(nft.add_elements, table, [endpoint])


def unpublish(table: str, endpoint: EndpointRecord) -> list[Message]:
    """Return what closes the endpoint's ports."""
    return _ports(nft.delete_elements, table, [endpoint])


def _emptied(table: str) -> list[Message]:
    return [nft.table(table), nft.delete_table(table), nft.table(table)]


def _sets(table: str) -> list[Message]:
    name, target = (nft.IFNAME,), (nft.IPV4_ADDR, nft.INET_SERVICE)
    port = (nft.INET_PROTO, nft.INET_SERVICE)
    return [
        nft.named_set(table, BRIDGES, name, number=1),
        nft.named_set(table, INTERNAL, name, number=2),
        nft.named_set(table, PAIRS, name + name, number=3),
        nft.named_set(table, SUBNETS, (nft.IPV4_ADDR,), number=4, flags=nft.SET_INTERVAL),
        nft.named_set(table, PORTS, (nft.IPV4_ADDR, *port), number=5, data=target),
        nft.named_set(table, ANY_PORTS, port, number=6, data=target),
    ]


def _chains(table: str) -> list[Message]:
    def base(name: str, kind: str, hook: int, priority: int) -> Message:
        return nft.base_chain(table, name, kind=kind, hook=hook, priority=priority)

    return [
        nft.chain(table, "publish"),
        base("guard", "filter", nft.PREROUTING, nft.RAW),
        base("prerouting", "nat", nft.PREROUTING, nft.DSTNAT),
        base("output", "nat", nft.OUTPUT, nft.DSTNAT),
        base("forward", "filter", nft.FORWARD, nft.FILTER),
        base("postrouting", "nat", nft.POSTROUTING, nft.SRCNAT),
    ]


def _rules(table: str) -> list[Message]:
    to_container = nft.dnat(_WORD_4, nft.REG32[5])
    established = nft.ct(nft.CT_STATE, nft.CT_STATE_ESTABLISHED | nft.CT_STATE_RELATED)
    was_published = nft.ct(nft.CT_STATUS, nft.CT_STATUS_DNAT)
    from_ours = nft.source_address() + nft.lookup(SUBNETS)
    port = nft.meta(nft.META_L4PROTO, _WORD_1) + nft.destination_port(_WORD_2)
    any_port = nft.meta(nft.META_L4PROTO, _WORD_0) + nft.destination_port(_WORD_1)
    pair = nft.meta(nft.META_IIFNAME, _WORD_0) + nft.meta(nft.META_OIFNAME, _WORD_4)
    input_is_internal = nft.meta(nft.META_IIFNAME) + nft.lookup(INTERNAL)
    output_is_internal = nft.meta(nft.META_OIFNAME) + nft.lookup(INTERNAL)
    publish = nft.destination_is_local() + nft.jump("publish")
    rules = {
        # route_localnet is on for our bridges: what only the host itself may reach stays its own.
        "guard": [_INPUT_IS_OURS + nft.destination_address() + _LOOPBACK + _DROP],
        "prerouting": [publish],
        "output": [publish],
        "publish": [
            nft.destination_address(_WORD_0) + port + _look(PORTS) + to_container,
            any_port + _look(ANY_PORTS) + to_container,
        ],
        "forward": [
            _OUTPUT_IS_OURS + established + _ACCEPT,
            pair + nft.lookup(PAIRS, _WORD_0) + _ACCEPT,
            input_is_internal + _DROP,
            output_is_internal + _DROP,
            _OUTPUT_IS_OURS + was_published + _ACCEPT,
            _OUTPUT_IS_OURS + _DROP,
        ],
        "postrouting": [
            # The host's own 127.0.0.1 is no address a container could answer to.
            _OUTPUT_IS_OURS + nft.source_address() + _LOOPBACK + nft.masquerade(),
            # Container to published port: the answer must come back this way, not over the bridge.
            _OUTPUT_IS_OURS + from_ours + was_published + nft.masquerade(),
            _OUTPUT_IS_OURS + _ACCEPT,
            from_ours + nft.masquerade(),
        ],
    }
    return [nft.rule(table, chain, rule) for chain, found in rules.items() for rule in found]


def _look(name: str) -> bytes:
    return nft.lookup(name, _WORD_0, into=_WORD_4)


def add_network(table: str, network: NetworkRecord) -> list[Message]:
    """Return what lets a network take part."""
    return [
        nft.add_elements(table, name, elements)
        for name, elements in _network_elements(network).items()
    ]


def remove_network(table: str, network: NetworkRecord) -> list[Message]:
    """Return what takes a network out."""
    return [
        nft.delete_elements(table, name, elements)
        for name, elements in _network_elements(network).items()
    ]


def _network_elements(network: NetworkRecord) -> dict[str, list[bytes]]:
    name = network.bridge.encode().ljust(nft.IFNAME_BYTES, b"\0")
    found = {BRIDGES: [nft.element(name)]}
    if network.icc:
        found[PAIRS] = [nft.element(name + name)]
    if network.internal:
        found[INTERNAL] = [nft.element(name)]
    elif network.masquerade:
        subnet = IPv4Network(network.subnet)
        after = IPv4Address(int(subnet.broadcast_address) + 1)
        found[SUBNETS] = [*nft.interval(subnet.network_address.packed, after.packed)]
    return found


def _ports(
    message: Callable[[str, str, list[bytes]], Message],
    table: str,
    endpoints: Iterable[EndpointRecord],
) -> list[Message]:
    found: dict[str, list[bytes]] = {PORTS: [], ANY_PORTS: []}
    for endpoint in endpoints:
        address = IPv4Address(endpoint.address).packed if endpoint.ports else b""
        for port in endpoint.ports:
            key = bytes((PROTOCOLS[port.protocol], 0, 0, 0)) + _port(port.host_port)
            data = address + _port(port.container_port)
            if port.host_ip == ANY:
                found[ANY_PORTS].append(nft.element(key, data))
            else:
                found[PORTS].append(nft.element(IPv4Address(port.host_ip).packed + key, data))
    return [message(table, name, elements) for name, elements in found.items() if elements]


def _port(number: int) -> bytes:
    return number.to_bytes(2, "big") + b"\0\0"


def name_redirection(address: str, *, udp: int, tcp: int) -> list[Message]:
    """Return what, inside a container, leads port 53 of ``address`` to the resolver's ports."""
    table, packed = "berth-names", IPv4Address(address).packed
    rules = [
        nft.destination_address()
        + nft.compare(nft.CMP_EQ, packed)
        + nft.meta(nft.META_L4PROTO)
        + nft.compare(nft.CMP_EQ, bytes((PROTOCOLS[protocol],)))
        + nft.destination_port()
        + nft.compare(nft.CMP_EQ, (53).to_bytes(2, "big"))
        + nft.load(packed, _WORD_0)
        + nft.load(port.to_bytes(2, "big"), _WORD_1)
        + nft.dnat(_WORD_0, _WORD_1)
        for protocol, port in (("udp", udp), ("tcp", tcp))
    ]
    chain = nft.base_chain(table, "output", kind="nat", hook=nft.OUTPUT, priority=nft.DSTNAT)
    return [*_emptied(table), chain, *(nft.rule(table, "output", rule) for rule in rules)]
