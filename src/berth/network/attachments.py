"""Which address, MAC and interface a container gets in a network, and the kernel's part of giving it."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

import msgspec

from berth.errors import Failed, NotFound
from berth.network import bridges, ipam, options, shaping, uplinks
from berth.network.guards import Guard
from berth.network.records import EndpointRecord
from berth.network.wiring import FIRST_DEVICE, Attachment, Place, Ready

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from berth.network.foundation import Foundation
    from berth.network.ipam import Address
    from berth.network.records import EndpointRequest, NetworkRecord, SandboxRequest
    from berth.network.shaping import Shape

REMEMBERED = 1024  # interfaces, the last ones


def _shape(asked: EndpointRequest, network: NetworkRecord) -> Shape | None:
    shape = shaping.parse(network.options, asked.options)
    return shape if any(shape) else None


class Attachments:
    """Hands out places in networks."""

    def __init__(self, foundation: Foundation) -> None:
        self._base = foundation
        self._ends: dict[tuple[int, bytes], str] = {}  # who had a MAC on a bridge last

    def take_spare(self, asked: EndpointRequest, network: NetworkRecord) -> Ready | None:
        """Return a namespace that is connected already, if there is one and it may be any."""
        chosen = asked.address or asked.address6 or asked.link_local or asked.mac
        if chosen or asked.options or asked.earlier or _shape(asked, network):
            return None
        ready = self._base.stock.take(network.id)
        return ready if ready is not None and ready.attachment is not None else None

    def choose(
        self, asked: EndpointRequest, network: NetworkRecord, *, device: str, container_id: str
    ) -> Attachment:
        """Take an address of each version that the network has, those asked for if any.

        Neighbours remember the MAC of an address: one on a bridge whose addresses of the link stay keeps its
        MAC, too. (A macvlan refuses one that a dying namespace has.)
        """
        if network.id not in self._base.bridges:
            raise NotFound(f"network {network.name} not found")
        link_local = tuple(map(ipam.parse_link_local, asked.link_local))
        mac = ipam.parse_mac(asked.mac) if asked.mac else None
        if mac is None and link_local and network.bridge:
            mac = ipam.lasting_mac(container_id + network.id)
        shape, sysctls = _shape(asked, network), options.sysctls(asked.options, device)
        addresses = self._take_both(network, asked.address, asked.address6, asked.earlier)
        attachment = self._attachment(network, addresses, mac, device)
        return replace(attachment, link_local=link_local, shape=shape, sysctls=sysctls)

    def _take_both(
        self, network: NetworkRecord, asked: str, asked6: str, earlier: Collection[str] = ()
    ) -> tuple[Address | None, Address | None]:
        address = self._take(network, asked, earlier, version=4)
        try:
            return address, self._take(network, asked6, earlier, version=6)
        except BaseException:
            self.release(network, address)
            raise

    def _take(
        self, network: NetworkRecord, asked: str, earlier: Collection[str], *, version: int
    ) -> Address | None:
        if not (network.subnet if version == 4 else network.subnet6):
            return None
        pool = self._base.networks.pool(network, version=version)
        if not asked:
            if (free := pool.claim_any(earlier)) is not None:
                return free
            try:
                return pool.allocate()
            except Failed as error:
                if not self._give_up_spare(network):
                    raise Failed(f"{error.message}: {network.name} ({network.id})") from None
                return pool.allocate()
        address = ipam.parse_address(asked, version=version)
        pool.claim(address)
        return address

    def _give_up_spare(self, network: NetworkRecord) -> bool:
        """Let go of a spare, whose address is the last; say whether there was one."""
        ready = self._base.stock.take(network.id)
        if ready is None or ready.attachment is None:
            return False
        ready.close()
        self._base.guards.forget(ready.interface)
        self.release(network, *(place.address for place in ready.attachment.places))
        return True

    def release(self, network: NetworkRecord, *addresses: Address | None) -> None:
        """Give addresses back."""
        for address in addresses:
            if address is not None:
                self._base.networks.pool(network, version=address.version).release(address)

    def plan_spare(self, network: NetworkRecord) -> Callable[[], Ready]:
        """Take addresses for a spare; what is returned blocks and makes it."""
        addresses = self._take_both(network, "", "")
        attachment = self._attachment(network, addresses, None, FIRST_DEVICE)

        def make() -> Ready:
            try:
                return self.attach(attachment)
            except BaseException:
                self.release(network, *addresses)
                raise

        return make

    def restore(self, endpoint: EndpointRecord) -> None:
        """Let a running container go on to send, when all tables are set up next."""
        network = self._base.networks.get(endpoint.network_id)
        if network is not None and endpoint.interface:
            texts = (endpoint.address, endpoint.address6, *endpoint.link_local)
            packed = tuple(ip_address(text).packed for text in texts if text)
            try:
                index = socket.if_nametoindex(endpoint.interface)
            except OSError:  # its container ends this moment, and sends no more
                return
            guard = Guard(
                index,
                ipam.parse_mac(endpoint.mac),
                packed,
                is_free=not network.is_guarded,
                bridge=self._base.bridges.get(network.id, 0) if network.has_shortcuts else 0,
            )
            self._base.guards.restore(endpoint.interface, guard)

    # In the thread that changes the kernel

    def attach(self, attachment: Attachment) -> Ready:
        """Make a namespace with an interface that may send."""
        if attachment.is_crowded:
            bridges.widen_backlog()
        ready = self._base.wiring.attach(attachment)
        try:
            self._guard(ready.interface, attachment)
            self._shape(ready.interface, ready.netns_fd, attachment)
        except BaseException:
            ready.close()
            raise
        return ready

    def plug(self, netns_fd: int, attachment: Attachment) -> str:
        """Give a namespace one more interface that may send; return the name of the host's end."""
        interface = self._base.wiring.plug(netns_fd, attachment)
        try:
            self._guard(interface, attachment)
            self._shape(interface, netns_fd, attachment)
        except BaseException:
            self.unplug(interface, netns_fd=netns_fd, device=attachment.device)
            raise
        return interface

    def unplug(self, interface: str, *, netns_fd: int | None = None, device: str = "") -> None:
        """Take an interface away; one without a host's end inside."""
        self._base.guards.forget(interface)
        self._base.wiring.unplug(interface, netns_fd=netns_fd, device=device)

    def _replace(self, interface: str, place: tuple[int, bytes]) -> None:
        """Delete the one that had this MAC before, if somebody holds its namespace.

        The bridge knows the MAC there, until its new owner sends something by the bridge.
        """
        former = self._ends.pop(place, None)
        self._ends[place] = interface
        if len(self._ends) > REMEMBERED:
            del self._ends[next(iter(self._ends))]
        if former is not None and self._base.guards.is_forgotten(former):
            with suppress(OSError):  # it goes this moment by itself
                self._base.wiring.unplug(former)

    def _guard(self, interface: str, attachment: Attachment) -> None:
        if not interface:
            return
        self._replace(interface, (attachment.bridge_index, attachment.mac))
        own = [*(place.address for place in attachment.places), *attachment.link_local]
        packed = tuple(address.packed for address in own)
        index = socket.if_nametoindex(interface)
        guard = Guard(
            index,
            attachment.mac,
            packed,
            is_free=not attachment.is_guarded,
            bridge=attachment.bridge_index if attachment.has_shortcut else 0,
        )
        if rules := self._base.guards.add(interface, guard):
            self._base.table.change(rules, f"guard {interface}")

    def _shape(self, interface: str, netns_fd: int, attachment: Attachment) -> None:
        if attachment.shape is not None:
            self._base.wiring.shape(interface, netns_fd, attachment.device, attachment.shape)

    # Records

    def _attachment(
        self,
        network: NetworkRecord,
        addresses: tuple[Address | None, Address | None],
        mac: bytes | None,
        device: str,
    ) -> Attachment:
        places = [_place(network, found) for found in addresses if found is not None]
        pool = self._base.networks.pool
        crowd = [len(pool(network, version=place.address.version)) for place in places]
        return Attachment(
            device=device,
            bridge_index=self._base.bridges[network.id],
            mtu=network.mtu,
            places=tuple(places),
            is_guarded=network.is_guarded,
            has_shortcut=network.has_shortcuts,
            is_apart=not network.icc,
            is_crowded=max(crowd, default=0) > bridges.CROWD,
            kind=network.driver if network.parent else "veth",
            kind_data=uplinks.data_of(network) if network.parent else b"",
            routes_by_device=network.link_mode in ("l3", "l3s") and not network.internal,
            mac=mac
            or (ipam.parse_mac(ipam.mac_of(places[0].address)) if places else ipam.any_mac()),
        )


