"""What is switched on at a bridge of somebody else's while a network uses it, and put back afterwards.

It is route_localnet, see :mod:`berth.network.bridges`: what the host sends to its 127.0.0.1 reaches a
published port. That it was off is in the network's record before it is switched on. Everything here blocks.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from berth.kernel import netlink, nftables
from berth.kernel.netlink import NetlinkSocket
from berth.network import bridges, firewall

if TYPE_CHECKING:
    from berth.network.records import NetworkRecord

log = logging.getLogger("berth")

TABLE = "berth"  # the names of all engines' tables begin so


def will_switch_on(network: NetworkRecord) -> bool:
    """Say whether something is off at the network's bridge that is not ours."""
    if not network.bridge or network.is_ours:
        return False
    try:
        return bridges.localnet(network.bridge).read_text().strip() == "0"
    except OSError:
        return False


def put_back(network: NetworkRecord, table: str) -> None:
    """Switch off what was off, unless another engine than that with this ``table`` uses the bridge."""
    with NetlinkSocket(netlink.NETLINK_NETFILTER) as sock:
        tables = nftables.table_names(sock, nftables.IPV4)
        others = [name for name in tables if name.startswith(TABLE) and name != table]
        if any(_uses(sock, name, network.bridge) for name in others):
            log.info("route_localnet of %s stays on, another engine uses it", network.bridge)
            return
    bridges.write_sysctl(bridges.localnet(network.bridge), "0")


def _uses(sock: NetlinkSocket, table: str, bridge: str) -> bool:
    with suppress(OSError):  # no table of a running engine, which has this set
        name = bridge.encode().ljust(nftables.IFNAME_BYTES, b"\0")
        return name in nftables.keys(sock, nftables.Table(table), firewall.BRIDGES)
    return False
