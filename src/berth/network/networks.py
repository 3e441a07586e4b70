"""The networks that exist: their records, names and address pools. Touches the database only."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

import msgspec

from berth.errors import Conflict, Failed, Forbidden, InvalidArgument, NotFound
from berth.network import configurations, defaultnetwork, ipam, options
from berth.network.ipam import AddressPool, Pools, choose_subnet, parse_subnet
from berth.network.records import NetworkRecord

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from berth.network.ipam import Address, Interface, Network, Plan
    from berth.network.records import NetworkRequest
    from berth.state import State

DEFAULT, HOST, NONE = "bridge", "host", "none"
_DRIVERS = {DEFAULT: "bridge", HOST: "host", NONE: "null"}

OVERLAPS = "Pool overlaps with other one on this address space"
NO_IPAM = "null"
_MAKEABLE = ("bridge", "macvlan", "ipvlan")


class Networks:
    """Records by id, and the address pool of each that has a subnet."""

    def __init__(self, state: State, plan: Plan) -> None:
        self._plan = plan
        self._table = state.table("networks", NetworkRecord)
        self._records = dict(self._table.items())
        self._pools: dict[tuple[str, int], Pools] = {}  # by id and version of IP
        for name, driver in _DRIVERS.items():
            if not any(r.name == name for r in self._records.values()):
                self._put(_new(name, driver, builtin=True))

    def all(self) -> list[NetworkRecord]:
        """Return every network, the oldest first."""
        return sorted(self._records.values(), key=lambda record: record.created_at_ns)

    def bridged(self) -> list[NetworkRecord]:
        """Return the networks that have a bridge."""
        return [record for record in self.all() if record.bridge]

    def uplinked(self) -> list[NetworkRecord]:
        """Return the networks that have a parent interface in place of a bridge."""
        return [record for record in self.all() if record.parent]

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

    def enterable(self, reference: str) -> NetworkRecord:
        """Return the network with this name or id, if containers may take part in it."""
        found = self.find(reference)
        if found.config is not None:
            raise Forbidden(configurations.CLOSED)
        return found

    def settle_default(
        self,
        bridge: str,
        *,
        occupied: Iterable[Network],
        movable: bool,
        present: Iterable[Interface] = (),
    ) -> None:
        """Give the default network its bridge and subnets, see :mod:`berth.network.defaultnetwork`.

        ``present`` are addresses that a bridge of somebody else's has, one of each version of IP.
        """
        record, plan = self.default(), self._plan
        others = [*occupied, *self._subnets(without=record)]
        for address in present:
            if address.version == 4:
                plan = replace(plan, bip=str(address))
            else:
                plan = replace(plan, bip6=str(address))
        settled = defaultnetwork.settle(
            record, plan, bridge=bridge, occupied=others, movable=movable
        )
        for version in (4, 6):
            self._pools.pop((record.id, version), None)
        self._put(settled)

    def _subnets(self, *, without: NetworkRecord | None = None) -> list[Network]:
        """Return the subnets of all networks."""
        return [
            ip_network(each.subnet)
            for record in self.all()
            for each in (*record.subnets(4), *record.subnets(6))
            if record is not without
        ]

    def pool(self, record: NetworkRecord, *, version: int = 4) -> Pools:
        """Return the network's address pools of a version of IP; gateways are taken."""
        pools = self._pools.get((record.id, version))
        if pools is None:
            subnets = record.subnets(version)
            pools = Pools(
                [
                    AddressPool(
                        ip_network(each.subnet),
                        ip_range=parse_subnet(each.ip_range) if each.ip_range else None,
                    )
                    for each in subnets
                ]
            )
            self._reserve(record, pools, version)
            self._pools[record.id, version] = pools
        return pools

    def _reserve(self, record: NetworkRecord, pools: Pools, version: int) -> None:
        """Take the addresses of a network's gateways and those that are somebody else's."""
        gateways = [("gateway", each.gateway, each.gateway) for each in record.subnets(version)]
        others = [
            ("secondary ip address", f"{name}:{text}", text)
            for name, text in record.auxiliary.items()
        ]
        for what, shown, text in [*gateways, *others]:
            if not text or (address := _address(text)).version != version:
                continue
            try:
                pools.claim(address)
            except Forbidden as error:
                if record.id not in self._records:  # else it was made when this was not refused
                    raise Failed(f"failed to allocate {what} ({shown}): {error.message}") from None

    def create(
        self, request: NetworkRequest, *, occupied: Iterable[Network], present: Collection[str] = ()
    ) -> NetworkRecord:
        """Record a new network; Conflict, Forbidden or InvalidArgument with Docker's texts.

        ``occupied`` are subnets that the host routes elsewhere, ``present`` the names of its interfaces.
        """
        self._check(request)
        request = configurations.applied(request, self.all())
        _check_ipam(request)
        defaults = self._plan.options.get(request.driver, {})
        request = replace(request, options={**defaults, **request.options})
        record = options.apply(_new(request.name, request.driver), request)
        self._check_link(record)
        is_new = (record.bridge or record.parent) not in present
        is_shared = any(n.is_ours for n in self.uplinked() if n.parent == record.parent)
        record = msgspec.structs.replace(record, is_ours=is_new or is_shared)
        record = self._with_subnets(record, request, list(occupied))
        for version, subnet in ((4, record.subnet), (6, record.subnet6)):
            if subnet:
                self.pool(record, version=version)  # refuses what cannot be, before it is written
        self._put(record, durable=True)
        return record

    def configure(self, request: NetworkRequest) -> NetworkRecord:
        """Record how other networks are to be made."""
        self._check(request)
        configurations.check(request)
        record = msgspec.structs.replace(
            _new(request.name, _DRIVERS[NONE]),
            config=request,
            ipam_options=request.ipam_options,
            options=dict(request.options),
            labels=dict(request.labels),
        )
        self._put(record, durable=True)
        return record

    def _with_subnets(
        self, record: NetworkRecord, request: NetworkRequest, occupied: list[Network]
    ) -> NetworkRecord:
        def gateway(asked: str, subnet: Network, span: str) -> str:
            """Without a bridge the gateway is somebody else, if there is one."""
            if asked or not record.bridge:
                return asked
            first, within = ipam.first_address(subnet), parse_subnet(span or str(subnet))[0]
            return str(within if within != subnet[0] else first)

        if request.ipv4:
            subnet = self._subnet(request.subnet, occupied)
            record = msgspec.structs.replace(
                record,
                subnet=str(subnet),
                gateway=gateway(request.gateway, subnet, request.ip_range),
                ip_range=request.ip_range,
            )
        if request.ipv6:
            subnet = self._subnet(request.subnet6, occupied, version=6)
            record = msgspec.structs.replace(
                record,
                subnet6=str(subnet),
                gateway6=gateway(request.gateway6, subnet, request.ip_range6),
                ip_range6=request.ip_range6,
            )
        for more in request.more:
            if not (request.ipv4 if more.version == 4 else request.ipv6):
                continue
            present = (ip_network(s.subnet) for s in record.subnets(more.version))
            if any(ipam.overlap(self._subnet(more.subnet, []), other) for other in present):
                raise Forbidden(OVERLAPS)
            record = msgspec.structs.replace(record, more=(*record.more, more))
        return record

    def _check_link(self, record: NetworkRecord) -> None:
        for other in self.bridged() if record.bridge else self.uplinked():
            if record.bridge and other.bridge == record.bridge:
                raise Forbidden(
                    f"cannot create network {record.id} ({record.bridge}): conflicts with network"
                    f" {other.id} ({other.bridge}): networks have same bridge name"
                )
            if record.parent and other.parent == record.parent:
                if other.driver != record.driver:
                    raise Failed(
                        f"network {other.id} is already using parent interface {other.parent}"
                    )
                if record.link_mode == "passthru":
                    raise Failed(
                        f"cannot use mode passthru, macvlan network {other.id} is already using parent"
                        f" interface {record.parent}"
                    )
                if other.link_mode == "passthru":
                    raise Failed(
                        f"macvlan network {other.id} is already using parent interface {record.parent}"
                        " in mode passthru"
                    )

    def _subnet(self, asked: str, occupied: Iterable[Network], *, version: int = 4) -> Network:
        subnet = parse_subnet(asked) if asked else None
        if subnet is None or subnet.network_address.is_unspecified:  # 0.0.0.0/24: any of that size
            size = subnet.prefixlen if subnet is not None else 0
            spaces = self._plan.spaces(self.default().id, version=version, size=size)
            return choose_subnet([*self._subnets(), *occupied], spaces)
        if any(ipam.overlap(subnet, other) for other in self._subnets()):
            raise Forbidden(OVERLAPS)
        return subnet

    def borrow(self, record: NetworkRecord) -> NetworkRecord:
        """Record that something is switched on at the network's bridge, which is somebody else's."""
        record = msgspec.structs.replace(record, is_borrowed=True)
        self._put(record, durable=True)
        return record

    def remove(self, record: NetworkRecord) -> None:
        """Forget a network."""
        self._records.pop(record.id, None)
        for version in (4, 6):
            self._pools.pop((record.id, version), None)
        self._table.remove(record.id, durable=True)

    def _check(self, request: NetworkRequest) -> None:
        if request.driver in ("host", "null"):
            raise Forbidden(f'only one instance of "{request.driver}" network is allowed')
        if request.driver not in _MAKEABLE:
            raise NotFound(f'plugin "{request.driver}" not found')
        if request.name in (*_DRIVERS, "default"):
            raise Forbidden(f"operation is not permitted on predefined {request.name} network")
        if not request.name.strip():
            raise InvalidArgument(f"invalid name: {request.name}")
        if any(record.name == request.name for record in self._records.values()):
            raise Conflict(f"network with name {request.name} already exists")

    def _put(self, record: NetworkRecord, *, durable: bool = False) -> None:
        self._records[record.id] = record
        self._table.put(record.id, record, durable=durable)


