"""Networks of the drivers macvlan and ipvlan: containers on top of an interface of the host.

Their packets do not pass the host's rules: what is there, is what that interface's neighbours let be.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from berth.errors import Failed, InvalidArgument, Unsupported
from berth.kernel import rtnetlink

if TYPE_CHECKING:
    from berth.kernel.netlink import Message, NetlinkSocket
    from berth.network.records import NetworkRecord
    from berth.network.wiring import Attachment

_PROBE = "berth-probe"
MAX_VLAN = 4094


def ensure(links: NetlinkSocket, network: NetworkRecord) -> int:
    """Make the network's parent interface if it is to be made, and return its index."""
    name = network.parent
    link = rtnetlink.find_link(links, name)
    if link is None:
        if name[2:] == f"-{network.id[:12]}":
            _make_lone(links, name)
        else:
            _make_vlan(links, name)
        link = rtnetlink.find_link(links, name)
    if link is None:
        raise Failed(f"the requested parent interface {name} was not found on the Docker host")
    return link.index


def _make_lone(links: NetlinkSocket, name: str) -> None:
    """Make a parent that leads nowhere: a dummy, or a bridge without ports where the kernel has none."""
    try:
        links.execute([rtnetlink.plain_message("dummy", name)], f"create {name}")
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        links.execute([rtnetlink.plain_message("bridge", name)], f"create {name}")


def _make_vlan(links: NetlinkSocket, name: str) -> None:
    parent_name, dot, text = name.partition(".")
    if not dot:
        raise InvalidArgument(
            f"invalid subinterface vlan name {name}, example formatting is eth0.10"
        )
    if not text.isdecimal():
        raise InvalidArgument(
            f"unable to parse a valid vlan id from: {text} (ex. eth0.10 for vlan 10)"
        )
    parent = rtnetlink.find_link(links, parent_name)
    if parent is None:
        raise InvalidArgument(f"-o parent interface was not found on the host: {parent_name}")
    if not 1 <= int(text) <= MAX_VLAN:
        raise InvalidArgument(f"vlan id must be between 1-4094, received: {int(text)}")
    data = rtnetlink.vlan_data(int(text))
    message = rtnetlink.stacked_message("vlan", name, parent=parent.index, data=data)
    try:
        links.execute([message], f"failed to create {name} vlan link")
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            text = f"the kernel of this host has no vlans (CONFIG_VLAN_8021Q): {name}"
            raise Unsupported(text) from None
        raise
    if link := rtnetlink.find_link(links, name):
        links.execute([rtnetlink.up_message(link.index)], f"set up {name}")


def remove(links: NetlinkSocket, name: str) -> None:
    """Delete a parent interface that was made; nothing when it is gone."""
    link = rtnetlink.find_link(links, name)
    if link is not None:
        links.execute([rtnetlink.delete_link_message(link.index)], f"delete {name}")


def check_kernel(links: NetlinkSocket, network: NetworkRecord, parent: int) -> None:
    """Refuse a network whose driver the kernel lacks: an interface is made and not kept."""
    message = rtnetlink.stacked_message(
        network.driver, _PROBE, parent=parent, data=data_of(network)
    )
    try:
        links.execute([message], f"look for {network.driver}")
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            raise Unsupported(
                f"the kernel of this host has no {network.driver} (CONFIG_{network.driver.upper()})"
            ) from None
        raise
    remove(links, _PROBE)


def data_of(network: NetworkRecord) -> bytes:
    """Return what makes an interface of the network."""
    if network.driver == "macvlan":
        return rtnetlink.macvlan_data(network.link_mode)
    return rtnetlink.ipvlan_data(network.link_mode, network.link_flag)


def member_message(attachment: Attachment, netns_fd: int) -> Message:
    """Return what makes a container's interface. An ipvlan has the MAC of its parent."""
    address = attachment.mac if attachment.kind == "macvlan" else b""
    return rtnetlink.stacked_message(
        attachment.kind,
        attachment.device,
        parent=attachment.bridge_index,
        data=attachment.kind_data,
        extra=rtnetlink.inside(netns_fd, address=address, mtu=attachment.mtu),
    )
