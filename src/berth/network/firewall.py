"""The engine's nftables tables: NAT, published ports, isolation. Pure: returns messages.

One table a family of packets, all of the same name and changed in the same transactions: ``ip``, and
``ip6`` with the same chains while there is a network with IPv6.

Networks and ports are elements of sets and maps, so the rules never change while the engine runs:

    bridges   interfaces of our networks          internal  those that reach nothing outside
    pairs     (in, out) that may talk             subnets   those whose senders are masqueraded
    ports     (host address, protocol, port) → (container address, port)
    any_ports (protocol, port) → the same, for every local address
    loopback_ports (protocol, port) → the same, for ::1
    taken, any_taken  the keys of these, for rules that only ask: nft(8) shows no look whose result is unused
    routed    interfaces of networks without NAT: their published ports are open to all
    exposed   interfaces of networks that everybody may reach
    open      (container address, protocol, port) that are published in networks that are routed to
    trusted   (in, out) that reach published ports directly
    sources   the address of the host by which senders of a subnet leave
"""

from __future__ import annotations

from ipaddress import IPv4Address, ip_address, ip_network
from typing import TYPE_CHECKING

from berth.kernel import nftables as nft
from berth.kernel.rtnetlink import LOOPBACK_INDEX
from berth.network import detour, loopback6
from berth.network.ports import EVERY
from berth.network.records import PROTOCOLS, ROUTED, UNPROTECTED

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from berth.kernel.netlink import Message
    from berth.network.detour import Detour
    from berth.network.records import EndpointRecord, NetworkRecord

    _Change = Callable[[nft.Table, str, list[bytes]], Message]

BRIDGES, INTERNAL, PAIRS, SUBNETS = "bridges", "internal", "pairs", "subnets"
PORTS, ANY_PORTS, OPEN = "ports", "any_ports", "open"
LOOPBACK_PORTS, TAKEN, ANY_TAKEN = "loopback_ports", "taken", "any_taken"
ROUTED_TO, EXPOSED, TRUSTED, SOURCES = "routed", "exposed", "trusted", "sources"

_INPUT_IS_OURS = nft.meta(nft.META_IIFNAME) + nft.lookup(BRIDGES)
_OUTPUT_IS_OURS = nft.meta(nft.META_OIFNAME) + nft.lookup(BRIDGES)
_ESTABLISHED = nft.ct(nft.CT_STATE, nft.CT_STATE_ESTABLISHED | nft.CT_STATE_RELATED)
_ACCEPT, _DROP = nft.verdict(nft.ACCEPT), nft.verdict(nft.DROP)
_WORD = nft.REG32


class _Family:
    """What differs between IPv4 and IPv6: sizes, and the host's own addresses that stay its own."""

    def __init__(self, version: int) -> None:
        self.version = version
        self.icmp = 1 if version == 4 else 58
        self.number, self.address_type, self.words = (
            (nft.IPV4, nft.IPV4_ADDR, 1) if version == 4 else (nft.IPV6, nft.IPV6_ADDR, 4)
        )
        self.loopback = (
            nft.mask(b"\xff\0\0\0") + nft.compare(nft.CMP_EQ, b"\x7f\0\0\0")
            if version == 4
            else nft.compare(nft.CMP_EQ, bytes(15) + b"\1")
        )

    def table(self, name: str) -> nft.Table:
        return nft.Table(name, self.number)


FAMILIES = {version: _Family(version) for version in (4, 6)}


def tables(name: str, *, has_ipv6: bool) -> list[nft.Table]:
    """Return the tables that an engine may have on this host."""
    return [FAMILIES[version].table(name) for version in ((4, 6) if has_ipv6 else (4,))]


def versions(networks: Iterable[NetworkRecord]) -> tuple[int, ...]:
    """Return the versions of IP that need a table."""
    return (4, 6) if any(network.subnet6 for network in networks) else (4,)


def ruleset(
    tables: Iterable[nft.Table],
    networks: Collection[NetworkRecord],
    endpoints: Collection[EndpointRecord],
    way: Detour | None,
) -> list[Message]:
    """Return what replaces the tables, whatever was in them.

    By this detour new connections from outside come, once the host's firewall let them.
    """
    messages: list[Message] = []
    name = ""
    for table in tables:
        name = table.name
        messages += removal(table)
        for version in versions(networks):
            if FAMILIES[version].number == table.family:
                family = FAMILIES[version]
                messages += _whole(table, family, networks, way)
    return messages + publish(name, *endpoints)


