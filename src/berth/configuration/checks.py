"""What settings may not say, although their types are right."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

from berth.errors import InvalidArgument

if TYPE_CHECKING:
    from berth.configuration.settings import Settings

    Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
    Network = ipaddress.IPv4Network | ipaddress.IPv6Network

LEVELS = ("debug", "info", "warning", "warn", "error", "fatal")
SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtp]?)(?:i?b)?", re.IGNORECASE)
UNITS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50}
IPC_MODES = ("", "private", "shareable")
CGROUPNS_MODES = ("", "private", "host")
STORAGE_DRIVERS = ("", "overlay2", "vfs")
SIZE_OPTION = "overlay2.size"
MTUS = range(68, 65_536)


def size_bytes(text: str) -> int:
    """Parse a size such as "10m"."""
    match = SIZE.fullmatch(text.strip())
    if match is None:
        raise InvalidArgument(f"invalid size: '{text}'")
    return int(float(match[1]) * (1 << UNITS[match[2].lower()]))


def default_size(settings: Settings) -> int:
    """Return how much a container may write that says nothing else, in bytes; 0 for no limit."""
    found = 0
    for option in settings.storage_opts:
        name, equals, value = option.partition("=")
        if not equals or not name:
            raise InvalidArgument(f"unable to parse storage-opt key/value: {option}")
        if name.lower() != SIZE_OPTION:
            raise InvalidArgument(f"{name.partition('.')[0]}: unknown option {name}")
        found = size_bytes(value)
    return found


def check(settings: Settings) -> None:
    """Raise InvalidArgument for the first thing that makes no sense."""
    if settings.log_level not in LEVELS:
        raise InvalidArgument(f"invalid logging level: {settings.log_level}")
    if not settings.live_restore:
        raise InvalidArgument("live-restore is always on: containers never end with the engine")
    if not (settings.iptables and settings.ip6tables):
        raise InvalidArgument(
            "iptables and ip6tables are always on: networks need their rules, which are in a table"
            " of nftables of their own",
            hint="a network without them: docker network create -d macvlan",
        )
    if settings.default_ipc_mode not in IPC_MODES:
        raise InvalidArgument(f'IPC mode "{settings.default_ipc_mode}" is not supported as default')
    if settings.default_cgroupns_mode not in CGROUPNS_MODES:
        raise InvalidArgument(
            f'default cgroup namespace mode "{settings.default_cgroupns_mode}" is invalid'
        )
    if size_bytes(settings.default_shm_size) <= 0:
        raise InvalidArgument("default-shm-size: must be above 0")
    if settings.storage_driver not in STORAGE_DRIVERS:
        known = " or ".join(STORAGE_DRIVERS[1:])
        raise InvalidArgument(f"storage-driver {settings.storage_driver}: use {known}")
    default_size(settings)
    if settings.mtu not in MTUS:
        raise InvalidArgument(f"invalid default MTU: {settings.mtu}")
    _check_labels(settings.labels)
    _check_bridge_name(settings)
    _check_addresses(settings)
    _check_hosts(settings)


def _check_labels(labels: tuple[str, ...]) -> None:
    known: dict[str, str] = {}
    for label in labels:
        name, equals, value = label.partition("=")
        if not equals or not name:
            raise InvalidArgument(f"bad attribute format: {label}")
        if known.setdefault(name, value) != value:
            raise InvalidArgument(f"conflict labels for {name}={value} and {name}={known[name]}")


def _check_bridge_name(settings: Settings) -> None:
    if settings.bridge == "none":
        raise InvalidArgument(
            "bridge none: there is always a default network", hint="docker run --network none"
        )
    if settings.bridge and (settings.bip or settings.bip6):
        raise InvalidArgument(
            "bridge and bip exclude each other: a bridge that is there has addresses"
        )


def _check_addresses(settings: Settings) -> None:
    for server in settings.dns:
        try:
            ipaddress.ip_address(server)
        except ValueError:
            raise InvalidArgument(f"{server} is not an ip address") from None
    _check_bridge(4, settings.bip, settings.fixed_cidr)
    _check_bridge(6, settings.bip6, settings.fixed_cidr_v6)
    if settings.ip:
        _address(settings.ip)
    _check_host_gateways(settings)
    for version, router in ((4, settings.default_gateway), (6, settings.default_gateway_v6)):
        if router and _address(router).version != version:
            raise InvalidArgument(f"default gateway {router}: an address of IPv{version} is needed")
    for pool in settings.default_address_pools:
        try:
            base = ipaddress.ip_network(pool.base)
        except ValueError as error:
            raise InvalidArgument(f"invalid base pool {pool.base!r}: {error}") from None
        if not base.prefixlen <= pool.size <= base.max_prefixlen:
            raise InvalidArgument(f"the size {pool.size} of pool {pool.base} is out of its range")


def _check_host_gateways(settings: Settings) -> None:
    versions = [_address(address).version for address in settings.host_gateway_ips]
    for version in versions:
        if versions.count(version) > 1:
            raise InvalidArgument(f"only one IPv{version} host gateway IP address can be specified")


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        raise InvalidArgument(f"invalid IP address: {text}") from None


def _check_bridge(version: int, address: str, span: str) -> None:
    """Refuse what is no address of a bridge, and a range for its containers outside of its subnet."""
    bridge = _interface(version, address) if address else None
    containers = _interface(version, span).network if span else None
    if bridge and bridge.ip == bridge.network.network_address:
        name = "bip" if version == 4 else "bip6"
        raise InvalidArgument(f"{name} {address}: an address with a prefix is needed")
    if bridge and containers and not _lies_in(containers, bridge.network):
        raise InvalidArgument(f"{span} is not part of the subnet of {address}")
    if containers and containers.prefixlen > containers.max_prefixlen - 2:
        raise InvalidArgument(f"{span}: too small for a gateway and a container")


def _lies_in(inner: Network, outer: Network) -> bool:
    return inner.network_address in outer and inner.prefixlen >= outer.prefixlen


def _interface(version: int, text: str) -> Interface:
    try:
        found = ipaddress.ip_interface(text)
    except ValueError:
        raise InvalidArgument(f"invalid CIDR address: {text}") from None
    if found.version != version:
        raise InvalidArgument(f"invalid CIDR address of IPv{version}: {text}")
    return found


def _check_hosts(settings: Settings) -> None:
    """Refuse what is no place to listen, and TCP without TLS unless `tls` or `tlsverify` says false.

    On loopback, too: every user and every container in the host's network reaches it there.
    """
    for host in settings.hosts:
        if not host.startswith(("unix:///", "tcp://", "fd://")):
            raise InvalidArgument(f"listen on {host!r}: use unix:///PATH, tcp://HOST:PORT or fd://")
        if host.startswith("tcp://") and not settings.allows_tcp:
            raise plain_tcp(host)


def plain_tcp(host: str) -> InvalidArgument:
    """Return the refusal to listen on TCP without TLS."""
    return InvalidArgument(
        f"listen on {host}: without TLS whoever can connect to it is root on this machine",
        hint="give --tlsverify, --tlscacert, --tlscert and --tlskey,"
        " or --tls=false if that is meant",
    )
