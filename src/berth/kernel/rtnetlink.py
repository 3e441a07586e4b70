"""rtnetlink(7): links, addresses and routes of one network namespace.

The ``…_message`` functions are pure; pass what they return to :meth:`NetlinkSocket.execute`, several
in one call where they belong together. IPv4 addresses are four packed bytes, IPv6 ones sixteen, MAC
addresses six.
"""

from __future__ import annotations

from struct import Struct

from berth.kernel import netlink
from berth.kernel.netlink import Message, NetlinkSocket, attribute, attributes, nested, text, u32

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

RTM_NEWLINK = 16
RTM_DELLINK = 17
RTM_GETLINK = 18
RTM_NEWADDR = 20
RTM_DELADDR = 21
RTM_GETADDR = 22
RTM_NEWROUTE = 24
RTM_GETROUTE = 26

IFF_UP, IFF_NOARP = 0x1, 0x80
LOOPBACK_INDEX = 1  # of "lo" in every namespace

_IFLA_ADDRESS = 1
_IFLA_IFNAME = 3
_IFLA_MTU = 4
_IFLA_LINK = 5
_IFLA_MASTER = 10
_IFLA_LINKINFO = 18
_IFLA_NET_NS_FD = 28
_IFLA_INFO_KIND = 1
_IFLA_INFO_DATA = 2
_IFLA_INFO_SLAVE_KIND = 4
_IFLA_INFO_SLAVE_DATA = 5
_VETH_INFO_PEER = 1
_IFLA_BRPORT_MODE = 4
_IFLA_BRPORT_ISOLATED = 33
_IFLA_BR_NF_CALL_IPTABLES, _IFLA_BR_NF_CALL_IP6TABLES = 36, 37

_IFA_ADDRESS = 1
_IFA_LOCAL = 2
_IFA_BROADCAST = 4

_RTA_DST = 1
_RTA_OIF = 4
_RTA_GATEWAY = 5
_RTA_PRIORITY = 6
_RTA_TABLE = 15
_RT_TABLE_MAIN = 254
_RT_TABLE_LOCAL = 255
_RTPROT_BOOT = 3
_RTN_UNICAST = 1
_RTN_LOCAL = 2
_RT_SCOPE_LINK = 253
_IPV6_LOOPBACK = bytes(15) + b"\1"

_AF_UNSPEC = 0
AF_INET, AF_INET6 = 2, 10
_IFA_F_NODAD = 0x02

_IFINFO = Struct("=BxHiII")  # family, type, index, flags, change
_IFADDR = Struct("=BBBBI")  # family, prefix length, flags, scope, index
_ROUTE = Struct("=BBBBBBBBI")  # family, dst len, src len, tos, table, protocol, scope, type, flags

_ENODEV = 19
_CREATE = netlink.NLM_F_CREATE | netlink.NLM_F_EXCL


class Link:
    """A network interface."""

    __slots__ = ("address", "flags", "index", "kind", "master", "mtu", "name")

    def __init__(self, message: Message) -> None:
        _, _, index, flags, _ = _IFINFO.unpack_from(message.body)
        self.index = int(index)
        self.flags = int(flags)
        found = attributes(message.body, _IFINFO.size)
        info = attributes(found.get(_IFLA_LINKINFO, b""))
        self.name = netlink.string(found.get(_IFLA_IFNAME, b""))
        self.address = found.get(_IFLA_ADDRESS, b"")
        self.mtu = netlink.read_u32(found.get(_IFLA_MTU, bytes(4)))
        self.master = netlink.read_u32(found.get(_IFLA_MASTER, bytes(4)))  # 0: none
        self.kind = netlink.string(info.get(_IFLA_INFO_KIND, b""))  # "": hardware or loopback


class Address:
    """An address of an interface."""

    __slots__ = ("address", "index", "prefix_length", "scope")

    def __init__(self, message: Message) -> None:
        _, prefix_length, _, scope, index = _IFADDR.unpack_from(message.body)
        self.scope = int(scope)  # 0: known everywhere, not on the link alone
        self.prefix_length = int(prefix_length)
        self.index = int(index)
        found = attributes(message.body, _IFADDR.size)
        self.address = found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS, b"")


