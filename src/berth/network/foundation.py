"""What networks and sandboxes stand on: the records, and the kernel's side once the service is open."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from berth.network.detour import Detour
    from berth.network.guards import Guards
    from berth.network.kernelthread import KernelThread
    from berth.network.networks import Networks
    from berth.network.records import EndpointRecord
    from berth.network.resolver import Resolvers
    from berth.network.shortcuts import Shortcuts
    from berth.network.stock import Stock
    from berth.network.table import Table
    from berth.network.wiring import Wiring
    from berth.state import State


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


class Foundation:
    """Shared by the parts of one service. What has no value here is set when it opens."""

    wiring: Wiring
    detour: Detour | None
    table: Table
    guards: Guards
    shortcuts: Shortcuts
    resolvers: Resolvers

    def __init__(
        self,
        *,
        state: State,
        names: Names,
        networks: Networks,
        thread: KernelThread,
        stock: Stock,
    ) -> None:
        self.state = state
        self.names = names
        self.networks = networks
        self.thread = thread
        self.stock = stock
        self.bridges: dict[str, int] = {}  # network id → interface index

    def has_names(self, endpoint: EndpointRecord) -> bool:
        """Say whether containers of the endpoint's network know each other by name."""
        network = self.networks.get(endpoint.network_id)
        return network is not None and network.has_members and not network.builtin
