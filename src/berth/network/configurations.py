"""Configuration networks: how other networks are to be made, and nothing that containers get into."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from berth.errors import Forbidden, NotFound

if TYPE_CHECKING:
    from collections.abc import Iterable

    from berth.network.records import NetworkRecord, NetworkRequest

DEPENDS = "a configuration network cannot depend on another configuration network"
IPAM = "default"  # the driver of addresses unless somebody says another
CLOSED = "cannot create endpoint on configuration-only network"


def check(request: NetworkRequest) -> None:
    """Refuse a configuration that is to be made by another."""
    if request.config_from:
        raise Forbidden(DEPENDS)


def applied(request: NetworkRequest, networks: Iterable[NetworkRecord]) -> NetworkRequest:
    """Return a request with what the configuration says that it names; it may not say that itself."""
    if not request.config_from:
        return request
    found = (n.config for n in networks if n.name == request.config_from and n.config)
    source = next(found, None)
    if source is None:
        raise NotFound(f'configuration network "{request.config_from}" does not exist')
    of_addresses = (
        *(request.subnet, request.gateway, request.ip_range),
        *(request.subnet6, request.gateway6, request.ip_range6),
        *(request.ipv6, request.more, request.auxiliary, request.ipam_options),
    )
    if any(of_addresses) or request.ipam_driver != IPAM:
        raise Forbidden(
            "user specified configurations are not supported if the network depends on a"
            " configuration network"
        )
    if request.options:
        raise Forbidden(
            "network driver options are not supported if the network depends on a configuration network"
        )
    return replace(
        source,
        name=request.name,
        driver=request.driver,
        internal=request.internal,
        attachable=request.attachable,
        config_from=request.config_from,
        labels={**source.labels, **request.labels},
    )


def require_unused(network: NetworkRecord, networks: Iterable[NetworkRecord]) -> None:
    """Refuse to remove what networks were made by."""
    if network.config is not None and any(n.config_from == network.name for n in networks):
        raise Forbidden(
            f'error while removing network: configuration network "{network.name}" is in use'
        )
