"""Networks as the API shows them: those of a container, its ports, and a network itself."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

import msgspec

from berth.engine import spec
from berth.engine.networking import exposed_ports, parse_port
from berth.network.names import names_of
from berth.network.networks import DEFAULT
from berth.network.ports import ANY
from berth.oci import times

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from berth.engine.models import ContainerRecord
    from berth.engine.networkmodels import EndpointRequest
    from berth.network.records import EndpointRecord, NetworkRecord, PortRecord

    Endpoints = Sequence[EndpointRecord]

Document = dict[str, object]
IPV4 = 4
MOST = (1 << 64) - 1
TOP_LEVEL = (  # what inspect says of the default network beside the list of networks
    *("EndpointID", "Gateway", "GlobalIPv6Address", "GlobalIPv6PrefixLen", "IPAddress"),
    *("IPPrefixLen", "IPv6Gateway", "MacAddress"),
)


def summary_ports(record: ContainerRecord, endpoints: Endpoints) -> list[Document]:
    """Return the ports as lists of containers show them."""
    if not _has_ports(endpoints):
        return []
    published = _published(endpoints)
    found: list[Document] = [
        {
            "IP": port.host_ip,
            "PrivatePort": port.container_port,
            "PublicPort": port.host_port,
            "Type": port.protocol,
        }
        for port in published
    ]
    known = {(port.container_port, port.protocol) for port in published}
    for text in exposed_ports(record):
        number, protocol = parse_port(text)
        if (number, protocol) not in known:
            found.append({"PrivatePort": number, "Type": protocol})
    return found


def _has_ports(endpoints: Endpoints) -> bool:
    """Say whether a container has ports to show: as in Docker only one that a bridge leads out."""
    return any(e.interface and (e.gateway or e.gateway6) for e in endpoints)


def _published(endpoints: Endpoints) -> list[PortRecord]:
    return [port for endpoint in endpoints for port in endpoint.ports]


def settings(
    record: ContainerRecord, endpoints: Endpoints, networks: Mapping[str, NetworkRecord]
) -> Document:
    """Return inspect's NetworkSettings: with addresses while the container runs."""
    default = _place(next((e for e in endpoints if e.network_name == DEFAULT), None))
    has_own = record.pid and spec.shared_container(record.host_config.network_mode) is None
    return {
        "Bridge": "",
        "SandboxID": (endpoints[0].id if endpoints else record.id) if has_own else "",
        "SandboxKey": f"/proc/{record.pid}/ns/net" if has_own else "",
        "Ports": _port_map(record, _published(endpoints)) if _has_ports(endpoints) else {},
        **{key: default[key] for key in TOP_LEVEL},
        "Networks": places(record, endpoints, networks),
    }


def places(
    record: ContainerRecord, endpoints: Endpoints, networks: Mapping[str, NetworkRecord]
) -> Document:
    """Return what a container is in each of its networks."""
    found = {endpoint.network_name: endpoint for endpoint in endpoints}
    return {
        name: _shown(record, asked, found.get(name), networks.get(name))
        for name, asked in record.networks.items()
    }


def _port_map(record: ContainerRecord, published: Iterable[PortRecord]) -> Document:
    ports: dict[str, list[dict[str, str]] | None] = dict.fromkeys(exposed_ports(record))
    for port in published:
        key = f"{port.container_port}/{port.protocol}"
        ports[key] = [
            *(ports.get(key) or []),
            {"HostIp": port.host_ip, "HostPort": str(port.host_port or "")},
        ]
    return dict(ports)


def _place(endpoint: EndpointRecord | None) -> Document:
    """Return what an endpoint has; nothing while its container does not run."""
    return {
        "EndpointID": endpoint.id if endpoint is not None else "",
        "Gateway": endpoint.gateway if endpoint is not None else "",
        "IPAddress": endpoint.address if endpoint is not None else "",
        "IPPrefixLen": endpoint.prefix_length if endpoint is not None else 0,
        "IPv6Gateway": endpoint.gateway6 if endpoint is not None else "",
        "GlobalIPv6Address": endpoint.address6 if endpoint is not None else "",
        "GlobalIPv6PrefixLen": endpoint.prefix_length6 if endpoint is not None else 0,
        "MacAddress": endpoint.mac if endpoint is not None else "",
    }


