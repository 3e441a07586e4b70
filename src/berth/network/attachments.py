"""Which address, MAC and interface a container gets in a network. Blocks for nothing."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import TYPE_CHECKING

from berth.errors import InvalidArgument, NotFound
from berth.network import ipam
from berth.network.wiring import FIRST_DEVICE, Attachment, Ready

if TYPE_CHECKING:
    from collections.abc import Callable
    from ipaddress import IPv4Address

    from berth.network.foundation import Foundation
    from berth.network.records import EndpointRequest, NetworkRecord


class Attachments:
    """Hands out places in networks."""

    def __init__(self, foundation: Foundation) -> None:
        self._base = foundation

    def take_spare(self, asked: EndpointRequest, network: NetworkRecord) -> Ready | None:
        """Return a namespace that is connected already, if there is one and it may be any."""
        if asked.address or asked.mac:
            return None
        ready = self._base.stock.take(network.id)
        return ready if ready is not None and ready.attachment is not None else None

    def choose(self, asked: EndpointRequest, network: NetworkRecord, *, device: str) -> Attachment:
        """Take an address, the one asked for if any."""
        if asked.address and network.builtin:
            raise InvalidArgument(
                "user specified IP address is supported on user defined networks only"
            )
        if asked.address and not network.own_subnet:
            raise InvalidArgument(
                "user specified IP address is supported only when connecting to networks with user"
                " configured subnets"
            )
        if network.id not in self._base.bridges:
            raise NotFound(f"network {network.name} not found")
        mac = ipam.parse_mac(asked.mac) if asked.mac else None
        pool = self._base.networks.pool(network)
        if asked.address:
            address = ipam.parse_address(asked.address)
            pool.claim(address)
        else:
            address = pool.allocate()
        return self._attachment(network, address, mac, device)

    def plan_spare(self, network: NetworkRecord) -> Callable[[], Ready]:
        """Take an address for a spare; what is returned blocks and makes it."""
        wiring, pool = self._base.wiring, self._base.networks.pool(network)
        attachment = self._attachment(network, pool.allocate(), None, FIRST_DEVICE)

        def make() -> Ready:
            try:
                return wiring.attach(attachment)
            except BaseException:
                pool.release(attachment.address)
                raise

        return make

    def _attachment(
        self, network: NetworkRecord, address: IPv4Address, mac: bytes | None, device: str
    ) -> Attachment:
        return Attachment(
            device=device,
            bridge_index=self._base.bridges[network.id],
            mtu=network.mtu,
            address=address,
            prefix_length=IPv4Network(network.subnet).prefixlen,
            gateway=None if network.internal else ipam.parse_address(network.gateway),
            mac=mac or ipam.parse_mac(ipam.mac_of(address)),
        )
