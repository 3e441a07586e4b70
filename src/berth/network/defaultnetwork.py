"""The network that containers get unless told otherwise: what it is by the settings. No I/O."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network
from typing import TYPE_CHECKING

import msgspec

from berth.errors import Failed
from berth.network import ipam, options
from berth.network.ipam import choose_subnet
from berth.network.records import ROUTER

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from berth.network.ipam import Network, Plan, Space
    from berth.network.records import NetworkRecord

_Bridge = tuple[str, str]  # its address, which is the gateway, and the subnet


def settle(
    record: NetworkRecord,
    plan: Plan,
    *,
    bridge: str,
    occupied: Collection[Network],
    movable: bool,
) -> NetworkRecord:
    """Return the record as the settings have it, with a bridge and subnets.

    It keeps the bridge and the subnets it has, unless it was told others or one of them is ``occupied`` by
    now, and it is ``movable``, that is, nobody is in it.
    """
    if movable or not record.bridge:
        record = msgspec.structs.replace(record, is_ours=not plan.bridge)
    else:
        bridge = record.bridge
    has_bridge = record.bridge == bridge
    record = msgspec.structs.replace(
        record,
        bridge=bridge,
        is_borrowed=record.is_borrowed and has_bridge,
        mtu=plan.mtu,
        icc=plan.icc,
        masquerade=plan.masquerade,
        binding=plan.binding,
        shortcut=options.has_shortcut(plan.options.get(record.driver, {})),
    )
    if has_bridge and not movable:
        return record
    told = _told(plan.bip, plan.range)
    if not (has_bridge and _may_stay(record.gateway, record.subnet, told, occupied)):
        gateway, subnet = told or _chosen(occupied, plan.spaces(record.id))
        record = msgspec.structs.replace(record, gateway=gateway, subnet=subnet)
    auxiliary = _router(4, plan.router, record.subnet)
    record = msgspec.structs.replace(record, ip_range=plan.range, auxiliary=auxiliary)
    if not plan.ipv6:
        return msgspec.structs.replace(record, gateway6="", subnet6="", ip_range6="")
    told = _told(plan.bip6, plan.range6)
    if not (has_bridge and _may_stay(record.gateway6, record.subnet6, told, occupied)):
        gateway, subnet = told or _chosen(occupied, plan.spaces(record.id, version=6))
        record = msgspec.structs.replace(record, gateway6=gateway, subnet6=subnet)
    auxiliary = auxiliary | _router(6, plan.router6, record.subnet6)
    return msgspec.structs.replace(record, ip_range6=plan.range6, auxiliary=auxiliary)


def _router(version: int, address: str, subnet: str) -> dict[str, str]:
    """Return the auxiliary address that says who leads out instead of the bridge."""
    if not address:
        return {}
    router = ip_address(address)
    if router not in ip_network(subnet):
        name = "default-gateway" if version == 4 else "default-gateway-v6"
        raise Failed(f"{name} {address}: the default gateway must be part of the network {subnet}")
    return {f"{ROUTER}{version}": str(router)}


def _told(address: str, span: str) -> _Bridge | None:
    """Return the bridge that settings describe, by its address or by the range for containers alone."""
    if address:
        told = ip_interface(address)
        return str(told.ip), str(told.network)
    return _first_of(ip_network(span, strict=False)) if span else None


def _may_stay(gateway: str, subnet: str, told: _Bridge | None, occupied: Iterable[Network]) -> bool:
    if told is not None:
        return (gateway, subnet) == told
    return bool(subnet) and not any(ipam.overlap(ip_network(subnet), other) for other in occupied)


def _chosen(occupied: Iterable[Network], spaces: Iterable[Space]) -> _Bridge:
    try:
        return _first_of(choose_subnet(occupied, spaces))
    except Failed as error:
        text = f'error creating default "bridge" network: {error.message}'
        hint = "the settings may name a free subnet (bip, default-address-pools)"
        raise Failed(text, hint=hint) from None


def _first_of(subnet: Network) -> _Bridge:
    return str(ipam.first_address(subnet)), str(subnet)
