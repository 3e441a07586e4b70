"""Networks of containers: connect, disconnect, create, remove. The facade that the engine calls.

Decisions and records are made in the event loop's thread, between awaits, so they need no lock; what
blocks runs in one thread of its own. Records precede the effects they describe, and :meth:`open` mends
what a crash left between the two. Namespaces and veth pairs need no mending: nobody deletes them, they
die with the last process or descriptor.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from ipaddress import IPv4Network
from typing import TYPE_CHECKING, Protocol, TypeVar

import msgspec

from berth.errors import Conflict, Failed, Forbidden, InvalidArgument
from berth.network import firewall, ipam
from berth.network.networks import HOST, NONE, Networks
from berth.network.ports import PortRegistry, Reservation
from berth.network.records import EndpointRecord, NetworkRecord, Sandbox
from berth.network.stock import Stock
from berth.network.wiring import Attachment, Ready, Wiring

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from ipaddress import IPv4Address

    from berth.network.records import EndpointRequest, NetworkRequest
    from berth.state import State

log = logging.getLogger("berth")

Result = TypeVar("Result")

_NO_ADDRESS = "user specified IP address is supported on user defined networks only"


class Names(Protocol):
    """The names of kernel objects by which several engines on one machine stay apart."""

    @property
    def name(self) -> str:
        """The engine's; its first six characters are in the names of veth pairs."""

    @property
    def bridge(self) -> str:
        """The default network's bridge."""

    @property
    def table(self) -> str:
        """The nftables table."""


class _Held:
    """What this process holds for a connected container."""

    __slots__ = ("netns_fd", "reservation")

    def __init__(self, netns_fd: int | None, reservation: Reservation) -> None:
        self.netns_fd = netns_fd
        self.reservation = reservation


