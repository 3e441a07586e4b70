"""Networks as the API sees them: shown, created, removed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from berth.engine import networkpools, networksettings
from berth.engine.connecting import Connections
from berth.engine.filters import PruneFilter, has_labels, matches
from berth.engine.networksettings import network_document
from berth.errors import InvalidArgument
from berth.images.catalog import flag

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from berth.engine.containers import Containers
    from berth.engine.networkmodels import NetworkCreate
    from berth.engine.services import Services
    from berth.network.records import NetworkRecord

Document = dict[str, object]
FILTERS = ("dangling", "driver", "id", "label", "name", "scope", "type")


class Networks:
    """The networks of an engine."""

    def __init__(self, services: Services, containers: Containers) -> None:
        self._service = services.network
        self._events = services.events
        self.connections = Connections(services, containers)

    def list(self, filters: Mapping[str, Sequence[str]]) -> Sequence[Document]:
        """Return the networks that pass; as in Docker, without their containers."""
        for key in filters:
            if key not in FILTERS:
                raise InvalidArgument(f"invalid filter '{key}'")
        for kind in filters.get("type", ()):
            if kind not in ("builtin", "custom"):
                raise InvalidArgument(f"invalid filter: 'type'='{kind}'")
        if "dangling" in filters:
            flag("dangling", filters["dangling"])
        found = [n for n in self._service.networks() if self._passes(n, filters)]
        return [network_document(network, ()) for network in found]

    def _passes(self, network: NetworkRecord, filters: Mapping[str, Sequence[str]]) -> bool:
        kind = "builtin" if network.builtin else "custom"
        used = bool(self._service.endpoints(network.id))
        checks: dict[str, Callable[[str], bool]] = {
            "dangling": lambda v: flag("dangling", [v]) == (not used and not network.builtin),
            "driver": lambda v: v == network.driver,
            "id": lambda v: matches(v, network.id),
            "name": lambda v: matches(v, network.name),
            "scope": lambda v: v == "local",
            "type": lambda v: v == kind,
        }
        return has_labels(network.labels, filters.get("label", ())) and all(
            any(checks[key](value) for value in values)
            for key, values in filters.items()
            if key in checks and values
        )

    def inspect(self, ref: str) -> Document:
        """Return one network, with how many of its addresses are taken."""
        network = self._service.inspect(ref)
        endpoints = self._service.endpoints(network.id)
        return {
            **network_document(network, endpoints),
            **networksettings.status(network, endpoints),
        }

    async def create(self, request: NetworkCreate) -> Document:
        """Make a network."""
        asked = networkpools.network_request(request)
        if request.config_only:
            network = self._service.configure(asked)
        else:
            network = await self._service.create(asked)
        self._emit(network, "create")
        return {"Id": network.id, "Warning": ""}

    async def remove(self, ref: str) -> None:
        """Remove a network that no running container is in."""
        self._emit(await self._service.remove(ref), "destroy")

    async def prune(self, filters: Mapping[str, Sequence[str]]) -> Document:
        """Remove the networks that no running container is in."""
        passes = PruneFilter(filters)
        removed = []
        for network in self._service.networks():
            is_kept = network.builtin or network.config is not None
            unused = not is_kept and not self._service.endpoints(network.id)
            if unused and passes(network.labels, network.created_at_ns):
                await self.remove(network.id)
                removed.append(network.name)
        self._events.emit("network", "prune", "", {"reclaimed": "0"})
        return {"NetworksDeleted": removed or None}

    def _emit(self, network: NetworkRecord, action: str) -> None:
        attributes = {"name": network.name, "type": network.driver}
        self._events.emit("network", action, network.id, attributes)
