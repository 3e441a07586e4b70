"""Networks of containers: connect, disconnect, create, remove. The facade that the engine calls.

Decisions and records are made in the event loop's thread, between awaits, so they need no lock; what
blocks runs in one thread of its own. Records precede the effects they describe, and :meth:`open` mends
what a crash left between the two.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING

from berth.errors import BerthError, Failed, Forbidden, NotFound
from berth.kernel import nftables
from berth.network import borrowed, bridges, choosing, configurations, firewall, shaping, table
from berth.network.attachments import Attachments
from berth.network.detour import GATEWAYS
from berth.network.foundation import Foundation
from berth.network.guards import Guards
from berth.network.ipam import Plan
from berth.network.kernelthread import KernelThread
from berth.network.networks import Networks
from berth.network.resolver import Resolvers
from berth.network.sandboxes import Sandboxes
from berth.network.shortcuts import Shortcuts
from berth.network.stock import Stock
from berth.network.watch import Watch
from berth.network.wiring import Wiring

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from berth.kernel.netlink import Message
    from berth.network.detour import Detour
    from berth.network.foundation import Names
    from berth.network.records import (
        EndpointRecord,
        EndpointRequest,
        NetworkRecord,
        NetworkRequest,
        Sandbox,
        SandboxRequest,
    )
    from berth.state import State


log = logging.getLogger("berth")


class NetworkService:
    """The networks of one engine. :meth:`open` comes first, :meth:`close` last."""

    def __init__(
        self, *, state: State, names: Names, plan: Plan | None = None, spares: int = 2
    ) -> None:
        """``spares`` is how many namespaces of each common kind are kept ready."""
        self._plan = plan = plan or Plan()
        thread = KernelThread()
        self._base = base = Foundation(
            state=state,
            names=names,
            networks=Networks(state, plan),
            thread=thread,
            stock=Stock(thread, size=spares),
        )
        self._networks = base.networks
        self._attachments = Attachments(base)
        self._sandboxes = Sandboxes(base, self._attachments)
        self._turn = asyncio.Lock()  # one network is made at a time
        self._leaving: set[str] = set()  # networks that are being removed
        self._is_open = False
        self._watch: Watch | None = None

    # Life of the service

    async def open(self, running: Collection[str]) -> None:
        """Make or mend bridges and table; release what no running container owns."""
        base = self._base
        await base.thread.run(self._open_kernel)
        self._is_open = True
        base.resolvers = Resolvers(base, self._sandboxes)
        self._sandboxes.retain(running)
        async with choosing.alone():
            await self._settle_default()
            await base.thread.run(base.wiring.enable_forwarding)
            for network in (*self._networks.bridged(), *self._networks.uplinked()):
                await self._mend(network)
        await self._sandboxes.restore(running)
        await base.thread.run(base.table.replace)
        self._watch = await Watch.open(base)
        default = self._networks.default()
        base.stock.add(default.id, lambda: self._attachments.plan_spare(default))
        base.stock.fill()

    async def _settle_default(self) -> None:
        base, told, former = self._base, self._plan.bridge, self._networks.default()
        bridge = told or base.names.bridge
        own = {network.bridge for network in self._networks.bridged()} | {bridge}
        occupied = await base.thread.run(lambda: base.wiring.occupied(own))
        look = partial(base.wiring.bridge_addresses, told)
        present = await base.thread.run(look) if told else ()
        movable = not self.endpoints(former.id)
        if movable and former.bridge not in ("", bridge):
            await base.thread.run(partial(self._remove_interface, former))
        self._networks.settle_default(bridge, occupied=occupied, movable=movable, present=present)

    async def _mend(self, network: NetworkRecord) -> None:
        base = self._base
        try:
            network = await self._borrow(network)
            base.bridges[network.id] = await base.thread.run(partial(self._ensure, network))
        except (OSError, BerthError) as error:
            if network.builtin:
                raise
            log.warning("network %s cannot be used: %s", network.name, error)

    async def _borrow(self, network: NetworkRecord) -> NetworkRecord:
        """Record what is switched on next at a bridge of somebody else's."""
        is_new = await self._base.thread.run(partial(borrowed.will_switch_on, network))
        return self._networks.borrow(network) if is_new else network

    def _remove_interface(self, network: NetworkRecord) -> None:
        """Delete what was made on the host for a network, put back what was changed: what no other uses."""
        place = (network.bridge, network.parent)
        left = {network.id, *self._leaving}
        others = (other for other in self._networks.all() if other.id not in left)
        if any((other.bridge, other.parent) == place for other in others):
            return
        self._base.wiring.remove_network(network)
        if network.is_borrowed:
            borrowed.put_back(network, self._base.names.table)

    def _ensure(self, network: NetworkRecord) -> int:
        index = self._base.wiring.ensure_network(network)
        if network.bridge and network.is_ours:
            self._base.shortcuts.clear(index)
        return index

    def _open_kernel(self) -> None:
        base = self._base
        name, prefix = base.names.table, f"bv{base.names.name[:6]}"
        base.wiring = Wiring(prefix=prefix, forwards=self._plan.forwards)
        self._tables = firewall.tables(name, has_ipv6=bridges.has_ipv6())
        base.detour = self._make_detour()
        for_bridges = self._bridge_table(name)
        base.shortcuts = Shortcuts()
        base.guards = Guards(for_bridges, prefix=prefix, shortcuts=base.shortcuts)
        base.table = table.Table(
            name,
            tables=[*self._tables, *([for_bridges] if for_bridges else [])],
            whole=self._ruleset,
        )

    def _make_detour(self) -> Detour | None:
        index = nftables.duplicate(GATEWAYS[4], 1)
        if not table.is_possible(nftables.IPV4, index, hook=nftables.INPUT):
            log.warning(
                "the kernel cannot copy packets (nft_dup_ipv4): the host's rules for input do not hold for"
                " published ports"
            )
            return None
        return self._base.wiring.ensure_detour(self._base.names.name)

    def _bridge_table(self, name: str) -> nftables.Table | None:
        rule = (nftables.meta(nftables.META_IIFNAME), nftables.verdict(nftables.ACCEPT))
        if not table.is_possible(nftables.BRIDGE, *rule):
            log.warning(
                "the kernel has no nftables for bridges: containers may use each other's addresses"
            )
            return None
        return nftables.Table(name, nftables.BRIDGE)

    def _ruleset(self) -> list[Message]:
        base, endpoints = self._base, self._sandboxes.all()
        networks = [network for network in self._networks.bridged() if network.id in base.bridges]
        if base.detour is not None:  # somebody who flushed rules may have deleted it, too
            base.detour = base.wiring.ensure_detour(base.names.name)
        rules = firewall.ruleset(self._tables, networks, endpoints, base.detour)
        return rules + base.guards.ruleset()

    async def close(self, *, remove: bool = False) -> None:
        """Stop. Containers keep their networks, unless the engine is to leave nothing on the host."""
        base = self._base
        await base.stock.close()
        if self._watch is not None:
            await self._watch.close()
        self._sandboxes.close()
        if self._is_open:
            if remove:
                await base.thread.run(self._remove_all)
            await base.thread.run(base.table.close)
            await base.thread.run(base.shortcuts.close)
            await base.thread.run(base.wiring.close)
            self._is_open = False
        base.thread.close()

    def _remove_all(self) -> None:
        networks = (*self._networks.bridged(), *self._networks.uplinked())
        self._leaving.update(network.id for network in networks)
        for network in networks:
            self._remove_interface(network)
        self._base.table.remove()
        self._base.wiring.remove_detour(self._base.names.name)

    # Containers

    async def connect(self, request: SandboxRequest) -> Sandbox:
        """Give a container its networks; all or nothing. Failures have Docker's texts."""
        with self._base.stock.busy():
            return await self._sandboxes.connect(request)

    def unkept(self, container_id: str) -> tuple[int, ...]:
        """Return what a container's monitor is to keep and was not given yet, so that it outlives berthd.

        Descriptors of sockets, which stay the service's until ``disconnect`` or ``close``: those that hold
        published ports, and those at which questions for names arrive. After :meth:`has_released`, which is
        not so any more then, all that there are.
        """
        return self._sandboxes.unkept(container_id)

    def has_released(self, container_id: str) -> bool:
        """Say whether a container's monitor keeps what is no more, and is to let go of all that it has."""
        return self._sandboxes.has_released(container_id)

    async def adopt(
        self,
        request: SandboxRequest,
        *,
        open_namespace: Callable[[], int] | None = None,
        kept: Collection[int] = (),
    ) -> Sandbox | None:
        """Return what a container has that went on while berthd did not; None when it has nothing.

        ``kept`` are the descriptors that its monitor kept; they are the service's from now on.
        """
        return await self._sandboxes.adopt(request, open_namespace=open_namespace, kept=kept)

    async def disconnect(self, container_id: str, *, is_shared: bool = False) -> None:
        """Release a container's addresses and ports; nothing when it has none.

        ``is_shared``: others stay in its namespace.
        """
        await self._sandboxes.disconnect(container_id, is_shared=is_shared)

    async def attach(
        self,
        container_id: str,
        request: EndpointRequest,
        *,
        open_namespace: Callable[[], int] | None = None,
    ) -> Sandbox:
        """Connect a running container to one more network.

        ``open_namespace`` opens that of one which has made its own, since it was in no network.
        """
        return await self._sandboxes.attach(container_id, request, open_namespace)

    async def detach(self, container_id: str, reference: str) -> EndpointRecord | None:
        """Disconnect a running container from a network; return the endpoint that it had there, if any."""
        return await self._sandboxes.detach(container_id, self._networks.find(reference))

    async def shape(
        self, container_id: str, reference: str, options: Mapping[str, str] | None
    ) -> None:
        """Shape a running container's traffic in a network by these options, or by the network's own."""
        network = self._networks.find(reference)
        shape = shaping.parse(network.options, options)
        await self._sandboxes.shape(container_id, network, shape)

    def rename(self, container_id: str, name: str) -> None:
        """Call a running container by another name from now on."""
        self._sandboxes.rename(container_id, name)

    # Networks

    def networks(self) -> list[NetworkRecord]:
        """Return every network, the oldest first; bridge, host and none always exist."""
        return self._networks.all()

    def inspect(self, reference: str) -> NetworkRecord:
        """Return the network with this name, id or start of an id; NotFound otherwise."""
        return self._networks.find(reference)

    def endpoints(self, network_id: str) -> list[EndpointRecord]:
        """Return the endpoints of running containers in a network."""
        return self._sandboxes.in_network(network_id)

    def endpoints_of(self, container_id: str) -> tuple[EndpointRecord, ...]:
        """Return a running container's endpoints."""
        return self._sandboxes.of(container_id)

    async def create(self, request: NetworkRequest) -> NetworkRecord:
        """Make a network; all or nothing."""
        async with self._turn, choosing.alone():
            return await self._create(request)

    async def _create(self, request: NetworkRequest) -> NetworkRecord:
        base, wiring = self._base, self._base.wiring
        own = [network.bridge for network in self._networks.bridged()]
        occupied = await base.thread.run(lambda: wiring.occupied(own))
        versions = firewall.versions(self._networks.bridged())
        present = await base.thread.run(wiring.interfaces)
        network = self._networks.create(request, occupied=occupied, present=present)
        try:
            network = await self._borrow(network)
            base.bridges[network.id] = await base.thread.run(partial(wiring.make_network, network))
            if network.bridge:
                rules = firewall.add_network(base.names.table, network)
                await self._change_table(versions, rules, "add network to nftables")
        except BaseException as error:
            self._networks.remove(network)
            base.bridges.pop(network.id, None)
            try:
                await base.thread.run(partial(self._remove_interface, network))
            except (OSError, BerthError) as left:
                log.warning(
                    "network %s, which was not made, left something: %s", network.name, left
                )
            if network.bridge:
                await base.thread.run(base.table.replace)  # it may have been added
            if isinstance(error, OSError):
                raise Failed(f"create network {network.name}: {error.strerror}") from error
            raise
        return network

    def configure(self, request: NetworkRequest) -> NetworkRecord:
        """Keep how other networks are to be made."""
        return self._networks.configure(request)

    async def remove(self, reference: str) -> NetworkRecord:
        """Remove a network that no container is in; return what it was."""
        base, network = self._base, self._networks.find(reference)
        if network.builtin:
            raise Forbidden(f"{network.name} is a pre-defined network and cannot be removed")
        if self.endpoints(network.id):
            raise Forbidden(
                f"error while removing network: network {network.name} id {network.id} has active endpoints"
            )
        configurations.require_unused(network, self._networks.all())
        index = base.bridges.pop(network.id, None)
        self._leaving.add(network.id)
        try:
            await base.thread.run(partial(self._remove_interface, network))
        except OSError as error:
            if index is not None:
                base.bridges[network.id] = index
            raise Failed(f"remove network {network.name}: {error.strerror}") from error
        finally:
            self._leaving.discard(network.id)
        if self._networks.get(network.id) is None:  # somebody else was faster
            raise NotFound(f"network {reference} not found")
        versions = firewall.versions(self._networks.bridged())
        self._networks.remove(network)
        if network.bridge and index is not None:
            rules = firewall.remove_network(base.names.table, network)
            await self._change_table(versions, rules, "take network out of nftables")
        return network

    async def _change_table(
        self, versions: tuple[int, ...], rules: Sequence[Message], call: str
    ) -> None:
        """Apply a change to networks, or everything when the first or last one with IPv6 came or went."""
        tables = self._base.table
        if firewall.versions(self._networks.bridged()) != versions:
            await self._base.thread.run(tables.replace)
        else:
            await self._base.thread.run(partial(tables.change, rules, call))
