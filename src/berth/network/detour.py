"""The way of new connections from outside to published ports: through the host's own firewall first.

A redirected packet is forwarded, so the host's rules for input never see it. Therefore what comes from
outside for a published port is not redirected at once, but goes where packets for the host go. What is
left of it after everybody else's input chains is copied to one end of a pair of interfaces; the copy
comes in again at the other end, and is redirected there. That is the first packet of a connection only:
the others follow it by the connection's record, and take no detour.

What the host sends to ::1 for a published port takes the same pair, every packet of it and with other
addresses: the kernel lets no packet of ::1 go further than its loopback, nor come from elsewhere. Between
the two ends such a connection is one from ``asker`` to ``asked``, which nobody else has.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, NamedTuple

from berth.errors import Failed
from berth.kernel import nftables as nft
from berth.kernel import rtnetlink
from berth.oci.digest import sha256

if TYPE_CHECKING:
    from berth.kernel.netlink import NetlinkSocket

# Nobody is there. The kernel wants a gateway to send a copy to, and an address to check sources by.
GATEWAYS = {4: b"\xa9\xfe\0\1", 6: b"\xfe\x80" + bytes(13) + b"\1"}
_ADDRESS, _ADDRESS6 = b"\xc0\0\0\x08", b"\xfe\x80" + bytes(13) + b"\2"  # 192.0.0.8: RFC 7600

_MAC = b"\x02\x42\0\0\0\1"
_MTU = 65_535


class Detour(NamedTuple):
    """Where packets go in and where they come out: the indexes of two interfaces.

    And who seems to talk between the two when the host talks to its ::1.
    """

    entry: int
    exit: int
    asker: bytes
    asked: bytes


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
    asker, asked = (_local_address(engine, number) for number in (1, 2))
    detour = Detour(entry.index, out.index, asker, asked)
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
        messages += [
            rtnetlink.address_message(entry.index, _ADDRESS6, 64),
            rtnetlink.host_route6_message(detour.asked, index=entry.index),
            rtnetlink.host_route6_message(detour.asker, index=out.index),
            rtnetlink.loopback6_message(entry.index),
        ]
    links.execute(messages, f"set up {name}")
    return detour


def _local_address(engine: str, number: int) -> bytes:
    """Return an address of a prefix (RFC 4193) that no network of the engine is in."""
    return b"\xfd" + sha256(engine.encode())[:5] + b"\xff\xff" + number.to_bytes(8, "big")


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


def goes_by(index: int) -> bytes:
    """Go on with the next rule unless a packet leaves by this interface."""
    return nft.meta(nft.META_OIF) + nft.compare(nft.CMP_EQ, index.to_bytes(4, sys.byteorder))


def take(detour: Detour, version: int) -> bytes:
    """Send a packet on the detour."""
    return nft.duplicate(GATEWAYS[version], detour.entry) + nft.verdict(nft.DROP)


def _write(path: str, value: str) -> None:
    with open(path, "w") as file:  # noqa: PTH123
        file.write(value)
