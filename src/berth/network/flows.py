"""Senders of datagrams that go on while what a port leads to comes and goes.

The kernel remembers where it led the first datagram of a sender, and leads the others there too: nowhere,
if the port was not published then, or to a container that has ended, as long as they keep coming.
"""

from __future__ import annotations

import logging
from ipaddress import ip_address
from typing import TYPE_CHECKING

from berth.kernel import conntrack, netlink, rtnetlink
from berth.kernel.netlink import NetlinkSocket
from berth.network.ports import EVERY
from berth.network.records import PROTOCOLS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from berth.network.detour import Detour
    from berth.network.records import PortRecord

log = logging.getLogger("berth")

_REMEMBERED = ("udp", "sctp")  # TCP tells the sender of the end, who begins anew
_FAMILIES = {4: rtnetlink.AF_INET, 6: rtnetlink.AF_INET6}


def forget(ports: Iterable[PortRecord], *, way: Detour | None) -> None:
    """Let the kernel decide anew about what is sent to these ports of the host, by the detour too."""
    concerned = [port for port in ports if port.protocol in _REMEMBERED and port.host_port]
    if not concerned:
        return
    try:
        with NetlinkSocket(netlink.NETLINK_NETFILTER) as sock:
            for port in concerned:
                _forget(sock, port, way)
    except OSError as error:  # the kernel may have no ctnetlink
        log.warning("senders to published ports may have to begin anew: %s", error)


def _forget(sock: NetlinkSocket, port: PortRecord, way: Detour | None) -> None:
    family = _FAMILIES[port.version]
    found = conntrack.flows(sock, family, PROTOCOLS[port.protocol], port.host_port)
    if not found:
        return
    own = {ip_address(port.host_ip).packed} if port.host_ip not in EVERY else _own(family)
    own |= {way.asked} if way is not None else set()  # which is ::1
    for flow in found:
        if flow.destination in own:  # others only pass through this host
            conntrack.delete(sock, flow)


def _own(family: int) -> set[bytes]:
    """Return the host's addresses."""
    with NetlinkSocket(netlink.NETLINK_ROUTE) as links:
        return {found.address for found in rtnetlink.addresses(links, family=family)}
