"""The way of new connections from outside to published ports: through the host's own firewall first.

A redirected packet is forwarded, so the host's rules for input never see it. Therefore what comes from
outside for a published port is not redirected at once, but goes where packets for the host go. What is
left of it after everybody else's input chains is copied to one end of a pair of interfaces; the copy
comes in again at the other end, and is redirected there. That is the first packet of a connection only:
the others follow it by the connection's record, and take no detour.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, NamedTuple

from berth.errors import Failed
from berth.kernel import nftables as nft
from berth.kernel import rtnetlink

if TYPE_CHECKING:
    from berth.kernel.netlink import NetlinkSocket

# Nobody is there. The kernel wants a gateway to send a copy to, and an address to check sources by.
GATEWAYS = {4: b"\xa9\xfe\0\1", 6: b"\xfe\x80" + bytes(13) + b"\1"}
_ADDRESS, _ADDRESS6 = b"\xc0\0\0\x08", b"\xfe\x80" + bytes(13) + b"\2"  # 192.0.0.8: RFC 7600

_MAC = b"\x02\x42\0\0\0\1"
_MTU = 65_535


class Detour(NamedTuple):
    """Where copies go in and where they come out: the indexes of two interfaces."""

    entry: int
    exit: int


def prefix(engine: str) -> str:
    """Return what the names of an engine's two interfaces begin with."""
    return f"bd{engine[:6]}"


def ensure(links: NetlinkSocket, engine: str) -> Detour:
    """Make the pair of interfaces, or find it."""
    name, peer = f"{prefix(engine)}in", f"{prefix(engine)}out"
    if rtnetlink.find_link(links, peer) is None:
        pair = rtnetlink.local_pair_message(name, peer, address=_MAC, mtu=_MTU)
        links.execute([pair], f"create veth pair {name}")
    entry, out = (rtnetlink.find_link(links, each) for each in (name, peer))
    if entry is None or out is None:
        raise Failed(f"create veth pair {name}: an interface has this name already")
    # Sources are many, and none of them is behind the pair.
    _write(f"/proc/sys/net/ipv4/conf/{peer}/rp_filter", "2")
    messages = [
        rtnetlink.up_message(out.index),
        rtnetlink.address_message(out.index, _ADDRESS, 32),
    ]
    if os.path.exists("/proc/sys/net/ipv6"):  # noqa: PTH110
        for each in (name, peer):
            _write(f"/proc/sys/net/ipv6/conf/{each}/disable_ipv6", "0")
            _write(f"/proc/sys/net/ipv6/conf/{each}/accept_ra", "0")
        messages.append(rtnetlink.address_message(entry.index, _ADDRESS6, 64))
    links.execute(messages, f"set up {name}")
    return Detour(entry.index, out.index)


def remove(links: NetlinkSocket, engine: str) -> None:
    """Delete the pair; nothing when it is gone."""
    name = f"{prefix(engine)}in"
    if link := rtnetlink.find_link(links, name):
        links.execute([rtnetlink.delete_link_message(link.index)], f"delete {name}")


def came_by(index: int) -> bytes:
    """Go on with the next rule unless a packet came by this interface."""
    return nft.meta(nft.META_IIF) + nft.compare(nft.CMP_EQ, index.to_bytes(4, sys.byteorder))


def came_by_other_than(index: int) -> bytes:
    """Go on with the next rule if a packet came by this interface."""
    return nft.meta(nft.META_IIF) + nft.compare(nft.CMP_NEQ, index.to_bytes(4, sys.byteorder))


def take(detour: Detour, version: int) -> bytes:
    """Send a packet on the detour."""
    return nft.duplicate(GATEWAYS[version], detour.entry) + nft.verdict(nft.DROP)


def _write(path: str, value: str) -> None:
    with open(path, "w") as file:  # noqa: PTH123
        file.write(value)