def _place(network: NetworkRecord, address: Address) -> Place:
    subnet = network.around(address)
    router = network.router(address)
    gateway = ip_address(router) if router else None
    return Place(address, ip_network(subnet.subnet).prefixlen, gateway)


def attached(
    record: EndpointRecord, attachment: Attachment, network: NetworkRecord
) -> EndpointRecord:
    """Return the record with what the attachment gives it."""
    fields: dict[str, object] = {}
    for place in attachment.places:
        suffix = "" if place.address.version == 4 else "6"
        fields[f"gateway{suffix}"] = gateway = network.router(place.address)
        bridge = network.around(place.address).gateway
        fields[f"host{suffix}"] = bridge if gateway != bridge and gateway else ""
        fields[f"address{suffix}"] = str(place.address)
        fields[f"prefix_length{suffix}"] = place.prefix_length
    return msgspec.structs.replace(
        record,
        device=attachment.device,
        link_local=tuple(map(str, attachment.link_local)),
        mac=attachment.mac.hex(":"),
        **fields,
    )


def new_endpoint(
    request: SandboxRequest, asked: EndpointRequest, network: NetworkRecord
) -> EndpointRecord:
    """Return the record of an endpoint that is about to be made."""
    return EndpointRecord(
        id=os.urandom(32).hex(),
        container_id=request.container_id,
        container_name=request.container_name,
        network_id=network.id,
        network_name=network.name,
        hostname=request.hostname,
        aliases=asked.aliases,
        links=asked.links,
        gateway_priority=asked.gateway_priority,
    )


def free_device(
    endpoints: Iterable[EndpointRecord], network: NetworkRecord, asked: EndpointRequest
) -> str:
    """Return the name of one more interface in a container."""
    if name := options.device_name(asked.options):
        return name
    taken, prefix = {endpoint.device for endpoint in endpoints}, network.device_prefix
    return next(name for n in range(len(taken) + 1) if (name := f"{prefix}{n}") not in taken)