def _whole(
    table: nft.Table, family: _Family, networks: Iterable[NetworkRecord], way: Detour | None
) -> list[Message]:
    messages = [nft.add_table(table), *_sets(table, family), *_chains(table)]
    rules = _rules(family)
    for chain, found in _publish_rules(family, way).items():
        rules[chain] = found + rules.get(chain, [])
    if family.version == 6 and way is not None:
        key, any_key = _address_and_port_key(family), _port_key(0)
        loopback6.lead(
            rules,
            way,
            taken=(key + _is_in(TAKEN), any_key + _is_in(ANY_TAKEN)),
            targets=(any_key + _look(LOOPBACK_PORTS), any_key + _look(ANY_PORTS)),
        )
    messages += [nft.rule(table, chain, rule) for chain, found in rules.items() for rule in found]
    for network in networks:
        if family.version in versions([network]):
            messages += _elements(nft.add_elements, table, _network_elements(network, family))
    return messages


def removal(table: nft.Table) -> list[Message]:
    """Return what deletes a table, there or not."""
    return [nft.add_table(table), nft.delete_table(table)]


def publish(name: str, *endpoints: EndpointRecord) -> list[Message]:
    """Return what opens the endpoints' ports."""
    return _ports(nft.add_elements, name, endpoints)


def unpublish(name: str, *endpoints: EndpointRecord) -> list[Message]:
    """Return what closes the endpoints' ports."""
    return _ports(nft.delete_elements, name, endpoints)


def _sets(table: nft.Table, family: _Family) -> list[Message]:
    name, address = (nft.IFNAME,), family.address_type
    port, target = (nft.INET_PROTO, nft.INET_SERVICE), (address, nft.INET_SERVICE)
    return [
        nft.named_set(table, BRIDGES, name, number=1),
        nft.named_set(table, INTERNAL, name, number=2),
        nft.named_set(table, PAIRS, name + name, number=3),
        nft.named_set(table, SUBNETS, (address,), number=4, flags=nft.SET_INTERVAL),
        nft.named_set(table, PORTS, (address, *port), number=5, data=target),
        nft.named_set(table, ANY_PORTS, port, number=6, data=target),
        nft.named_set(table, OPEN, (address, *port), number=7),
        nft.named_set(table, TAKEN, (address, *port), number=16),
        nft.named_set(table, ANY_TAKEN, port, number=17),
        nft.named_set(table, LOOPBACK_PORTS, port, number=18, data=target),
        nft.named_set(table, ROUTED_TO, name, number=8),
        nft.named_set(table, EXPOSED, name, number=9),
        nft.named_set(table, TRUSTED, name + name, number=10),
        nft.named_set(
            table, SOURCES, (address,), number=15, data=(address,), flags=nft.SET_INTERVAL
        ),
    ]


def _chains(table: nft.Table) -> list[Message]:
    def base(name: str, kind: str, hook: int, priority: int) -> Message:
        return nft.base_chain(table, name, kind=kind, hook=hook, priority=priority)

    return [
        nft.chain(table, "publish"),
        nft.chain(table, "inward"),
        nft.chain(table, "inward_source"),
        base("prerouting", "nat", nft.PREROUTING, nft.DSTNAT),
        base("input", "filter", nft.INPUT, nft.AFTER_ALL),
        base("output", "nat", nft.OUTPUT, nft.DSTNAT),
        base("forward", "filter", nft.FORWARD, nft.FILTER),
        base("postrouting", "nat", nft.POSTROUTING, nft.SRCNAT),
    ]


def _rules(family: _Family) -> dict[str, list[bytes]]:
    number = family.number
    source = nft.source_address(family=number)
    was_published = nft.ct(nft.CT_STATUS, nft.CT_STATUS_DNAT)
    from_ours = source + nft.lookup(SUBNETS)
    pair = nft.meta(nft.META_IIFNAME, _WORD[0]) + nft.meta(nft.META_OIFNAME, _WORD[4])
    output = nft.meta(nft.META_OIFNAME)
    is_ping = nft.meta(nft.META_L4PROTO) + nft.compare(nft.CMP_EQ, bytes((family.icmp,)))
    is_open = _address_and_port_key(family) + _is_in(OPEN)
    input_is_internal = nft.meta(nft.META_IIFNAME) + nft.lookup(INTERNAL)
    output_is_internal = nft.meta(nft.META_OIFNAME) + nft.lookup(INTERNAL)
    return {
        "forward": [
            _ESTABLISHED + _ACCEPT,
            _OUTPUT_IS_OURS + nft.jump("inward"),
            input_is_internal + _DROP,
        ],
        "inward": [
            pair + nft.lookup(PAIRS, _WORD[0]) + _ACCEPT,
            input_is_internal + _DROP,
            output_is_internal + _DROP,
            was_published + _ACCEPT,
            output + nft.lookup(EXPOSED) + _ACCEPT,
            output + nft.lookup(ROUTED_TO) + is_ping + _ACCEPT,
            output + nft.lookup(ROUTED_TO) + is_open + _ACCEPT,
            pair + nft.lookup(TRUSTED, _WORD[0]) + is_open + _ACCEPT,
            _DROP,
        ],
        "postrouting": [
            _OUTPUT_IS_OURS + nft.jump("inward_source"),
            nft.source_address(_WORD[0], family=number)
            + nft.lookup(SOURCES, _WORD[0], into=_WORD[8])
            + nft.snat(_WORD[8], family=number),
            from_ours + nft.masquerade(),
        ],
        "inward_source": [
            # The host's own loopback is no address a container could answer to.
            source + family.loopback + nft.masquerade(),
            # Container to published port: the answer must come back this way, not over the bridge.
            was_published + from_ours + nft.masquerade(),
            _ACCEPT,
        ],
    }


