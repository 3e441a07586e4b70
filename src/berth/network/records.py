"""Networks, endpoints and ports as values: what is asked for, what is stored, what is handed out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}


class PortRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A published port, resolved: traffic to ``host_ip:host_port`` reaches ``container_port``."""

    protocol: str
    container_port: int
    host_ip: str
    host_port: int


class EndpointRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A container's place in a network. ``ports`` are with the one that leads to the world."""

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
    gateway_priority: int = 0
    mac: str = ""
    aliases: tuple[str, ...] = ()
    links: tuple[str, ...] = ()  # "container:alias", for this container alone
    ports: tuple[PortRecord, ...] = ()


class NetworkRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A network. ``bridge`` is the interface's name, empty for the drivers host and null."""

    id: str
    name: str
    driver: str
    created_at_ns: int
    bridge: str = ""
    subnet: str = ""
    own_subnet: bool = False  # somebody chose it, so containers may choose addresses
    gateway: str = ""
    ip_range: str = ""
    auxiliary: dict[str, str] = {}  # addresses of others, never given to containers
    mtu: int = 1500
    internal: bool = False
    icc: bool = True  # containers of the network reach each other
    masquerade: bool = True
    builtin: bool = False
    attachable: bool = False
    options: dict[str, str] = {}
    labels: dict[str, str] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkRequest:
    """A network to be made. An empty subnet is chosen, an empty gateway is its first address."""

    name: str
    driver: str = "bridge"
    subnet: str = ""
    gateway: str = ""
    ip_range: str = ""
    auxiliary: dict[str, str] = field(default_factory=dict)
    internal: bool = False
    attachable: bool = False
    options: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PortRequest:
    """A port to be published. Host port 0 is any free one; an empty host address is all of them."""

    container_port: int
    protocol: str = "tcp"
    host_ip: str = ""
    host_port: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointRequest:
    """A place in a network to be taken. ``network`` is a name or id; ``address`` and ``mac`` may be given."""

    network: str = "bridge"
    address: str = ""
    mac: str = ""
    aliases: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    gateway_priority: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxRequest:
    """A container to be connected. ``servers`` are resolvers it asks itself, in place of the host's."""

    container_id: str
    container_name: str
    hostname: str = ""
    endpoints: tuple[EndpointRequest, ...] = (EndpointRequest(),)
    ports: tuple[PortRequest, ...] = ()
    servers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """A container's network namespace with its endpoints.

    The descriptors stay the service's: they are valid until ``disconnect`` or ``close``, and who needs
    them longer duplicates them. ``netns_fd`` is None for host and none. ``keep_fds`` reserve the published
    ports on the host; the monitor holds them too, so that they outlive berthd. ``resolves``: names are
    answered at 127.0.0.11.
    """

    netns_fd: int | None
    endpoints: tuple[EndpointRecord, ...]
    keep_fds: tuple[int, ...] = ()
    resolves: bool = False

    @property
    def ports(self) -> tuple[PortRecord, ...]:
        """Every published port."""
        return tuple(port for endpoint in self.endpoints for port in endpoint.ports)


def leading_out(endpoints: Iterable[EndpointRecord]) -> EndpointRecord | None:
    """Return the endpoint that leads to the world: of the highest priority, then the first by name."""
    out = [endpoint for endpoint in endpoints if endpoint.gateway]
    return min(out, key=lambda e: (-e.gateway_priority, e.network_name), default=None)
