"""The kernel's side of networks: bridges, namespaces and veth pairs.

Every method blocks, and all of them run in the one thread that made the object: it enters a new
namespace for a moment and returns. The sockets stay in the namespace where they were made.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from dataclasses import dataclass, replace
from ipaddress import ip_network
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from berth.errors import Failed
from berth.kernel import namespaces, netlink, nftables, rtnetlink
from berth.kernel.netlink import NetlinkSocket
from berth.network import bridges, detour, firewall, shaping, uplinks
from berth.network.bridges import SYSCTL, write_sysctl

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from berth.kernel.netlink import Message
    from berth.network.ipam import Address, Interface, Network
    from berth.network.records import EndpointRecord, NetworkRecord
    from berth.network.shaping import Shape

Result = TypeVar("Result")

FIRST_DEVICE = "eth0"
_IPV6_ON = ("accept_ra", "disable_ipv6")  # all off
_LOOPBACK_UP = rtnetlink.up_message(rtnetlink.LOOPBACK_INDEX)
FULL = "the network's bridge has 1023 interfaces, which is all that the kernel allows"
LINK_LOCAL_PREFIXES = {4: 16, 6: 64}
RESOLVER = "127.0.0.11"  # where containers of networks with names ask for them

log = logging.getLogger("berth")

_NETNS = "/proc/thread-self/ns/net"
# As Docker: any user binds any port and pings, and without IPv6 only loopback has an address of it.
_DEFAULTS = (
    ("ipv6/conf/default/disable_ipv6", "1"),
    ("ipv4/ip_unprivileged_port_start", "0"),
    ("ipv4/ping_group_range", "0 2147483647"),
)


class Place(NamedTuple):
    """An address in a subnet. ``gateway`` is that of the default route, None where it is not this way."""

    address: Address
    prefix_length: int
    gateway: Address | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """How a namespace is to be connected to a bridge: with an address of IPv4, of IPv6, or both."""

    device: str = FIRST_DEVICE
    bridge_index: int
    mtu: int
    places: tuple[Place, ...]
    mac: bytes
    is_guarded: bool = True  # it sends as what it was given only
    has_shortcut: bool = False  # past the bridge, to the host and back
    is_apart: bool = False  # it does not reach others of the network
    is_crowded: bool = False  # there are hundreds of others
    kind: str = "veth"  # or macvlan, ipvlan: then the index is its parent's
    kind_data: bytes = b""
    routes_by_device: bool = False  # the default route has no gateway
    link_local: tuple[Address, ...] = ()
    shape: Shape | None = None  # None: as it comes
    sysctls: tuple[tuple[str, str], ...] = ()  # paths below /proc/sys/net, values

    def leading(self, *versions: int) -> Attachment:
        """Return the same with default routes for these versions of IP only."""
        places = [
            place if place.address.version in versions else place._replace(gateway=None)
            for place in self.places
        ]
        return replace(self, places=tuple(places))

    @property
    def has_ipv6(self) -> bool:
        """Say whether there is an address of IPv6."""
        return any(place.address.version == 6 for place in self.places)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A namespace with its interfaces up. The descriptor belongs to whoever holds this value."""

    netns_fd: int
    interface: str = ""  # the host's end
    attachment: Attachment | None = None

    def close(self) -> None:
        """Let the namespace die, and the veth pair with it, unless somebody else holds it."""
        os.close(self.netns_fd)


