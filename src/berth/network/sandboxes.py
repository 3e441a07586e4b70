"""The network namespaces of running containers, their endpoints and published ports.

Decisions and records are made in the event loop's thread, between awaits, so they need no lock; what
blocks runs in the thread for that. Records precede the effects they describe. Namespaces and veth pairs
need no mending after a crash: nobody deletes them, they die with the last process or descriptor.
"""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING

import msgspec

from berth.errors import Conflict, Failed, Forbidden, InvalidArgument, NotFound
from berth.network import ipam
from berth.network.attachments import attached, free_device, new_endpoint
from berth.network.held import Held
from berth.network.networks import HOST
from berth.network.publishing import Publishing
from berth.network.records import EndpointRecord, Sandbox, leaders
from berth.network.wiring import Ready

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from berth.network.attachments import Attachments
    from berth.network.foundation import Foundation
    from berth.network.ipam import Address
    from berth.network.records import EndpointRequest, NetworkRecord, SandboxRequest
    from berth.network.shaping import Shape
    from berth.network.wiring import Attachment

SETUP_FAILED = "failed to set up container networking"


class Sandboxes:
    """Who is connected to what."""

    def __init__(self, foundation: Foundation, attachments: Attachments) -> None:
        self._base = foundation
        self._attachments = attachments
        self._table = foundation.state.table("endpoints", EndpointRecord)
        self._endpoints: dict[str, dict[str, EndpointRecord]] = {}  # by container, by network
        self.version = 0  # another with every change of an endpoint
        stored = [record for _, record in self._table.items()]
        for record in sorted(stored, key=lambda record: record.device):
            self._set(record)
        self._publishing = Publishing(foundation, put=self._put, of=self.of)
        self._held: dict[str, Held] = {}
        self._cut: set[str] = set()  # endpoints without a pair: killed while they were disconnected

    # What there is

    def all(self) -> list[EndpointRecord]:
        """Return every endpoint. From another thread too: copies are made in one step."""
        return [e for found in list(self._endpoints.values()) for e in list(found.values())]

    def in_network(self, network_id: str) -> list[EndpointRecord]:
        """Return the endpoints in a network."""
        return [found[network_id] for found in self._endpoints.values() if network_id in found]

    def of(self, container_id: str) -> tuple[EndpointRecord, ...]:
        """Return a running container's endpoints, in the order in which it got them."""
        return tuple(self._endpoints.get(container_id, {}).values())

    def _set(self, record: EndpointRecord) -> None:
        self._endpoints.setdefault(record.container_id, {})[record.network_id] = record
        self.version += 1

    def _unset(self, record: EndpointRecord) -> None:
        found = self._endpoints[record.container_id]
        del found[record.network_id]
        if not found:
            del self._endpoints[record.container_id]
        self.version += 1

    # Life

    def retain(self, running: Collection[str]) -> None:
        """Forget the endpoints of containers that do not run any more."""
        for endpoint in self.all():
            if endpoint.container_id not in running:
                self._unset(endpoint)
                self._table.remove(endpoint.id)

    async def restore(self, running: Collection[str]) -> None:
        """Take the addresses and ports of what runs, and mend its links."""
        for endpoint in self.all():
            network = self._base.networks.get(endpoint.network_id)
            if network is None or not network.has_members:
                continue
            for address in _addresses(endpoint):
                pool = self._base.networks.pool(network, version=address.version)
                pool.restore(address)
            self._publishing.registry.restore(endpoint.ports, owner=endpoint.container_name)
            index = self._base.bridges.get(network.id)
            if endpoint.interface and index is not None:
                reattach = partial(self._base.wiring.reattach, is_apart=not network.icc)
                if not await self._base.thread.run(partial(reattach, endpoint, index)):
                    self._cut.add(endpoint.id)
        for endpoint in self.all():
            self._attachments.restore(endpoint)
        if running:
            known = {endpoint.interface for endpoint in self.all()}
            await self._base.thread.run(partial(self._base.wiring.sweep, known))

    def close(self) -> None:
        """Let go of what is held; containers keep their networks."""
        for held in self._held.values():
            held.close()
            for sock in held.reservation.sockets:
                sock.close()
        self._held.clear()

    # Connect

    async def connect(self, request: SandboxRequest) -> Sandbox:
        """Give a container its networks; all or nothing. Failures have Docker's texts."""
        if request.container_id in self._held:
            raise Conflict(f"container {request.container_id} is connected already")
        held = self._held[request.container_id] = Held(request)
        try:
            networks = self._base.networks
            found = [(asked, networks.enterable(asked.network)) for asked in request.endpoints]
            if found and all(network.has_members for _, network in found):
                await self._connect_bridges(held, found)
            else:
                await self._connect_plain(held, found)
        except BaseException as error:
            await self.disconnect(request.container_id)
            if isinstance(error, OSError):
                raise Failed(f"{SETUP_FAILED}: {error.strerror}") from error
            raise
        return self._sandbox(request.container_id)

    async def _connect_plain(
        self, held: Held, found: Sequence[tuple[EndpointRequest, NetworkRecord]]
    ) -> None:
        """Connect to ``host``, ``none`` or nothing; published ports are discarded, as Docker does.

        The namespace is made with the process: nothing has to be put into it.
        """
        if not found:
            return
        (asked, network), *others = found
        if others:
            raise InvalidArgument(
                "container cannot be connected to multiple networks with one of the networks in"
                " private (none) mode"
            )
        self._put(new_endpoint(held.request, asked, network))

    async def _connect_bridges(
        self, held: Held, found: Sequence[tuple[EndpointRequest, NetworkRecord]]
    ) -> None:
        ready: Ready | None = None
        attachments: list[Attachment] = []
        records: list[EndpointRecord] = []
        for asked, network in found:
            record = new_endpoint(held.request, asked, network)
            device = free_device(records, network, asked)
            if len(found) == 1 and held.netns_fd is None:
                ready = self._attachments.take_spare(asked, network)
            if ready is not None and ready.attachment is not None:
                held.netns_fd = ready.netns_fd
                attachment = ready.attachment
            else:
                attachment = self._attachments.choose(
                    asked, network, device=device, container_id=record.container_id
                )
            record = attached(record, attachment, network)
            self._set(record)  # from here on its address is released with it
            attachments.append(attachment)
            records.append(record)
        if ready is None:
            records = await self._make(held, records, attachments)
        else:
            records = [msgspec.structs.replace(records[0], interface=ready.interface)]
        for record in records:
            self._put(record)
        await self._publishing.publish(held, 4, 6)
        await self._serve_names(held)

    async def _make(
        self, held: Held, records: Sequence[EndpointRecord], attachments: Sequence[Attachment]
    ) -> list[EndpointRecord]:
        """Make the namespace with all its interfaces."""
        make, out = self._attachments, leaders(records)
        planned = [
            attachment.leading(*(version for version, leader in out.items() if leader is record))
            for record, attachment in zip(records, attachments, strict=True)
        ]
        interfaces = []
        if held.netns_fd is None:
            first = await self._base.thread.run(partial(make.attach, planned[0]), undo=Ready.close)
            held.netns_fd = first.netns_fd
            interfaces.append(first.interface)
        else:
            await self._base.thread.run(partial(self._base.wiring.furnish, held.netns_fd))
        for attachment in planned[len(interfaces) :]:
            work = partial(make.plug, held.netns_fd, attachment)
            interfaces.append(await self._base.thread.run(work))
        return [
            msgspec.structs.replace(record, interface=interface)
            for record, interface in zip(records, interfaces, strict=True)
        ]

    async def _serve_names(self, held: Held) -> None:
        """Answer the container's questions for names, once it is in a network that has some."""
        endpoints = self.of(held.request.container_id)
        if (
            held.resolver is None
            and held.netns_fd is not None
            and any(map(self._base.has_names, endpoints))
        ):
            resolvers = self._base.resolvers
            held.names = held.names or await resolvers.listen(held.netns_fd)
            held.resolver = resolvers.open(
                held.names,
                held.netns_fd,
                container_id=held.request.container_id,
                servers=held.request.servers,
            )

    def _put(self, record: EndpointRecord) -> None:
        self._set(record)
        self._table.put(record.id, record)

    def _sandbox(self, container_id: str) -> Sandbox:
        held = self._held[container_id]
        return Sandbox(
            netns_fd=held.netns_fd if held.request.own_netns_fd is None else None,
            endpoints=self.of(container_id),
            resolves=held.resolver is not None,
        )

    def has_released(self, container_id: str) -> bool:
        """Say whether a container's monitor keeps what is no more."""
        held = self._held.get(container_id)
        return held is not None and held.has_released

    def unkept(self, container_id: str) -> tuple[int, ...]:
        """Return the descriptors that a container's monitor is to keep and does not have yet."""
        held = self._held.get(container_id)
        return held.unkept() if held is not None else ()

    async def adopt(
        self,
        request: SandboxRequest,
        *,
        open_namespace: Callable[[], int] | None = None,
        kept: Collection[int] = (),
    ) -> Sandbox | None:
        """Return what a container has that went on while berthd did not; None when it has nothing.

        ``kept`` is what its monitor kept.
        """
        endpoints = self.of(request.container_id)
        is_gone = not endpoints and open_namespace is None
        if is_gone or request.container_id in self._held:
            for fd in kept:
                os.close(fd)
        if is_gone:
            return None
        if request.container_id not in self._held:
            held = Held(request)
            held.restore(kept, (port for endpoint in endpoints for port in endpoint.ports))
            if open_namespace is not None and all(e.network_name != HOST for e in endpoints):
                held.netns_fd = open_namespace()
            held.reservation.sockets += self._publishing.registry.hold(held.reservation.records)
            self._held[request.container_id] = held
            asked = {place.network for place in request.endpoints}
            for endpoint in endpoints:
                # Killed while it was connected, before the container's record said so, or disconnected.
                is_new = asked.isdisjoint((endpoint.network_id, endpoint.network_name))
                if is_new or endpoint.id in self._cut:
                    await self._drop(held, endpoint)
            await self._publishing.resume(held)
            await self._serve_names(held)
        return self._sandbox(request.container_id)

    async def disconnect(self, container_id: str, *, is_shared: bool = False) -> None:
        """Release addresses and ports; ``is_shared``: also interfaces, for others stay in the namespace."""
        endpoints = self.of(container_id)
        held = self._held.pop(container_id, None)
        for endpoint in endpoints:
            self._unset(endpoint)
        try:
            await self._publishing.close(*endpoints)
            for endpoint in endpoints if is_shared else ():
                await self._unplug(held, endpoint)
        finally:
            if held is not None:
                held.close()
                self._publishing.registry.release(held.reservation)
            for endpoint in endpoints:
                self._publishing.registry.forget(endpoint.ports)
                self._release(endpoint)

    def _release(self, endpoint: EndpointRecord) -> None:
        self._base.guards.forget(endpoint.interface)
        self._table.remove(endpoint.id)
        network = self._base.networks.get(endpoint.network_id)
        if network is not None:
            self._attachments.release(network, *_addresses(endpoint))

    # Changes while a container runs

    async def attach(
        self,
        container_id: str,
        asked: EndpointRequest,
        open_namespace: Callable[[], int] | None = None,
    ) -> Sandbox:
        """Connect a running container to one more network, or one that was in none to its first."""
        held = self._of_running(container_id)
        network = self._base.networks.enterable(asked.network)
        endpoints = self.of(container_id)
        if any(endpoint.network_id == network.id for endpoint in endpoints):
            raise Forbidden(
                f"endpoint with name {held.request.container_name} already exists in network {network.name}"
            )
        device = free_device(endpoints, network, asked)
        attachment = self._attachments.choose(
            asked, network, device=device, container_id=container_id
        )
        record = attached(new_endpoint(held.request, asked, network), attachment, network)
        self._set(record)
        before = leaders(endpoints)
        try:
            if held.netns_fd is None:
                assert open_namespace is not None
                held.netns_fd = open_namespace()
                await self._base.thread.run(partial(self._base.wiring.furnish, held.netns_fd))
            make, plan = self._attachments, attachment.leading()
            interface = await self._base.thread.run(
                partial(make.plug, held.netns_fd, plan), undo=make.unplug
            )
            self._put(msgspec.structs.replace(record, interface=interface))
            await self._lead_out(held, before)
            await self._serve_names(held)
        except BaseException as error:
            await self._drop(held, self._endpoints[container_id][network.id])
            if isinstance(error, OSError):
                raise Failed(f"{SETUP_FAILED}: {error.strerror}") from error
            raise
        return self._sandbox(container_id)

    async def detach(self, container_id: str, network: NetworkRecord) -> EndpointRecord | None:
        """Disconnect a running container from a network; return the endpoint that it had there, if any."""
        held = self._of_running(container_id)
        endpoint = self._endpoints.get(container_id, {}).get(network.id)
        if endpoint is not None:
            await self._drop(held, endpoint)
        return endpoint

    async def _drop(self, held: Held, endpoint: EndpointRecord) -> None:
        before = leaders(self.of(endpoint.container_id))
        await self._unplug(held, endpoint)
        self._unset(endpoint)
        await self._lead_out(held, before)
        self._release(endpoint)

    async def _unplug(self, held: Held | None, endpoint: EndpointRecord) -> None:
        unplug, fd = self._attachments.unplug, held.netns_fd if held is not None else None
        work = partial(unplug, endpoint.interface, netns_fd=fd, device=endpoint.device)
        await self._base.thread.run(work)

    async def _lead_out(self, held: Held, before: dict[int, EndpointRecord]) -> None:
        """Lead the container out, and its ports in, by the endpoints that are to do so now."""
        now = leaders(self.of(held.request.container_id))
        if {v: e.id for v, e in before.items()} == {v: e.id for v, e in now.items()}:
            return
        for version, endpoint in now.items():
            led = before.get(version)
            if held.netns_fd is not None and (led is None or led.id != endpoint.id):
                text = endpoint.gateway if version == 4 else endpoint.gateway6
                gateway = ipam.parse_address(text, version=version)
                place, lead_out = (held.netns_fd, endpoint.device), self._base.wiring.lead_out
                await self._base.thread.run(partial(lead_out, *place, gateway))
        closed = {e.id: e for e in before.values() if e.ports}.values()
        for endpoint in closed:
            if endpoint in self.of(endpoint.container_id):
                self._put(msgspec.structs.replace(endpoint, ports=()))
        await self._publishing.close(*closed)
        await self._publishing.follow(held)

    async def shape(self, container_id: str, network: NetworkRecord, shape: Shape) -> None:
        """Shape what a running container sends to and gets from a network."""
        held = self._of_running(container_id)
        endpoint = self._endpoints.get(container_id, {}).get(network.id)
        if endpoint is None or held.netns_fd is None:
            raise NotFound(f"container {container_id} is not connected to network {network.name}")
        place = (endpoint.interface, held.netns_fd, endpoint.device)
        try:
            await self._base.thread.run(partial(self._base.wiring.shape, *place, shape))
        except OSError as error:
            raise Failed(f"shape {endpoint.device}: {error.strerror}") from error

    def _of_running(self, container_id: str) -> Held:
        held = self._held.get(container_id)
        if held is None:
            raise Conflict(f"container {container_id} is not running")
        return held

    def rename(self, container_id: str, name: str) -> None:
        """Call a running container by another name from now on."""
        for endpoint in self.of(container_id):
            self._put(msgspec.structs.replace(endpoint, container_name=name))
        if held := self._held.get(container_id):
            held.request = replace(held.request, container_name=name)


def _addresses(endpoint: EndpointRecord) -> list[Address]:
    return [ip_address(text) for text in (endpoint.address, endpoint.address6) if text]
