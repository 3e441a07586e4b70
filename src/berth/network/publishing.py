"""Published ports of running containers: reserved on the host, open at the endpoints that lead out."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from berth.errors import BerthError
from berth.network import firewall, flows
from berth.network.ports import ANY, Inside, PortRegistry
from berth.network.records import ROUTED, leaders

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from berth.network.foundation import Foundation
    from berth.network.held import Held
    from berth.network.records import EndpointRecord, PortRequest


log = logging.getLogger("berth")


class Publishing:
    """``put`` records an endpoint, ``of`` returns those of a container."""

    def __init__(
        self,
        foundation: Foundation,
        *,
        put: Callable[[EndpointRecord], None],
        of: Callable[[str], Sequence[EndpointRecord]],
    ) -> None:
        self._base = foundation
        self._put = put
        self._of = of
        self.registry = PortRegistry()

    async def publish(self, held: Held, *versions: int) -> None:
        """Reserve and open the container's ports at the endpoints that lead out by these versions of IP."""
        request = held.request
        out = leaders(self._of(request.container_id))
        four, six = (out.get(version) if version in versions else None for version in (4, 6))
        four, six = (e if e is not None and e.interface else None for e in (four, six))
        first = four or six
        if first is None or not request.ports:
            return
        reservation = self.registry.reserve(
            self._bound(request.ports, first),
            {v: self._inside(e, v) for v, e in ((4, four), (6, six)) if e is not None},
            endpoint=f"{request.container_name} ({first.id})",
        )
        held.reservation.records += reservation.records
        held.reservation.sockets += reservation.sockets
        await self.open(held)

    def _inside(self, endpoint: EndpointRecord, version: int) -> Inside:
        network = self._base.networks.get(endpoint.network_id)
        is_routed = network is not None and network.mode_of(version) == ROUTED
        return Inside(endpoint.address if version == 4 else endpoint.address6, is_routed=is_routed)

    def _bound(
        self, ports: Sequence[PortRequest], endpoint: EndpointRecord
    ) -> Sequence[PortRequest]:
        """Return the ports, at the address that the network has for those without one."""
        network = self._base.networks.get(endpoint.network_id)
        if network is None or network.binding in ("", ANY):
            return ports
        return [replace(p, host_ip=network.binding) if not p.host_ip else p for p in ports]

    async def follow(self, held: Held) -> None:
        """Publish by the versions of IP that lead out now; others may have the ports of those that do not."""
        out = leaders(self._of(held.request.container_id)).keys()
        reserved = {port.version for port in held.reservation.records}
        if lost := reserved - out:
            self.registry.release(held.give_up(*lost))
        if missing := out - reserved:
            await self.publish(held, *missing)
        await self.open(held)

    async def resume(self, held: Held) -> None:
        """Publish what is not, since berthd was killed while another endpoint began to lead out."""
        out = leaders(self._of(held.request.container_id)).keys()
        if held.request.ports and out - {port.version for port in held.reservation.records}:
            try:
                await self.follow(held)
            except (OSError, BerthError) as error:
                log.warning("container %s: %s", held.request.container_name, error)

    async def open(self, held: Held) -> None:
        """Open all reserved ports, each at the endpoint that leads out by its version of IP."""
        out = leaders(self._of(held.request.container_id))
        opened = []
        for endpoint in {leader.id: leader for leader in out.values()}.values():
            if not endpoint.interface:  # the host has no part in what goes to and from it
                continue
            ports = [p for p in held.reservation.records if out.get(p.version) is endpoint]
            if ports:
                opened.append(msgspec.structs.replace(endpoint, ports=tuple(ports)))
        for endpoint in opened:
            self._put(endpoint)
        rules = firewall.publish(self._base.names.table, *opened)

        def work() -> None:
            for endpoint in opened:
                self._base.wiring.set_hairpin(endpoint.interface)
            self._base.table.change(rules, "publish ports")
            flows.forget((port for e in opened for port in e.ports), way=self._base.detour)

        if opened:
            await self._base.thread.run(work)

    async def close(self, *endpoints: EndpointRecord) -> None:
        """Close the ports of endpoints that have no record any more, or none of them."""
        rules = firewall.unpublish(self._base.names.table, *endpoints)

        def work() -> None:
            self._base.table.change(rules, "close ports")
            flows.forget((port for e in endpoints for port in e.ports), way=self._base.detour)

        if rules:
            await self._base.thread.run(work)
