"""Networks, endpoints and ports as values: what is asked for, what is stored, what is handed out."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from berth.network.ipam import Address

NAT, ROUTED, UNPROTECTED, ISOLATED = "nat", "routed", "nat-unprotected", "isolated"

ROUTER = "DefaultGatewayIPv"  # and the version

PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}


class PortRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A published port, resolved: traffic to ``host_ip:host_port`` reaches ``container_port``."""

    protocol: str
    container_port: int
    host_ip: str
    host_port: int

    @property
    def version(self) -> int:
        """The version of IP by which it is reached."""
        return 6 if ":" in self.host_ip else 4


class EndpointRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A container's place in a network.

    ``ports`` are with the one that leads to the world: those of IPv4 and of IPv6 may be in two places.
    """

    id: str
    container_id: str
    container_name: str
    network_id: str
    network_name: str
    hostname: str = ""
    interface: str = ""  # the host's end of the veth pair
    device: str = ""  # and the container's
    address: str = ""
    prefix_length: int = 0
    gateway: str = ""
    address6: str = ""
    prefix_length6: int = 0
    gateway6: str = ""
    host: str = ""  # where the host itself is found, when the gateway is another router
    host6: str = ""
    gateway_priority: int = 0
    link_local: tuple[str, ...] = ()  # addresses beside those
    mac: str = ""
    aliases: tuple[str, ...] = ()
    links: tuple[str, ...] = ()  # "container:alias", for this container alone
    ports: tuple[PortRecord, ...] = ()


class SubnetRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A subnet of a network. An empty gateway is nobody."""

    subnet: str
    gateway: str = ""
    ip_range: str = ""

    @property
    def version(self) -> int:
        """The version of IP that it is of."""
        return 6 if ":" in self.subnet else 4


class NetworkRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A network. The interface on the host that its containers are behind is ``bridge`` or ``parent``.

    Networks of the drivers host and null have neither.
    """

    id: str
    name: str
    driver: str
    created_at_ns: int
    bridge: str = ""
    subnet: str = ""  # empty: no IPv4
    gateway: str = ""
    ip_range: str = ""
    subnet6: str = ""  # empty: no IPv6
    gateway6: str = ""
    ip_range6: str = ""
    auxiliary: dict[str, str] = {}  # addresses of others, never given to containers; see `router`
    mtu: int = 1500
    internal: bool = False
    device_prefix: str = "eth"  # of the names of interfaces in containers
    is_ours: bool = True  # the interface on the host was made for the network, and goes with it
    is_borrowed: bool = False  # it is somebody else's, and what was switched on there is put back
    # of bridges
    icc: bool = True  # containers of the network reach each other
    masquerade: bool = True
    is_guarded: bool = True  # containers use no addresses but those they were given
    shortcut: bool = True  # what they and the host send each other need not go by the bridge
    inhibits_ipv4: bool = False  # the bridge has no IPv4 address
    mode: str = NAT  # how IPv4 leads out and in
    mode6: str = NAT
    binding: str = ""  # address of the host for ports without one
    source: str = ""  # address of the host that the world sees, empty for that of the way out
    source6: str = ""
    trusted: tuple[
        str, ...
    ] = ()  # interfaces of the host that published ports are open to directly
    # of macvlan and ipvlan
    parent: str = ""
    link_mode: str = ""
    link_flag: str = ""
    more: tuple[SubnetRecord, ...] = ()  # subnets beside the first one of each version of IP
    # of all
    builtin: bool = False
    attachable: bool = False
    ipam_driver: str = "default"
    ipam_options: dict[str, str] | None = None  # shown again, of no effect
    config: NetworkRequest | None = None  # others are made so; nobody gets into this one
    config_from: str = ""  # the name of such a network
    options: dict[str, str] = {}
    labels: dict[str, str] = {}

    @property
    def has_shortcuts(self) -> bool:
        """Say whether containers get shortcuts past the bridge, which are for given addresses only."""
        return bool(self.bridge) and self.is_ours and self.is_guarded and self.shortcut

    @property
    def has_members(self) -> bool:
        """Say whether containers get interfaces of their own in it."""
        return bool(self.bridge or self.parent)

    def subnets(self, version: int) -> list[SubnetRecord]:
        """Return the subnets of a version of IP, from which addresses are taken in turn."""
        subnet, gateway, ip_range = (
            (self.subnet, self.gateway, self.ip_range)
            if version == 4
            else (self.subnet6, self.gateway6, self.ip_range6)
        )
        first = SubnetRecord(subnet=subnet, gateway=gateway, ip_range=ip_range)
        return [*([first] if subnet else []), *(s for s in self.more if s.version == version)]

    def around(self, address: Address) -> SubnetRecord:
        """Return the subnet that an address of this network is in."""
        subnets = self.subnets(address.version)
        return next(found for found in subnets if address in ip_network(found.subnet))

    def router(self, address: Address) -> str:
        """Return who leads a container with this address out, empty for nobody.

        It is the bridge, unless an auxiliary address has the name that Docker gives to another router.
        """
        if self.internal:
            return ""
        told = self.auxiliary.get(f"{ROUTER}{address.version}") if self.bridge else None
        return told or self.around(address).gateway

    def mode_of(self, version: int) -> str:
        """Return how a version of IP leads out and in."""
        return self.mode if version == 4 else self.mode6


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkRequest:
    """A network to be made. An empty subnet is chosen, an empty gateway is its first address."""

    name: str
    driver: str = "bridge"
    ipv4: bool = True
    subnet: str = ""
    gateway: str = ""
    ip_range: str = ""
    ipv6: bool = False
    subnet6: str = ""
    gateway6: str = ""
    ip_range6: str = ""
    more: tuple[SubnetRecord, ...] = ()
    auxiliary: dict[str, str] = field(default_factory=dict)
    internal: bool = False
    attachable: bool = False
    ipam_driver: str = "default"
    ipam_options: dict[str, str] | None = None
    config_from: str = ""
    options: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PortRequest:
    """A port to be published. Host port 0 is any free one; an empty host address is all of them.

    With a last host port, the first free one up to that.
    """

    container_port: int
    protocol: str = "tcp"
    host_ip: str = ""
    host_port: int = 0
    last_host_port: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointRequest:
    """A place in a network to be taken. ``network`` is a name or id; addresses and ``mac`` may be given.

    ``link_local`` are addresses beside that of the network, ``earlier`` those to have again if they are free.
    """

    network: str = "bridge"
    address: str = ""
    address6: str = ""
    link_local: tuple[str, ...] = ()
    mac: str = ""
    aliases: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    gateway_priority: int = 0
    options: dict[str, str] = field(default_factory=dict)
    earlier: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxRequest:
    """A container to be connected. ``servers`` are resolvers it asks itself, in place of the host's.

    ``own_netns_fd`` is the namespace of one that has made it itself; the service closes it.
    """

    container_id: str
    container_name: str
    hostname: str = ""
    endpoints: tuple[EndpointRequest, ...] = (EndpointRequest(),)
    ports: tuple[PortRequest, ...] = ()
    servers: tuple[str, ...] = ()
    own_netns_fd: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """A container's network namespace with its endpoints.

    ``netns_fd`` stays the service's: it is valid until ``disconnect`` or ``close``, and who needs
    it longer duplicates it. It is None for host and none, and for one that the container has made.
    ``resolves``: names are answered at 127.0.0.11.
    """

    netns_fd: int | None
    endpoints: tuple[EndpointRecord, ...]
    resolves: bool = False

    @property
    def ports(self) -> tuple[PortRecord, ...]:
        """Every published port."""
        return tuple(port for endpoint in self.endpoints for port in endpoint.ports)


def leading_out(endpoints: Iterable[EndpointRecord], *, version: int = 4) -> EndpointRecord | None:
    """Return the endpoint that leads to the world by this version of IP.

    It is the one of the highest priority, then one that has both versions, then the first by name.
    """
    out = [e for e in endpoints if (e.gateway if version == 4 else e.gateway6)]
    return min(
        out,
        key=lambda e: (-e.gateway_priority, not (e.gateway and e.gateway6), e.network_name),
        default=None,
    )


def leaders(endpoints: Iterable[EndpointRecord]) -> dict[int, EndpointRecord]:
    """Return the endpoint that leads out by each version of IP, where there is one."""
    found = tuple(endpoints)
    each = {version: leading_out(found, version=version) for version in (4, 6)}
    return {version: leader for version, leader in each.items() if leader is not None}


def hosts(endpoints: Iterable[EndpointRecord]) -> list[str]:
    """Return the addresses of the host as a container reaches it; none when nothing leads out."""
    out = leaders(endpoints)
    four, six = out.get(4), out.get(6)
    return [
        *([four.host or four.gateway] if four else []),
        *([six.host6 or six.gateway6] if six else []),
    ]
