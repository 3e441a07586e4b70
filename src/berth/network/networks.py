"""The networks that exist: their records, names and address pools. Touches the database only."""

from __future__ import annotations

import re
import secrets
import time
from ipaddress import ip_address, ip_interface, ip_network
from typing import TYPE_CHECKING

import msgspec

from berth.errors import Conflict, Forbidden, InvalidArgument, NotFound
from berth.network import ipam
from berth.network.ipam import AddressPool, choose_subnet, parse_subnet
from berth.network.records import NetworkRecord

if TYPE_CHECKING:
    from collections.abc import Iterable
    from ipaddress import IPv4Interface, IPv6Interface

    from berth.network.ipam import Network, Plan
    from berth.network.records import NetworkRequest
    from berth.state import State

DEFAULT, HOST, NONE = "bridge", "host", "none"
_DRIVERS = {DEFAULT: "bridge", HOST: "host", NONE: "null"}

_INTERFACE = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,14}")
_OPTION = "com.docker.network."
GUARDED = "berth.spoof_protection"
_FALSE = ("0", "f", "false", "no")


class Networks:
    """Records by id, and the address pool of each that has a subnet."""

    def __init__(self, state: State, plan: Plan) -> None:
        self._plan = plan
        self._table = state.table("networks", NetworkRecord)
        self._records = dict(self._table.items())
        self._pools: dict[tuple[str, int], AddressPool] = {}  # by id and version of IP
        for name, driver in _DRIVERS.items():
            if not any(r.name == name for r in self._records.values()):
                self._put(_new(name, driver, builtin=True))

    def all(self) -> list[NetworkRecord]:
        """Return every network, the oldest first."""
        return sorted(self._records.values(), key=lambda record: record.created_at_ns)

    def bridged(self) -> list[NetworkRecord]:
        """Return the networks that have a bridge."""
        return [record for record in self.all() if record.bridge]

    def default(self) -> NetworkRecord:
        """Return the network that containers get unless told otherwise."""
        return self.find(DEFAULT)

    def get(self, id_: str) -> NetworkRecord | None:
        """Return the network with this id."""
        return self._records.get(id_)

    def find(self, reference: str) -> NetworkRecord:
        """Return the network with this name, id or unambiguous start of an id."""
        records = self._records
        if reference in records:
            return records[reference]
        found = [record for record in records.values() if record.name == reference]
        found = found or [
            r for key, r in records.items() if reference and key.startswith(reference)
        ]
        if not found:
            raise NotFound(f"network {reference} not found")
        if len(found) > 1:
            raise InvalidArgument(f"network {reference} is ambiguous ({len(found)} matches found)")
        return found[0]

    def settle_default(self, bridge: str, *, occupied: Iterable[Network], movable: bool) -> None:
        """Give the default network its bridge and a subnet.

        It keeps the one it has, unless it was told another or the host routes that elsewhere by now, and it
        is ``movable``.
        """
        record, occupied, plan = self.default(), list(occupied), self._plan
        record = msgspec.structs.replace(record, mtu=plan.mtu)
        told = ip_interface(plan.bip) if plan.bip else None
        if record.subnet:
            taken = any(ipam.overlap(ip_network(record.subnet), other) for other in occupied)
            moves = taken if told is None else (record.gateway, record.subnet) != _bridge_of(told)
            if record.bridge == bridge and not (moves and movable):
                self._put(record)
                return
        if told is None:
            others = [*occupied, *self._subnets(without=self.default())]
            subnet = choose_subnet(others, plan.subnets())
            told = ip_interface((subnet.network_address + 1, subnet.prefixlen))
        gateway, subnet_text = _bridge_of(told)
        self._pools.pop((record.id, 4), None)
        self._put(
            msgspec.structs.replace(record, bridge=bridge, subnet=subnet_text, gateway=gateway)
        )

    def _subnets(self, *, without: NetworkRecord | None = None) -> list[Network]:
        """Return the subnets of all networks of one's own bridges."""
        return [
            ip_network(subnet)
            for record in self.bridged()
            for subnet in (record.subnet, record.subnet6)
            if subnet and record is not without
        ]

    def pool(self, record: NetworkRecord, *, version: int = 4) -> AddressPool:
        """Return the network's address pool of a version of IP; its gateway is taken."""
        pool = self._pools.get((record.id, version))
        if pool is None:
            subnet, span, gateway = (
                (record.subnet, record.ip_range, record.gateway)
                if version == 4
                else (record.subnet6, record.ip_range6, record.gateway6)
            )
            pool = AddressPool(ip_network(subnet), ip_range=ip_network(span) if span else None)
            taken = [ip_address(text) for text in (gateway, *record.auxiliary.values()) if text]
            for address in taken:
                if address.version == version:
                    pool.claim(address)
            self._pools[record.id, version] = pool
        return pool

    def create(self, request: NetworkRequest, *, occupied: Iterable[Network]) -> NetworkRecord:
        """Record a new bridge network; Conflict, Forbidden or InvalidArgument with Docker's texts."""
        self._check(request)
        occupied = list(occupied)
        record = _with_options(_new(request.name, "bridge"), request)
        if request.ipv4:
            subnet = self._subnet(request.subnet, occupied)
            record = msgspec.structs.replace(
                record,
                subnet=str(subnet),
                own_subnet=bool(request.subnet),
                gateway=request.gateway or str(subnet.network_address + 1),
                ip_range=request.ip_range,
            )
        if request.ipv6:
            local = ipam.local_subnets(self.default().id)
            subnet = self._subnet(request.subnet6, occupied, local)
            record = msgspec.structs.replace(
                record,
                subnet6=str(subnet),
                own_subnet6=bool(request.subnet6),
                gateway6=request.gateway6 or str(subnet.network_address + 1),
                ip_range6=request.ip_range6,
            )
        if any(r.bridge == record.bridge for r in self.bridged()):
            raise Conflict(f"bridge name {record.bridge} is in use by another network")
        for version, has in ((4, request.ipv4), (6, request.ipv6)):
            if has:
                self.pool(record, version=version)  # refuses what cannot be, before it is written
        self._put(record, durable=True)
        return record

    def _subnet(
        self, asked: str, occupied: Iterable[Network], offered: Iterable[Network] | None = None
    ) -> Network:
        if not asked:
            offered = self._plan.subnets() if offered is None else offered
            return choose_subnet([*self._subnets(), *occupied], offered)
        subnet = parse_subnet(asked)
        if any(ipam.overlap(subnet, other) for other in self._subnets()):
            raise Forbidden("Pool overlaps with other one on this address space")
        return subnet

    def remove(self, record: NetworkRecord) -> None:
        """Forget a network."""
        self._records.pop(record.id, None)
        for version in (4, 6):
            self._pools.pop((record.id, version), None)
        self._table.remove(record.id, durable=True)

    def _check(self, request: NetworkRequest) -> None:
        if request.driver in ("host", "null"):
            raise Forbidden(f'only one instance of "{request.driver}" network is allowed')
        if request.driver != "bridge":
            raise NotFound(f'plugin "{request.driver}" not found')
        if request.name in (*_DRIVERS, "default"):
            raise Forbidden(f"operation is not permitted on predefined {request.name} network")
        if not request.name.strip():
            raise InvalidArgument(f"invalid name: {request.name}")
        if any(record.name == request.name for record in self._records.values()):
            raise Conflict(f"network with name {request.name} already exists")
        if not (request.ipv4 or request.ipv6):
            raise InvalidArgument("IPv4 or IPv6 must be enabled")

    def _put(self, record: NetworkRecord, *, durable: bool = False) -> None:
        self._records[record.id] = record
        self._table.put(record.id, record, durable=durable)