class Wiring:
    """The host's network as one engine uses it. ``prefix`` begins the names of its veth pairs.

    ``forwards``: the host is made a router.
    """

    def __init__(self, *, prefix: str, forwards: bool = True) -> None:
        self._prefix = prefix
        self._forwards = forwards
        self._host_fd = os.open(_NETNS, os.O_RDONLY)
        self._links = NetlinkSocket(netlink.NETLINK_ROUTE)

    def close(self) -> None:
        """Close the socket; nothing on the host changes."""
        self._links.close()
        os.close(self._host_fd)

    def ensure_detour(self, engine: str) -> detour.Detour:
        """Make the pair of interfaces by which new connections reach published ports."""
        return detour.ensure(self._links, engine)

    def remove_detour(self, engine: str) -> None:
        """Delete that pair."""
        detour.remove(self._links, engine)

    def enable_forwarding(self) -> None:
        """Let the host route."""
        if self._forwards and write_sysctl(SYSCTL / "ipv4/ip_forward", "1"):
            log.info("switched on net.ipv4.ip_forward, without which containers reach nothing")

    def occupied(self, own: Iterable[str]) -> list[Network]:
        """Return the subnets that the host has routes to, but for the interfaces ``own``."""
        names = set(own)
        skipped = {link.index for link in rtnetlink.links(self._links) if link.name in names}
        return [
            ip_network((route.destination, route.prefix_length))
            for family in (rtnetlink.AF_INET, rtnetlink.AF_INET6)
            for route in rtnetlink.routes(self._links, family=family)
            if route.prefix_length and route.index not in skipped
        ]

    def ensure_network(self, network: NetworkRecord) -> int:
        """Make the interface that a network's containers are behind, or mend it; return its index."""
        if network.parent:
            return uplinks.ensure(self._links, network)
        return bridges.ensure(self._links, network, forwards=self._forwards)

    def bridge_addresses(self, name: str) -> list[Interface]:
        """Return the addresses of a bridge that somebody made, the first of each version of IP."""
        return bridges.addresses(self._links, name)

    def make_network(self, network: NetworkRecord) -> int:
        """Make the interface of a new network; on failure part of it may be left."""
        index = self.ensure_network(network)
        if network.parent:
            uplinks.check_kernel(self._links, network, index)
        return index

    def remove_network(self, network: NetworkRecord) -> None:
        """Delete the interface that was made for a network; nothing when it is gone."""
        if network.is_ours and network.parent:
            uplinks.remove(self._links, network.parent)
        elif network.is_ours:
            bridges.remove(self._links, network.bridge)

    def interfaces(self) -> set[str]:
        """Return the names of the host's interfaces."""
        return {link.name for link in rtnetlink.links(self._links)}

    def reattach(self, endpoint: EndpointRecord, bridge_index: int, *, is_apart: bool) -> bool:
        """Make a running container's veth a port of its bridge again; say whether there is one."""
        link = rtnetlink.find_link(self._links, endpoint.interface)
        if link is None:
            return False
        if link.master != bridge_index:
            message = rtnetlink.enslave_message(link.index, master=bridge_index)
            self._links.execute([message], f"attach {endpoint.interface}")
            self._set_apart(endpoint.interface, is_apart=is_apart)
            if endpoint.ports:
                self.set_hairpin(endpoint.interface)
        return True

    def _set_apart(self, interface: str, *, is_apart: bool) -> None:
        if is_apart and not bridges.has_netfilter():
            isolation = rtnetlink.isolation_message(interface)
            self._links.execute([isolation], f"isolate {interface}")

    def sweep(self, known: Collection[str]) -> None:
        """Delete pairs of ours that are not ``known``: an engine was killed while it made them."""
        for link in rtnetlink.links(self._links):
            if link.name.startswith(self._prefix) and link.name not in known:
                try:
                    self.unplug(link.name)
                except OSError:  # a spare's, whose namespace is dying this moment
                    continue

    def attach(self, attachment: Attachment) -> Ready:
        """Make a namespace with an interface on a bridge: two messages, one outside, one inside."""
        fd, links = self._enter_new()
        with links:
            try:
                interface = self._make_interface(attachment, fd)
                self._set_up(fd, links, attachment, _LOOPBACK_UP)
            except BaseException:
                os.close(fd)
                raise
        return Ready(netns_fd=fd, interface=interface, attachment=attachment)

    def furnish(self, netns_fd: int) -> None:
        """Give a namespace that somebody else has made the parameters of ours."""
        self._within(netns_fd, lambda: _set_parameters(_DEFAULTS))

    def plug(self, netns_fd: int, attachment: Attachment) -> str:
        """Give a namespace one more interface on a bridge; return the name of the host's end."""
        interface = self._make_interface(attachment, netns_fd)
        with self._enter(netns_fd, netlink.NETLINK_ROUTE) as links:
            try:
                self._set_up(netns_fd, links, attachment)
            except BaseException:
                self.unplug(interface, netns_fd=netns_fd, device=attachment.device)
                raise
        return interface

    def _set_up(
        self, netns_fd: int, links: NetlinkSocket, attachment: Attachment, *before: Message
    ) -> None:
        """Set up an interface inside; parameters come last, since some are reset when it comes up."""
        if attachment.has_ipv6:
            on = [(f"ipv6/conf/{attachment.device}/{name}", "0") for name in _IPV6_ON]
            self._within(netns_fd, lambda: _set_parameters(on))
        _set_up(links, attachment, *before)
        if attachment.sysctls:
            self._within(netns_fd, lambda: _set_parameters(attachment.sysctls))

    def unplug(self, interface: str, *, netns_fd: int | None = None, device: str = "") -> None:
        """Delete a pair; nothing when it is gone. This takes long: the kernel waits for readers.

        An interface without a host's end is deleted inside.
        """
        if interface:
            _delete(self._links, interface)
        elif netns_fd is not None:
            with self._enter(netns_fd, netlink.NETLINK_ROUTE) as links:
                _delete(links, device)

    def shape(self, interface: str, netns_fd: int, device: str, shape: Shape) -> None:
        """Shape what a container sends, by ``device``, and what it gets, by the host's end if any."""
        if interface:
            shaping.apply(self._links, interface, shape, sends=False)
        with self._enter(netns_fd, netlink.NETLINK_ROUTE) as links:
            shaping.apply(links, device, shape, sends=True)

    def lead_out(self, netns_fd: int, device: str, gateway: Address) -> None:
        """Make a gateway the namespace's default route of its version of IP."""
        with self._enter(netns_fd, netlink.NETLINK_ROUTE) as links:
            link = rtnetlink.find_link(links, device)
            if link is not None:
                route = rtnetlink.default_route_message(gateway.packed, index=link.index)
                links.execute([route], f"route by {device}")

    def set_hairpin(self, interface: str) -> None:
        """Let the container behind an interface reach itself by its published ports."""
        self._links.execute([rtnetlink.hairpin_message(interface)], f"set hairpin of {interface}")

    def sockets(
        self, netns_fd: int, *kinds: int, family: int = socket.AF_INET
    ) -> list[socket.socket]:
        """Make sockets inside a namespace."""
        return self._within(
            netns_fd,
            lambda: [socket.socket(family, kind | socket.SOCK_NONBLOCK) for kind in kinds],
        )

    def redirect_names(self, netns_fd: int, *, udp: int, tcp: int) -> None:
        """Lead questions to port 53 of the resolver's address to these ports of it.

        Port 53 itself stays free for the container, which may be a name server.
        """
        with self._enter(netns_fd, netlink.NETLINK_NETFILTER) as rules:
            rules.execute_batch(
                nftables.batch(firewall.name_redirection(RESOLVER, udp=udp, tcp=tcp)),
                "redirect questions for names",
            )

    def _enter(self, netns_fd: int, protocol: int) -> NetlinkSocket:
        """Return a socket inside a namespace."""
        return self._within(netns_fd, lambda: NetlinkSocket(protocol))

    def _within(self, netns_fd: int, work: Callable[[], Result]) -> Result:
        namespaces.setns(netns_fd, namespaces.CLONE_NEWNET)
        try:
            return work()
        finally:
            namespaces.setns(self._host_fd, namespaces.CLONE_NEWNET)

    def _make_interface(self, attachment: Attachment, netns_fd: int) -> str:
        """Make an interface inside; return the name of the host's end, empty when there is none."""
        if attachment.kind == "veth":
            return self._make_pair(attachment, netns_fd)
        message = uplinks.member_message(attachment, netns_fd)
        self._links.execute([message], f"failed to create the {attachment.kind} port")
        return ""

    def _make_pair(self, attachment: Attachment, netns_fd: int) -> str:
        for _ in range(8):
            interface = self._prefix + os.urandom(4).hex()[: 15 - len(self._prefix)]
            message = rtnetlink.veth_message(
                interface,
                master=attachment.bridge_index,
                mtu=attachment.mtu,
                peer=attachment.device,
                peer_address=attachment.mac,
                peer_netns_fd=netns_fd,
            )
            try:
                self._links.execute([message], f"create veth pair {interface}")
            except FileExistsError:
                continue
            except OSError as error:
                if error.errno == errno.EXFULL:
                    raise Failed(FULL) from error
                raise
            self._set_apart(interface, is_apart=attachment.is_apart)
            return interface
        raise Failed("create veth pair: every name that was tried exists")

    def _enter_new(self) -> tuple[int, NetlinkSocket]:
        """Make a namespace; return its descriptor and a socket inside it."""
        namespaces.unshare(namespaces.CLONE_NEWNET)
        try:
            fd = os.open(_NETNS, os.O_RDONLY)
            try:
                _set_parameters(_DEFAULTS)
                return fd, NetlinkSocket(netlink.NETLINK_ROUTE)
            except BaseException:
                os.close(fd)
                raise
        finally:
            namespaces.setns(self._host_fd, namespaces.CLONE_NEWNET)