def _shown(
    record: ContainerRecord,
    asked: EndpointRequest,
    endpoint: EndpointRecord | None,
    network: NetworkRecord | None,
) -> Document:
    has_names = network is not None and network.has_members and not network.builtin
    was_there = record.started_ns or record.error  # Docker knows a network from the first start on
    return {
        "IPAMConfig": asked.ipam_config,
        "Links": asked.links,
        "Aliases": asked.aliases,
        "DriverOpts": asked.driver_opts,
        "GwPriority": asked.gw_priority,
        "NetworkID": network.id if network is not None and was_there else "",
        "DNSNames": names_of(endpoint) if endpoint is not None and has_names else None,
        **_place(endpoint),
        "MacAddress": endpoint.mac if endpoint is not None else asked.mac_address,
    }


def network_document(network: NetworkRecord, endpoints: Iterable[EndpointRecord]) -> Document:
    """Return a network as the API shows it."""
    is_configuration = network.config is not None
    network = _with_configuration(network)
    pools = _pools(network)
    return {
        "Name": network.name,
        "Id": network.id,
        "Created": times.rfc3339(network.created_at_ns),
        "Scope": "local",
        "Driver": network.driver,
        "EnableIPv4": bool(network.subnet) or network.builtin,
        "EnableIPv6": bool(network.subnet6),
        "IPAM": {
            "Driver": network.config.ipam_driver if network.config else network.ipam_driver,
            "Options": network.ipam_options,
            "Config": pools if pools or not network.builtin else None,
        },
        "Internal": network.internal,
        "Attachable": network.attachable,
        "Ingress": False,
        "ConfigFrom": {"Network": network.config_from},
        "ConfigOnly": is_configuration,
        "Containers": {
            endpoint.container_id: {
                "Name": endpoint.container_name,
                "EndpointID": endpoint.id,
                "MacAddress": endpoint.mac,
                "IPv4Address": f"{endpoint.address}/{endpoint.prefix_length}"
                if endpoint.address
                else "",
                "IPv6Address": f"{endpoint.address6}/{endpoint.prefix_length6}"
                if endpoint.address6
                else "",
            }
            for endpoint in endpoints
        },
        "Options": _default_options(network) if network.name == DEFAULT else network.options,
        "Labels": network.labels,
    }


def status(network: NetworkRecord, endpoints: Iterable[EndpointRecord]) -> Document:
    """Return how many addresses of each subnet are in use, and how many are left for containers."""
    taken = [ip_address(a) for e in endpoints for a in (e.address, e.address6) if a]
    taken += map(ip_address, network.auxiliary.values())
    subnets: Document = {}
    for each in (*network.subnets(4), *network.subnets(6)):
        subnet, span = ip_network(each.subnet), ip_network(each.ip_range or each.subnet)
        has_ends = subnet.version == IPV4 and subnet.prefixlen < 31
        reserved = {subnet[0], subnet[-1]} if has_ends else set()
        reserved |= {subnet[0]} if subnet.version != IPV4 else set()
        reserved |= {ip_address(each.gateway)} if each.gateway else set()
        used = reserved | {address for address in taken if address in subnet}
        free = span.num_addresses - sum(address in span for address in used)
        subnets[each.subnet] = {
            "IPsInUse": min(len(used), MOST),
            "DynamicIPsAvailable": min(free, MOST),
        }
    return {"Status": {"IPAM": {"Subnets": subnets}}}


def _with_configuration(network: NetworkRecord) -> NetworkRecord:
    """Return a configuration with the addresses that networks get by it, any other network as it is."""
    config = network.config
    if config is None:
        return network
    return msgspec.structs.replace(
        network,
        subnet=config.subnet,
        gateway=config.gateway,
        ip_range=config.ip_range,
        subnet6=config.subnet6,
        gateway6=config.gateway6,
        ip_range6=config.ip_range6,
        more=config.more,
        auxiliary=config.auxiliary,
    )


def _pools(network: NetworkRecord) -> list[Document]:
    pools: list[Document] = []
    for each in (*network.subnets(4), *network.subnets(6)):
        pool: Document = {"Subnet": each.subnet}
        if each.gateway:
            pool["Gateway"] = each.gateway
        if each.ip_range:
            pool["IPRange"] = each.ip_range
        subnet = ip_network(each.subnet)
        auxiliary = {
            name: address
            for name, address in network.auxiliary.items()
            if ip_address(address) in subnet
        }
        if auxiliary:
            pool["AuxiliaryAddresses"] = auxiliary
        pools.append(pool)
    return pools


def _default_options(network: NetworkRecord) -> Document:
    return {
        "com.docker.network.bridge.default_bridge": "true",
        "com.docker.network.bridge.enable_icc": str(network.icc).lower(),
        "com.docker.network.bridge.enable_ip_masquerade": str(network.masquerade).lower(),
        "com.docker.network.bridge.host_binding_ipv4": network.binding or ANY,
        "com.docker.network.bridge.name": network.bridge,
        "com.docker.network.driver.mtu": str(network.mtu),
    }
