"""What clients send about networks, under Docker's JSON names (Engine API 1.56)."""

from __future__ import annotations

import msgspec

field = msgspec.field


class _Model(msgspec.Struct, rename="pascal", kw_only=True):
    """Snake case here, Docker's spelling in JSON."""


class EndpointIpam(_Model, omit_defaults=True):
    """The addresses that a container wants in a network."""

    ipv4_address: str = field(default="", name="IPv4Address")
    ipv6_address: str = field(default="", name="IPv6Address")
    link_local_ips: list[str] = field(default_factory=list, name="LinkLocalIPs")


class EndpointRequest(_Model):
    """How a container wants to be connected to one network."""

    ipam_config: EndpointIpam | None = field(default=None, name="IPAMConfig")
    links: list[str] | None = None
    mac_address: str = ""
    aliases: list[str] | None = None
    driver_opts: dict[str, str] | None = None
    gw_priority: int = 0


class NetworkingConfig(_Model):
    """The networks of a new container, by name."""

    endpoints_config: dict[str, EndpointRequest] | None = None


class IpamPool(_Model):
    """One address range of a network."""

    subnet: str = ""
    ip_range: str = field(default="", name="IPRange")
    gateway: str = ""
    auxiliary_addresses: dict[str, str] | None = None


class Ipam(_Model):
    """The addresses of a network."""

    driver: str = "default"
    config: list[IpamPool] | None = None
    options: dict[str, str] | None = None


class ConfigReference(_Model):
    """The network by whose configuration another is made."""

    network: str = ""


class NetworkCreate(_Model):
    """The body of ``POST /networks/create``."""

    name: str
    driver: str = "bridge"
    enable_ipv4: bool = field(default=True, name="EnableIPv4")
    enable_ipv6: bool = field(default=False, name="EnableIPv6")
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    scope: str = ""
    config_only: bool = False
    config_from: ConfigReference | None = None
    ipam: Ipam | None = field(default=None, name="IPAM")
    options: dict[str, str] | None = None
    labels: dict[str, str] | None = None


class NetworkConnect(_Model):
    """The body of ``POST /networks/{id}/connect``."""

    container: str = ""
    endpoint_config: EndpointRequest | None = None


class NetworkShape(_Model):
    """The body of ``POST /networks/{id}/shape``, which is berth's own."""

    container: str = ""
    driver_opts: dict[str, str] | None = None


class NetworkDisconnect(_Model):
    """The body of ``POST /networks/{id}/disconnect``."""

    container: str = ""
    force: bool = False