def _new(name: str, driver: str, *, builtin: bool = False) -> NetworkRecord:
    return NetworkRecord(
        id=os.urandom(32).hex(),
        name=name,
        driver=driver,
        created_at_ns=time.time_ns(),
        builtin=builtin,
    )


def _check_ipam(request: NetworkRequest) -> None:
    """Refuse addresses that nobody has. The driver null has none, for networks that bring their own."""
    if request.ipam_driver not in (configurations.IPAM, NO_IPAM):
        raise NotFound(f'plugin "{request.ipam_driver}" not found')
    enabled = {4: request.ipv4, 6: request.ipv6}
    if request.driver == "bridge" and not any(enabled.values()):
        raise InvalidArgument("IPv4 or IPv6 must be enabled")
    if request.ipam_driver != NO_IPAM:
        return
    for asked, what in (
        (request.subnet if request.ipv4 else "", "pool"),
        (request.ip_range if request.ipv4 else "", "subpool"),
        (request.subnet6 if request.ipv6 else "", "pool"),
        (request.ip_range6 if request.ipv6 else "", "subpool"),
    ):
        if asked:
            raise InvalidArgument(
                f"null ipam driver does not handle specific address {what} requests"
            )
    for version, is_on in enabled.items():
        if is_on:
            raise InvalidArgument(f"ipv{version} pool is empty")


def _address(text: str) -> Address:
    """Parse an address that a client gave, of either version of IP."""
    try:
        return ip_address(text)
    except ValueError:
        raise InvalidArgument(f"invalid IP address: {text}") from None
