"""The bridges of networks: made, mended and removed, with what the host's parameters must be for them."""

from __future__ import annotations

import logging
import os
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import TYPE_CHECKING

from berth.errors import Conflict, Failed
from berth.kernel import rtnetlink
from berth.network.records import ISOLATED

if TYPE_CHECKING:
    from berth.kernel.netlink import NetlinkSocket
    from berth.network.ipam import Interface
    from berth.network.records import NetworkRecord

log = logging.getLogger("berth")

SYSCTL = Path("/proc/sys/net")
CROWD, BACKLOG = 500, 4096
_LINK_LOCAL = b"\xfe\x80"
# Asks for the neighbours of what is forwarded. The kernel's own choice may not for up to two seconds,
# while it looks whether somebody else has it: what comes from outside would not find a container.
_ROUTER = ip_address("fe80::1").packed


def ensure(links: NetlinkSocket, network: NetworkRecord, *, forwards: bool) -> int:
    """Make the network's bridge, or mend the one that is there; return its index.

    ``forwards``: where the network has IPv6, the host is made a router of it.
    """
    link = rtnetlink.find_link(links, network.bridge)
    if link is None:
        gateway = ip_address(network.gateway or network.gateway6)
        mac = b"\x02\x42" + gateway.packed[-4:]
        message = rtnetlink.bridge_message(network.bridge, address=mac, mtu=network.mtu)
        links.execute([message], f"create bridge {network.bridge}")
        link = rtnetlink.find_link(links, network.bridge)
    if link is None or link.kind != "bridge":
        raise Conflict(f"create bridge {network.bridge}: an interface has this name already")
    if network.subnet6 and forwards and network.mode6 != ISOLATED:
        enable_forwarding6()
    _settle(links, link, network)
    return link.index


def _settle(links: NetlinkSocket, link: rtnetlink.Link, network: NetworkRecord) -> None:
    speaks_ipv6 = bool(network.subnet6) and network.mode6 != ISOLATED
    if speaks_ipv6 or network.is_ours:
        _settle_ipv6(network, is_on=speaks_ipv6)
    wanted = {
        ip_address(gateway).packed: ip_network(subnet).prefixlen
        for gateway, subnet, is_host in (
            (network.gateway, network.subnet, not network.inhibits_ipv4),
            (network.gateway6, network.subnet6, True),
        )
        if subnet and is_host and network.mode_of(ip_network(subnet).version) != ISOLATED
    }
    if speaks_ipv6 and network.is_ours:
        wanted.setdefault(_ROUTER, 64)
    stale = [
        address
        for family in (rtnetlink.AF_INET, rtnetlink.AF_INET6)
        for address in rtnetlink.addresses(links, family=family)
        if address.index == link.index
        and network.is_ours
        and address.address not in wanted
        and not address.address.startswith(_LINK_LOCAL)
    ]
    messages = [rtnetlink.delete_address_message(address) for address in stale]
    messages += [
        rtnetlink.address_message(link.index, address, length) for address, length in wanted.items()
    ]
    messages.append(rtnetlink.up_message(link.index))
    if not network.icc and has_netfilter():
        messages.append(rtnetlink.bridge_netfilter_message(link.index))
    links.execute(messages, f"set up bridge {network.bridge}")
    # Connections from the host's 127.0.0.1 to published ports; the table keeps strangers out.
    write_sysctl(localnet(network.bridge), "1")


def localnet(name: str) -> Path:
    """Return the parameter by which packets to and from 127.0.0.0/8 may go by a bridge."""
    return SYSCTL / "ipv4/conf" / name / "route_localnet"


def _settle_ipv6(network: NetworkRecord, *, is_on: bool) -> None:
    """Let the host itself be reached by IPv6 on a bridge or not, by an address of the link either."""
    if network.subnet6 and not has_ipv6():
        raise Failed(f"create bridge {network.bridge}: the kernel has no IPv6, or it is disabled")
    parameters = SYSCTL / "ipv6/conf" / network.bridge
    write_sysctl(parameters / "disable_ipv6", "0" if is_on else "1")
    if is_on:
        write_sysctl(parameters / "accept_ra", "0")


def addresses(links: NetlinkSocket, name: str) -> list[Interface]:
    """Return the addresses of a bridge that somebody made, the first of each version of IP."""
    link = rtnetlink.find_link(links, name)
    if link is None or link.kind != "bridge":
        raise Failed(
            f"bridge device with non default name {name} must be created manually",
            hint=f"ip link add {name} type bridge",
        )
    found: dict[int, Interface] = {}
    for family in (rtnetlink.AF_INET, rtnetlink.AF_INET6):
        for each in rtnetlink.addresses(links, family=family):
            if each.index == link.index and each.scope == 0:
                address = ip_interface((each.address, each.prefix_length))
                found.setdefault(address.version, address)
    return list(found.values())


def remove(links: NetlinkSocket, name: str) -> None:
    """Delete a bridge of ours; nothing when it is gone."""
    link = rtnetlink.find_link(links, name)
    if link is not None and link.kind == "bridge":
        links.execute([rtnetlink.delete_link_message(link.index)], f"delete bridge {name}")


def has_ipv6() -> bool:
    """Say whether the kernel has IPv6, and was not told to leave it."""
    return (SYSCTL / "ipv6").exists()


def enable_forwarding6() -> None:
    """Let the host route IPv6. Only for networks that have it: a router heeds no other router."""
    if write_sysctl(SYSCTL / "ipv6/conf/all/forwarding", "1"):
        log.info("switched on net.ipv6.conf.all.forwarding, which a network with IPv6 needs")


def widen_backlog() -> None:
    """Let a processor keep as many packets as a crowded bridge floods with one.

    A question for a neighbour goes to every port; beyond the kernel's default of 1000 the rest is
    dropped, and containers of a full network would not find each other.
    """
    path = SYSCTL / "core/netdev_max_backlog"
    try:
        if int(path.read_text()) >= BACKLOG:
            return
        path.write_text(str(BACKLOG))
    except OSError:  # a host in a namespace has no such parameter
        return
    log.info("raised net.core.netdev_max_backlog to %s for a crowded network", BACKLOG)


def has_netfilter() -> bool:
    """Say whether the rules for IP can see what bridges forward. Where not, ports are isolated instead.

    With both a container could not reach a published port of another by the host's address.
    """
    return (SYSCTL / "bridge").exists()


def write_sysctl(path: Path, value: str) -> bool:
    """Set a kernel parameter; say whether it was not so. One that does not exist (no IPv6) is left."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        if os.read(fd, 64).strip() == value.encode():
            return False
        os.pwrite(fd, value.encode(), 0)
    finally:
        os.close(fd)
    return True