class Route:
    """A route."""

    __slots__ = ("destination", "gateway", "index", "prefix_length", "table")

    def __init__(self, message: Message) -> None:
        family, prefix_length, _, _, table, _, _, _, _ = _ROUTE.unpack_from(message.body)
        self.prefix_length = int(prefix_length)
        found = attributes(message.body, _ROUTE.size)
        self.table = netlink.read_u32(found[_RTA_TABLE]) if _RTA_TABLE in found else int(table)
        self.destination = found.get(_RTA_DST, bytes(4 if family == AF_INET else 16))
        self.gateway = found.get(_RTA_GATEWAY)
        self.index = netlink.read_u32(found.get(_RTA_OIF, bytes(4)))


def _link_body(*parts: bytes, index: int = 0, flags: int = 0) -> bytes:
    return _IFINFO.pack(_AF_UNSPEC, 0, index, flags, flags) + b"".join(parts)


def bridge_message(name: str, *, address: bytes, mtu: int) -> Message:
    """Make a bridge that is up. Its own MAC keeps it from taking that of a port."""
    body = _link_body(
        text(_IFLA_IFNAME, name),
        attribute(_IFLA_ADDRESS, address),
        attribute(_IFLA_MTU, u32(mtu)),
        nested(_IFLA_LINKINFO, text(_IFLA_INFO_KIND, "bridge")),
        flags=IFF_UP,
    )
    return Message(RTM_NEWLINK, body, flags=_CREATE)


def veth_message(
    name: str, *, master: int, mtu: int, peer: str, peer_address: bytes, peer_netns_fd: int
) -> Message:
    """Make a pair: ``name`` here, up, a port of ``master``; ``peer`` down inside the other namespace."""
    other = _link_body(
        text(_IFLA_IFNAME, peer),
        attribute(_IFLA_ADDRESS, peer_address),
        attribute(_IFLA_MTU, u32(mtu)),
        attribute(_IFLA_NET_NS_FD, u32(peer_netns_fd)),
    )
    body = _link_body(
        text(_IFLA_IFNAME, name),
        attribute(_IFLA_MASTER, u32(master)),
        attribute(_IFLA_MTU, u32(mtu)),
        nested(
            _IFLA_LINKINFO,
            text(_IFLA_INFO_KIND, "veth"),
            nested(_IFLA_INFO_DATA, nested(_VETH_INFO_PEER, other)),
        ),
        flags=IFF_UP,
    )
    return Message(RTM_NEWLINK, body, flags=_CREATE)


def local_pair_message(name: str, peer: str, *, address: bytes, mtu: int) -> Message:
    """Make a pair with both ends here, of one MAC and without ARP: what goes in comes out for us.

    ``peer`` is still down.
    """

    def end(own_name: str) -> bytes:
        own = (text(_IFLA_IFNAME, own_name), attribute(_IFLA_ADDRESS, address))
        return b"".join((*own, attribute(_IFLA_MTU, u32(mtu))))

    info = nested(_VETH_INFO_PEER, _link_body(end(peer), flags=IFF_NOARP))
    body = _link_body(
        end(name),
        nested(_IFLA_LINKINFO, text(_IFLA_INFO_KIND, "veth"), nested(_IFLA_INFO_DATA, info)),
        flags=IFF_UP | IFF_NOARP,
    )
    return Message(RTM_NEWLINK, body, flags=_CREATE)


def stacked_message(
    kind: str, name: str, *, parent: int, data: bytes, extra: Iterable[bytes] = ()
) -> Message:
    """Make an interface of ``kind`` (macvlan, ipvlan, vlan) on top of another."""
    info = (text(_IFLA_INFO_KIND, kind), nested(_IFLA_INFO_DATA, data))
    parts = [text(_IFLA_IFNAME, name), attribute(_IFLA_LINK, u32(parent)), *extra]
    body = _link_body(*parts, nested(_IFLA_LINKINFO, *info))
    return Message(RTM_NEWLINK, body, flags=_CREATE)


def inside(netns_fd: int, *, address: bytes, mtu: int) -> list[bytes]:
    """Return what puts a new interface into a namespace; without ``address`` it has its parent's."""
    parts = [attribute(_IFLA_NET_NS_FD, u32(netns_fd)), attribute(_IFLA_MTU, u32(mtu))]
    return [*parts, *([attribute(_IFLA_ADDRESS, address)] if address else [])]


