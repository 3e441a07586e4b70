"""Which names containers of one network have for each other. No I/O."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from berth.network.records import EndpointRecord

SHORT_ID = 12
GATEWAY_NAMES = ("host.docker.internal", "gateway.docker.internal")


def names_of(endpoint: EndpointRecord) -> list[str]:
    """Return the names of an endpoint in its network: the container's, its aliases, its short id."""
    found = (endpoint.container_name, *endpoint.aliases, endpoint.container_id[:SHORT_ID])
    own = (endpoint.hostname,) if endpoint.hostname else ()
    return list(dict.fromkeys((*found, *own)))


class Directory:
    """The names of one network, at one moment."""

    def __init__(self, endpoints: Iterable[EndpointRecord]) -> None:
        self._addresses: dict[str, list[bytes]] = {}
        self._names: dict[bytes, str] = {}
        for endpoint in endpoints:
            texts = (endpoint.address, endpoint.address6)
            packed = [ip_address(text).packed for text in texts if text]
            full = f"{endpoint.container_name}.{endpoint.network_name}"
            self._names.update(dict.fromkeys(packed, full))
            for name in names_of(endpoint):
                for form in (name, f"{name}.{endpoint.network_name}"):
                    self._addresses.setdefault(form.lower(), []).extend(packed)

    def addresses(self, name: str, asker: EndpointRecord) -> list[bytes]:
        """Return the packed addresses of a name in lower case as one of the network sees it."""
        return list(self._addresses.get(_linked(asker, name) or name, ()))

    def name(self, packed: bytes) -> str | None:
        """Return the full name of an address."""
        return self._names.get(packed)


def _linked(asker: EndpointRecord, name: str) -> str | None:
    """Return the container behind an alias that only this endpoint knows."""
    for link in asker.links:
        target, _, alias = link.partition(":")
        if (alias or target).lower() == name:
            return target.lower()
    return None