def _publish_rules(family: _Family, way: Detour | None) -> dict[str, list[bytes]]:
    number = family.number
    to_container = nft.dnat(_WORD[8], _WORD[8 + family.words], family=number)
    key, any_key = _address_and_port_key(family), _port_key(0)
    local, jump = nft.destination_is_local(), nft.jump("publish")
    loopback = nft.destination_address(family=number) + family.loopback
    # route_localnet is on for our bridges, and redirection would give neighbours what is published for
    # the host alone: nobody else sends to its loopback. In "prerouting", where first packets pass, what
    # would be redirected; in "input" all but answers to what the host itself sent, with another source.
    # An error (related) about what did not leave the host comes from a stranger.
    error = nft.ct(nft.CT_STATE, nft.CT_STATE_RELATED) + nft.ct(nft.CT_STATUS, nft.CT_STATUS_NAT)
    strange = loopback + detour.came_by_other_than(LOOPBACK_INDEX)
    # Whom the host's own rules lead there is welcome, if it does not come by an interface of ours, where
    # those who made the rules did not switch route_localnet on.
    unled = nft.ct(nft.CT_STATUS, nft.CT_STATUS_DNAT, is_any=False)
    rules = {
        "publish": [
            key + _look(PORTS) + to_container,
            any_key + _look(ANY_PORTS) + to_container,
        ],
        "output": [local + jump],
        "prerouting": [strange + _DROP],
        "input": [
            nft.ct(nft.CT_STATE, nft.CT_STATE_ESTABLISHED) + _ACCEPT,
            error + _ACCEPT,
            strange + unled + _DROP,
            strange + _INPUT_IS_OURS + _DROP,
        ],
    }
    if way is None:
        rules["prerouting"].append(local + jump)
        if family.version == 6:  # no answer would come back: nobody shall wait for one
            rules["output"].insert(0, loopback + _ACCEPT)
    else:
        returns = detour.came_by(way.exit)
        # Copies of IPv4 are sent with "don't fragment", which nobody asked for.
        as_sent = nft.allow_fragments() if family.version == 4 else b""
        rules["prerouting"] += [returns + as_sent + jump, _INPUT_IS_OURS + local + jump]
        take = local + detour.take(way, family.version)
        rules["input"] += [
            detour.came_by(LOOPBACK_INDEX) + _ACCEPT,  # the chain "output" has seen it
            returns + _DROP,  # nobody's port any more: no second round
            any_key + _is_in(ANY_TAKEN) + take,  # most have no address
            key + _is_in(TAKEN) + take,
        ]
    return rules


def _port_key(word: int) -> bytes:
    """Load protocol and port into this word and the next."""
    return nft.meta(nft.META_L4PROTO, _WORD[word]) + nft.destination_port(_WORD[word + 1])


def _address_and_port_key(family: _Family) -> bytes:
    """Load the receiver's address, protocol and port into the first words."""
    return nft.destination_address(_WORD[0], family=family.number) + _port_key(family.words)


def _is_in(name: str) -> bytes:
    return nft.lookup(name, _WORD[0])


def _look(name: str) -> bytes:
    return nft.lookup(name, _WORD[0], into=_WORD[8])


def add_network(name: str, network: NetworkRecord) -> list[Message]:
    """Return what lets a network take part; the tables of its versions of IP are there."""
    return _network(nft.add_elements, name, network)


def remove_network(name: str, network: NetworkRecord) -> list[Message]:
    """Return what takes a network out."""
    return _network(nft.delete_elements, name, network)


def _network(change: _Change, name: str, network: NetworkRecord) -> list[Message]:
    return [
        message
        for version in versions([network])
        for message in _elements(
            change,
            FAMILIES[version].table(name),
            _network_elements(network, FAMILIES[version]),
        )
    ]