def plain_message(kind: str, name: str) -> Message:
    """Make an interface of ``kind`` (dummy) that is up and leads nowhere."""
    info = nested(_IFLA_LINKINFO, text(_IFLA_INFO_KIND, kind))
    body = _link_body(text(_IFLA_IFNAME, name), info, flags=IFF_UP)
    return Message(RTM_NEWLINK, body, flags=_CREATE)


def macvlan_data(mode: str) -> bytes:
    """Return what makes a macvlan of a mode."""
    return attribute(1, u32({"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}[mode]))


def ipvlan_data(mode: str, flag: str) -> bytes:
    """Return what makes an ipvlan of a mode."""
    flags = {"bridge": 0, "private": 1, "vepa": 2}[flag]
    number = {"l2": 0, "l3": 1, "l3s": 2}[mode]
    return attribute(1, netlink.u16(number)) + attribute(2, netlink.u16(flags))


def vlan_data(number: int) -> bytes:
    """Return what makes a vlan."""
    return attribute(1, netlink.u16(number))


def hairpin_message(name: str) -> Message:
    """Let the bridge port ``name`` send a frame back where it came from.

    With bridge-nf-call-iptables a DNAT to the sender itself is decided on the bridge, which would
    drop the frame (net/bridge/br_forward.c, should_deliver).
    """
    return _port_message(name, _IFLA_BRPORT_MODE)


def isolation_message(name: str) -> Message:
    """Keep the bridge port ``name`` from reaching other ports that are kept so."""
    return _port_message(name, _IFLA_BRPORT_ISOLATED)


def _port_message(name: str, switch: int) -> Message:
    """Switch something on of the bridge port ``name``."""
    body = _link_body(
        text(_IFLA_IFNAME, name),
        nested(
            _IFLA_LINKINFO,
            text(_IFLA_INFO_SLAVE_KIND, "bridge"),
            nested(_IFLA_INFO_SLAVE_DATA, attribute(switch, b"\1")),
        ),
    )
    return Message(RTM_NEWLINK, body)


def bridge_netfilter_message(index: int) -> Message:
    """Show what a bridge forwards to the IP families' rules, whatever the host does with other bridges."""
    calls = (
        attribute(_IFLA_BR_NF_CALL_IPTABLES, b"\1"),
        attribute(_IFLA_BR_NF_CALL_IP6TABLES, b"\1"),
    )
    info = (text(_IFLA_INFO_KIND, "bridge"), nested(_IFLA_INFO_DATA, *calls))
    return Message(RTM_NEWLINK, _link_body(nested(_IFLA_LINKINFO, *info), index=index))


def up_message(index: int) -> Message:
    """Bring an interface up."""
    return Message(RTM_NEWLINK, _link_body(index=index, flags=IFF_UP))


def enslave_message(index: int, *, master: int) -> Message:
    """Make an interface a port of the bridge ``master``."""
    return Message(RTM_NEWLINK, _link_body(attribute(_IFLA_MASTER, u32(master)), index=index))


def move_message(index: int, netns_fd: int, name: str) -> Message:
    """Move an interface to another network namespace, where it is called ``name`` and is down."""
    parts = (attribute(_IFLA_NET_NS_FD, u32(netns_fd)), text(_IFLA_IFNAME, name))
    return Message(RTM_NEWLINK, _link_body(*parts, index=index))


def delete_link_message(index: int) -> Message:
    """Delete an interface."""
    return Message(RTM_DELLINK, _link_body(index=index))


def _family(address: bytes) -> int:
    return AF_INET if len(address) == 4 else AF_INET6


def address_message(index: int, address: bytes, prefix_length: int) -> Message:
    """Give an interface an address, with the broadcast address of its subnet if there is such a thing.

    An IPv6 address is usable at once: nobody is asked whether they have it already.
    """
    family = _family(address)
    flags = _IFA_F_NODAD if family == AF_INET6 else 0
    body = (
        _IFADDR.pack(family, prefix_length, flags, 0, index)
        + attribute(_IFA_LOCAL, address)
        + attribute(_IFA_ADDRESS, address)
    )
    if family == AF_INET and prefix_length < 31:  # RFC 3021
        host_bits = (1 << (32 - prefix_length)) - 1
        broadcast = (int.from_bytes(address, "big") | host_bits).to_bytes(4, "big")
        body += attribute(_IFA_BROADCAST, broadcast)
    return Message(RTM_NEWADDR, body, flags=netlink.NLM_F_CREATE | netlink.NLM_F_REPLACE)


def delete_address_message(address: Address) -> Message:
    """Take an address away."""
    family, length = _family(address.address), address.prefix_length
    body = _IFADDR.pack(family, length, 0, 0, address.index)
    return Message(RTM_DELADDR, body + attribute(_IFA_LOCAL, address.address))


def default_route_message(gateway: bytes, *, index: int) -> Message:
    """Send everything else to ``gateway``, whatever was before; its interface must be up."""
    family = _family(gateway)
    body = (
        _ROUTE.pack(family, 0, 0, 0, _RT_TABLE_MAIN, _RTPROT_BOOT, 0, _RTN_UNICAST, 0)
        + attribute(_RTA_GATEWAY, gateway)
        + attribute(_RTA_OIF, u32(index))
    )
    flags = netlink.NLM_F_CREATE | netlink.NLM_F_REPLACE
    return Message(RTM_NEWROUTE, body, flags=flags)


def device_route_message(version: int, *, index: int) -> Message:
    """Send everything else out of an interface, whoever is there."""
    family, scope = (AF_INET, _RT_SCOPE_LINK) if version == 4 else (AF_INET6, 0)
    body = _ROUTE.pack(
        family, 0, 0, 0, _RT_TABLE_MAIN, _RTPROT_BOOT, scope, _RTN_UNICAST, 0
    ) + attribute(_RTA_OIF, u32(index))
    flags = netlink.NLM_F_CREATE | netlink.NLM_F_REPLACE
    return Message(RTM_NEWROUTE, body, flags=flags)


def host_route6_message(address: bytes, *, index: int) -> Message:
    """Send what is for one address of IPv6 out of an interface."""
    body = (
        _ROUTE.pack(AF_INET6, 128, 0, 0, _RT_TABLE_MAIN, _RTPROT_BOOT, 0, _RTN_UNICAST, 0)
        + attribute(_RTA_DST, address)
        + attribute(_RTA_OIF, u32(index))
    )
    return Message(RTM_NEWROUTE, body, flags=netlink.NLM_F_CREATE | netlink.NLM_F_REPLACE)


def loopback6_message(index: int) -> Message:
    """Take packets for ::1 from an interface too, as route_localnet has it for 127.0.0.0/8.

    The metric is one of its own: routes that differ in their interface alone are the same to the kernel.
    """
    body = (
        _ROUTE.pack(AF_INET6, 128, 0, 0, _RT_TABLE_LOCAL, _RTPROT_BOOT, 0, _RTN_LOCAL, 0)
        + attribute(_RTA_DST, _IPV6_LOOPBACK)
        + attribute(_RTA_OIF, u32(index))
        + attribute(_RTA_PRIORITY, u32(1024 + index))
    )
    return Message(RTM_NEWROUTE, body, flags=netlink.NLM_F_CREATE | netlink.NLM_F_REPLACE)


def find_link(sock: NetlinkSocket, name: str) -> Link | None:
    """Return the interface called ``name``, None when there is none."""
    message = Message(RTM_GETLINK, _link_body(text(_IFLA_IFNAME, name)))
    try:
        return Link(sock.query(message, f"find link {name}"))
    except OSError as error:
        if error.errno == _ENODEV:
            return None
        raise


def links(sock: NetlinkSocket) -> list[Link]:
    """Return every interface."""
    return [Link(m) for m in sock.dump(Message(RTM_GETLINK, _link_body()), "list links")]


def addresses(sock: NetlinkSocket, *, family: int = AF_INET) -> list[Address]:
    """Return every address of a family."""
    message = Message(RTM_GETADDR, _IFADDR.pack(family, 0, 0, 0, 0))
    return [Address(m) for m in sock.dump(message, "list addresses")]


def routes(sock: NetlinkSocket, *, family: int = AF_INET) -> list[Route]:
    """Return every route of a family but those of the table ``local``."""
    message = Message(RTM_GETROUTE, _ROUTE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0))
    found = [Route(m) for m in sock.dump(message, "list routes")]
    return [route for route in found if route.table != _RT_TABLE_LOCAL]