class NetworkService:
    """The networks of one engine. :meth:`open` comes first, :meth:`close` last."""

    def __init__(self, *, state: State, names: Names, spares: int = 2) -> None:
        """``spares`` is how many namespaces of each common kind are kept ready."""
        self._names = names
        self._networks = Networks(state)
        self._table = state.table("endpoints", EndpointRecord)
        self._endpoints = dict(self._table.items())
        self._ports = PortRegistry()
        self._held: dict[str, _Held] = {}
        self._bridges: dict[str, int] = {}  # network id → interface index
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="network")
        self._wiring: Wiring | None = None
        self._stock = Stock(self._thread, size=spares)

    # Life of the service

    async def open(self, running: Collection[str]) -> None:
        """Make or mend bridges and table; release what no running container owns."""
        self._wiring = wiring = await self._run(lambda: Wiring(prefix=f"bv{self._names.name[:6]}"))
        for container_id in [key for key in self._endpoints if key not in running]:
            del self._endpoints[container_id]
            self._table.remove(container_id)
        bridges = {network.bridge for network in self._networks.bridged()} | {self._names.bridge}
        occupied = await self._run(lambda: wiring.occupied(bridges))
        default = self._networks.default()
        movable = not self.endpoints(default.id)
        self._networks.settle_default(self._names.bridge, occupied=occupied, movable=movable)
        await self._run(wiring.enable_forwarding)
        for network in self._networks.bridged():
            self._bridges[network.id] = await self._run(partial(wiring.ensure_bridge, network))
        await self._restore(wiring)
        default = self._networks.default()
        self._stock.add(NONE, lambda: wiring.isolate)
        self._stock.add(default.id, lambda: self._plan_spare(wiring, default))
        self._stock.fill()

    async def _restore(self, wiring: Wiring) -> None:
        kept = list(self._endpoints.values())
        for endpoint in kept:
            bridge_index = self._bridges.get(endpoint.network_id)
            if bridge_index is None:
                continue
            network = self._networks.find(endpoint.network_id)
            self._networks.pool(network).restore(ipam.parse_address(endpoint.address))
            self._ports.restore(endpoint.ports)
            await self._run(partial(wiring.reattach, endpoint, bridge_index))
        rules = firewall.ruleset(self._names.table, self._networks.bridged(), kept)
        await self._run(lambda: wiring.apply(rules, f"set up nftables table {self._names.table}"))

    async def close(self, *, remove: bool = False) -> None:
        """Stop. Containers keep their networks, unless the engine is to leave nothing on the host."""
        await self._stock.close()
        if (wiring := self._wiring) is not None:
            if remove:
                await self._run(lambda: self._remove_all(wiring))
            await self._run(wiring.close)
            self._wiring = None
        for held in self._held.values():
            if held.netns_fd is not None:
                os.close(held.netns_fd)
            for sock in held.reservation.sockets:
                sock.close()
        self._held.clear()
        self._thread.shutdown()

    def _remove_all(self, wiring: Wiring) -> None:
        for network in self._networks.bridged():
            wiring.remove_bridge(network.bridge)
        wiring.apply(firewall.removal(self._names.table), "delete nftables table")

    # Containers

    async def connect(self, request: EndpointRequest) -> Sandbox:
        """Give a container its network; all or nothing. Failures have Docker's texts."""
        if request.container_id in self._endpoints:
            raise Conflict(f"container {request.container_id} is connected already")
        network = self._networks.find("bridge" if request.network == "default" else request.network)
        with self._stock.busy():
            if network.bridge:
                return await self._connect_bridge(request, network)
            return await self._connect_plain(request, network)

    async def _connect_plain(self, request: EndpointRequest, network: NetworkRecord) -> Sandbox:
        """Connect to ``host`` or ``none``; published ports are discarded, as Docker does."""
        if request.address:
            raise InvalidArgument(_NO_ADDRESS)
        record = _endpoint(request, network)
        self._endpoints[request.container_id] = record
        netns_fd = None
        try:
            if network.name != HOST:
                ready = self._stock.take(NONE) or await self._make(self._open_wiring().isolate)
                netns_fd = ready.netns_fd
        except BaseException as error:
            del self._endpoints[request.container_id]
            _reraise(error, "failed to set up container networking")
            raise
        self._put(record)
        return self._keep(record, _Held(netns_fd, Reservation()))

    async def _connect_bridge(self, request: EndpointRequest, network: NetworkRecord) -> Sandbox:
        wiring = self._open_wiring()
        ready, attachment = self._choose(request, network)
        record = _with_address(_endpoint(request, network), attachment, network)
        self._endpoints[request.container_id] = record
        held = _Held(None, Reservation())
        try:
            owner = f"{request.container_name} ({record.id})"
            held.reservation = self._ports.reserve(
                request.ports, endpoint=owner, address=record.address
            )
            ready = ready or await self._make(lambda: wiring.attach(attachment))
            held.netns_fd = ready.netns_fd
            record = msgspec.structs.replace(
                record, interface=ready.interface, ports=tuple(held.reservation.records)
            )
            self._put(record)
            if record.ports:
                rules = firewall.publish(self._names.table, record)
                await self._run(partial(wiring.publish, record.interface, rules))
        except BaseException as error:
            held.netns_fd = ready.netns_fd if ready else None
            self._held[request.container_id] = held
            await self.disconnect(request.container_id)
            _reraise(error, "failed to set up container networking")
            raise
        return self._keep(record, held)

    def _choose(
        self, request: EndpointRequest, network: NetworkRecord
    ) -> tuple[Ready | None, Attachment]:
        """Take a spare, or an address for a namespace to be made."""
        if not request.address and not request.mac:
            ready = self._stock.take(network.id)
            if ready is not None and ready.attachment is not None:
                return ready, ready.attachment
        if request.address and network.builtin:
            raise InvalidArgument(_NO_ADDRESS)
        mac = ipam.parse_mac(request.mac) if request.mac else None
        pool = self._networks.pool(network)
        if request.address:
            address = ipam.parse_address(request.address)
            pool.claim(address)
        else:
            address = pool.allocate()
        return None, self._attachment(network, address, mac)

    def _attachment(
        self, network: NetworkRecord, address: IPv4Address, mac: bytes | None
    ) -> Attachment:
        return Attachment(
            bridge_index=self._bridges[network.id],
            mtu=network.mtu,
            address=address,
            prefix_length=IPv4Network(network.subnet).prefixlen,
            gateway=None if network.internal else ipam.parse_address(network.gateway),
            mac=mac or ipam.parse_mac(ipam.mac_of(address)),
        )

    def _plan_spare(self, wiring: Wiring, network: NetworkRecord) -> Callable[[], Ready]:
        pool = self._networks.pool(network)
        attachment = self._attachment(network, pool.allocate(), None)

        def make() -> Ready:
            try:
                return wiring.attach(attachment)
            except BaseException:
                pool.release(attachment.address)
                raise

        return make

    def _put(self, record: EndpointRecord) -> None:
        self._endpoints[record.container_id] = record
        self._table.put(record.container_id, record)

    def _keep(self, record: EndpointRecord, held: _Held) -> Sandbox:
        self._held[record.container_id] = held
        return Sandbox(netns_fd=held.netns_fd, endpoints=(record,), keep_fds=held.reservation.fds())

    async def adopt(self, container_id: str, *, pid: int | None = None) -> Sandbox | None:
        """Return what a container has that went on while berthd did not; None when it has nothing.

        With the ``pid`` of its first process its namespace is opened. Its ports are held by its monitor.
        """
        record = self._endpoints.get(container_id)
        if record is None:
            return None
        held = self._held.get(container_id)
        if held is None:
            netns_fd = None
            if pid is not None and record.network_name != HOST:
                netns_fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
            held = _Held(netns_fd, Reservation())
        return self._keep(record, held)

    async def disconnect(self, container_id: str) -> None:
        """Release a container's addresses and ports; nothing when it has none."""
        record = self._endpoints.pop(container_id, None)
        held = self._held.pop(container_id, None)
        try:
            if record is not None and record.ports and (wiring := self._wiring) is not None:
                rules = firewall.unpublish(self._names.table, record)
                await self._run(lambda: wiring.apply(rules, "close ports"))
        except FileNotFoundError as error:
            log.warning(
                "ports of container %s were closed by somebody else: %s", container_id, error
            )
        finally:
            if held is not None:
                if held.netns_fd is not None:
                    os.close(held.netns_fd)
                self._ports.release(held.reservation)
            if record is not None:
                self._release(record)

    def _release(self, record: EndpointRecord) -> None:
        self._table.remove(record.container_id)
        self._ports.forget(record.ports)
        if record.address:
            network = self._networks.find(record.network_id)
            self._networks.pool(network).release(ipam.parse_address(record.address))

    # Networks

    def networks(self) -> list[NetworkRecord]:
        """Return every network, the oldest first; bridge, host and none always exist."""
        return self._networks.all()

    def inspect(self, reference: str) -> NetworkRecord:
        """Return the network with this name, id or start of an id; NotFound otherwise."""
        return self._networks.find(reference)

    def endpoints(self, network_id: str) -> list[EndpointRecord]:
        """Return the endpoints of running containers in a network."""
        return [e for e in self._endpoints.values() if e.network_id == network_id]

    def endpoint(self, container_id: str) -> EndpointRecord | None:
        """Return a running container's endpoint."""
        return self._endpoints.get(container_id)

    async def create(self, request: NetworkRequest) -> NetworkRecord:
        """Make a bridge network; all or nothing."""
        wiring = self._open_wiring()
        own = [network.bridge for network in self._networks.bridged()]
        occupied = await self._run(lambda: wiring.occupied(own))
        network = self._networks.create(request, occupied=occupied)
        try:
            if await self._run(lambda: wiring.has_link(network.bridge)):
                raise Conflict(
                    f"create bridge {network.bridge}: an interface has this name already"
                )
            self._bridges[network.id] = await self._run(lambda: wiring.ensure_bridge(network))
            rules = firewall.add_network(self._names.table, network)
            await self._run(lambda: wiring.apply(rules, "add network to nftables"))
        except BaseException as error:
            self._networks.remove(network)
            if self._bridges.pop(network.id, None) is not None:
                await self._run(lambda: wiring.remove_bridge(network.bridge))
            _reraise(error, f"create network {network.name}")
            raise
        return network

    async def remove(self, reference: str) -> NetworkRecord:
        """Remove a network that no container is in; return what it was."""
        network = self._networks.find(reference)
        if network.builtin:
            raise Forbidden(f"{network.name} is a pre-defined network and cannot be removed")
        if self.endpoints(network.id):
            raise Forbidden(
                f"error while removing network: network {network.name} id {network.id} has active endpoints"
            )
        wiring = self._open_wiring()
        rules = firewall.remove_network(self._names.table, network)
        try:
            await self._run(lambda: wiring.apply(rules, "take network out of nftables"))
        except FileNotFoundError as error:
            log.warning("network %s was taken out by somebody else: %s", network.name, error)
        await self._run(lambda: wiring.remove_bridge(network.bridge))
        self._networks.remove(network)
        self._bridges.pop(network.id, None)
        return network

    def _open_wiring(self) -> Wiring:
        assert self._wiring is not None, "the service is not open"
        return self._wiring

    async def _make(self, work: Callable[[], Ready]) -> Ready:
        return await self._run(work, undo=Ready.close)

    async def _run(
        self, work: Callable[[], Result], *, undo: Callable[[Result], None] | None = None
    ) -> Result:
        """Run ``work`` in the thread to its end; ``undo`` what it made for one who was cancelled."""
        future = asyncio.get_running_loop().run_in_executor(self._thread, work)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])
            if undo is not None and future.exception() is None:
                undo(future.result())
            raise


def _reraise(error: BaseException, intent: str) -> None:
    """Raise what the kernel refused as one of our kinds; leave others to the caller."""
    if isinstance(error, OSError):
        raise Failed(f"{intent}: {error.strerror}") from error


def _endpoint(request: EndpointRequest, network: NetworkRecord) -> EndpointRecord:
    return EndpointRecord(
        id=secrets.token_hex(32),
        container_id=request.container_id,
        container_name=request.container_name,
        network_id=network.id,
        network_name=network.name,
        hostname=request.hostname,
    )


def _with_address(
    record: EndpointRecord,
    attachment: Attachment,
    network: NetworkRecord,
) -> EndpointRecord:
    return msgspec.structs.replace(
        record,
        address=str(attachment.address),
        prefix_length=attachment.prefix_length,
        gateway="" if network.internal else network.gateway,
        mac=attachment.mac.hex(":"),
    )