def _set_up(links: NetlinkSocket, attachment: Attachment, *before: Message) -> None:
    device = attachment.device
    link = rtnetlink.find_link(links, device)
    if link is None:
        raise OSError(errno.ENODEV, f"find link {device}: {os.strerror(errno.ENODEV)}")
    messages = list(before)
    for place in attachment.places:
        packed, length = place.address.packed, place.prefix_length
        messages.append(rtnetlink.address_message(link.index, packed, length))
    messages.append(rtnetlink.up_message(link.index))
    for place in attachment.places:
        if place.gateway is not None:
            packed = place.gateway.packed
            messages.append(rtnetlink.default_route_message(packed, index=link.index))
        elif attachment.routes_by_device:
            version = place.address.version
            messages.append(rtnetlink.device_route_message(version, index=link.index))
    shown = " ".join(str(place.address) for place in attachment.places)
    links.execute(messages, f"set up {device} with {shown}")
    if attachment.link_local:
        _add_link_local(links, link.index, attachment)


def _add_link_local(links: NetlinkSocket, index: int, attachment: Attachment) -> None:
    found = [(address, LINK_LOCAL_PREFIXES[address.version]) for address in attachment.link_local]
    shown = " ".join(f"{address}/{length}" for address, length in found)
    call = f'error setting interface "{attachment.device}" link local IPs to [{shown}]'
    messages = [rtnetlink.address_message(index, a.packed, length) for a, length in found]
    try:
        links.execute(messages, call)
    except OSError as error:  # of IPv6, and the network has none
        why = os.strerror(error.errno or 0).lower()
        raise OSError(error.errno, f"{call}: {why}") from error


def _delete(links: NetlinkSocket, name: str) -> None:
    link = rtnetlink.find_link(links, name)
    if link is not None:
        links.execute([rtnetlink.delete_link_message(link.index)], f"delete {name}")


def _set_parameters(wanted: Iterable[tuple[str, str]]) -> None:
    """Set parameters of this namespace."""
    for path, value in wanted:
        try:
            write_sysctl(SYSCTL / path, value)
        except OSError as error:
            text = f"set net.{path.replace('/', '.')}: {error.strerror}"
            raise OSError(error.errno, text) from error
