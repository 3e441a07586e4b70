"""Networks, endpoints and ports as values: what is asked for, what is stored, what is handed out."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}


class PortRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A published port, resolved: traffic to ``host_ip:host_port`` reaches ``container_port``."""

    protocol: str
    container_port: int
    host_ip: str
    host_port: int


class EndpointRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A container's place in a network."""

    id: str
    container_id: str
    container_name: str
    network_id: str
    network_name: str
    hostname: str = ""
    interface: str = ""  # the host's end of the veth pair
    address: str = ""
    prefix_length: int = 0
    gateway: str = ""
    mac: str = ""
    ports: tuple[PortRecord, ...] = ()


class NetworkRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A network. ``bridge`` is the interface's name, empty for the drivers host and null."""

    id: str
    name: str
    driver: str
    created_at_ns: int
    bridge: str = ""
    subnet: str = ""
    gateway: str = ""
    ip_range: str = ""
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
    """A container to be connected. ``network`` is a name or id; ``address`` and ``mac`` may be given."""

    container_id: str
    container_name: str
    network: str = "bridge"
    hostname: str = ""
    address: str = ""
    mac: str = ""
    ports: tuple[PortRequest, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """A container's network namespace with its endpoints.

    The descriptors stay the service's: they are valid until ``disconnect`` or ``close``, and who needs
    them longer duplicates them. ``netns_fd`` is None in host mode. ``keep_fds`` reserve the published
    ports on the host; the monitor holds them too, so that they outlive berthd.
    """

    netns_fd: int | None
    endpoints: tuple[EndpointRecord, ...]
    keep_fds: tuple[int, ...] = ()

    @property
    def ports(self) -> tuple[PortRecord, ...]:
        """Every published port."""
        return tuple(port for endpoint in self.endpoints for port in endpoint.ports)