def _new(name: str, driver: str, *, builtin: bool = False) -> NetworkRecord:
    return NetworkRecord(
        id=secrets.token_hex(32),
        name=name,
        driver=driver,
        created_at_ns=time.time_ns(),
        builtin=builtin,
    )


def _with_options(record: NetworkRecord, request: NetworkRequest) -> NetworkRecord:
    options = request.options
    bridge = options.get(_OPTION + "bridge.name") or f"br-{record.id[:12]}"
    if not _INTERFACE.fullmatch(bridge):
        raise InvalidArgument(
            f"invalid bridge name {bridge!r}: 15 characters at most, none of them '/'"
        )
    mtu = options.get(_OPTION + "driver.mtu", "1500")
    if not mtu.isdecimal() or not 68 <= int(mtu) <= 65_535:
        raise InvalidArgument(f"invalid MTU: {mtu}")
    return msgspec.structs.replace(
        record,
        bridge=bridge,
        auxiliary=dict(request.auxiliary),
        mtu=int(mtu),
        internal=request.internal,
        attachable=request.attachable,
        icc=_is_on(options.get(_OPTION + "bridge.enable_icc")),
        is_guarded=_is_on(options.get(GUARDED)),
        masquerade=_is_on(options.get(_OPTION + "bridge.enable_ip_masquerade")),
        options=dict(options),
        labels=dict(request.labels),
    )


def _bridge_of(address: IPv4Interface | IPv6Interface) -> tuple[str, str]:
    """Return the gateway and the subnet of a bridge with this address."""
    return str(address.ip), str(address.network)


def _is_on(value: str | None) -> bool:
    return value is None or value.lower() not in _FALSE