def _elements(change: _Change, table: nft.Table, elements: dict[str, list[bytes]]) -> list[Message]:
    return [change(table, name, found) for name, found in elements.items() if found]


def _network_elements(network: NetworkRecord, family: _Family) -> dict[str, list[bytes]]:
    name = network.bridge.encode().ljust(nft.IFNAME_BYTES, b"\0")
    found = {BRIDGES: [nft.element(name)]}
    if network.icc:
        found[PAIRS] = [nft.element(name + name)]
    mode = network.mode_of(family.version)
    if network.internal:
        found[INTERNAL] = [nft.element(name)]
    elif mode == ROUTED:
        found[ROUTED_TO] = [nft.element(name)]
    else:
        found |= _leaving(network, family)
        if mode == UNPROTECTED:
            found[EXPOSED] = [nft.element(name)]
    if network.trusted:
        interfaces = [n.encode().ljust(nft.IFNAME_BYTES, b"\0") for n in network.trusted]
        found[TRUSTED] = [nft.element(interface + name) for interface in interfaces]
    return found


def _leaving(network: NetworkRecord, family: _Family) -> dict[str, list[bytes]]:
    """Return what changes the source of what leaves the host."""
    text, source = (
        (network.subnet, network.source)
        if family.version == 4
        else (network.subnet6, network.source6)
    )
    if not text or not network.masquerade:
        return {}
    subnet = ip_network(text)
    after = int(subnet.broadcast_address) + 1
    first, last = subnet.network_address.packed, after.to_bytes(4 * family.words, "big")
    found = {SUBNETS: [*nft.interval(first, last)]}
    if source:
        found[SOURCES] = [*nft.interval(first, last, ip_address(source).packed)]
    return found


def _ports(change: _Change, name: str, endpoints: Iterable[EndpointRecord]) -> list[Message]:
    names = (PORTS, ANY_PORTS, LOOPBACK_PORTS, OPEN, TAKEN, ANY_TAKEN)
    found: dict[int, dict[str, list[bytes]]] = {4: {each: [] for each in names}}
    for endpoint in endpoints:
        for port in endpoint.ports:
            host = ip_address(port.host_ip)
            maps = found.setdefault(host.version, {each: [] for each in names})
            inside = endpoint.address if host.version == 4 else endpoint.address6
            protocol, address = (
                bytes((PROTOCOLS[port.protocol], 0, 0, 0)),
                ip_address(inside).packed,
            )
            key = protocol + _port(port.host_port)
            data = address + _port(port.container_port)
            opened = nft.element(address + protocol + _port(port.container_port))
            if opened not in maps[OPEN]:
                maps[OPEN].append(opened)
            if not port.host_port:  # no port of the host: its network is routed to
                continue
            if port.host_ip in EVERY:
                maps[ANY_PORTS].append(nft.element(key, data))
                maps[ANY_TAKEN].append(nft.element(key))
            else:
                maps[TAKEN].append(nft.element(host.packed + key))
                if host == loopback6.ADDRESS:
                    maps[LOOPBACK_PORTS].append(nft.element(key, data))
                else:
                    maps[PORTS].append(nft.element(host.packed + key, data))
    return [
        message
        for version, maps in found.items()
        for message in _elements(change, FAMILIES[version].table(name), maps)
    ]


def _port(number: int) -> bytes:
    return number.to_bytes(2, "big") + b"\0\0"


def name_redirection(address: str, *, udp: int, tcp: int) -> list[Message]:
    """Return what, inside a container, leads port 53 of ``address`` to the resolver's ports."""
    table, packed = nft.Table("berth-names"), IPv4Address(address).packed
    rules = [
        nft.destination_address()
        + nft.compare(nft.CMP_EQ, packed)
        + nft.meta(nft.META_L4PROTO)
        + nft.compare(nft.CMP_EQ, bytes((PROTOCOLS[protocol],)))
        + nft.destination_port()
        + nft.compare(nft.CMP_EQ, (53).to_bytes(2, "big"))
        + nft.load(packed, _WORD[0])
        + nft.load(port.to_bytes(2, "big"), _WORD[1])
        + nft.dnat(_WORD[0], _WORD[1])
        for protocol, port in (("udp", udp), ("tcp", tcp))
    ]
    chain = nft.base_chain(table, "output", kind="nat", hook=nft.OUTPUT, priority=nft.DSTNAT)
    return [
        *removal(table),
        nft.add_table(table),
        chain,
        *(nft.rule(table, "output", rule) for rule in rules),
    ]
