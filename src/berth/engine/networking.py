"""From a container's configuration to what it asks of networks, and how the API shows what it got."""

from __future__ import annotations

from typing import TYPE_CHECKING

from berth.engine import spec, times
from berth.errors import InvalidArgument
from berth.network.records import PROTOCOLS, EndpointRequest, PortRequest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from berth.engine.models import ContainerRecord, HostConfig
    from berth.network.records import EndpointRecord, NetworkRecord, PortRecord

MAX_PORT = 65_535
SHOWN_NETWORKS = ("default", "")

Document = dict[str, object]


def settle_mode(host: HostConfig) -> None:
    """Name the default network; refuse what does not go together."""
    if host.network_mode in SHOWN_NETWORKS:
        host.network_mode = "bridge"
    if spec.shared_container(host.network_mode) is not None and any(
        (host.port_bindings or {}).values()
    ):
        raise InvalidArgument(
            "conflicting options: port publishing and the container type network mode"
        )


def has_own_namespace(record: ContainerRecord) -> bool:
    """Say whether the container gets a network namespace that nobody else is in."""
    mode = record.host_config.network_mode
    return mode != "host" and spec.shared_container(mode) is None


def parse_port(text: str) -> tuple[int, str]:
    """Split "80/tcp"; the protocol is tcp unless said."""
    number, _, protocol = text.partition("/")
    protocol = protocol.lower() or "tcp"
    if protocol not in PROTOCOLS or not number.isdigit() or not 0 < int(number) <= MAX_PORT:
        raise InvalidArgument(f"invalid port specification: {text!r}")
    return int(number), protocol


def exposed_ports(record: ContainerRecord) -> list[str]:
    """Return the ports that a container says it serves or publishes, as "80/tcp"."""
    found = dict.fromkeys(record.config.exposed_ports or {})
    found.update(dict.fromkeys(record.host_config.port_bindings or {}))
    return ["{}/{}".format(*parse_port(text)) for text in found]


def port_requests(record: ContainerRecord) -> tuple[PortRequest, ...]:
    """Return the ports to publish; with --publish-all also those that are only exposed."""
    host = record.host_config
    found = []
    bindings = host.port_bindings or {}
    for text, places in bindings.items():
        port, protocol = parse_port(text)
        for place in places or []:
            host_port = place.host_port or "0"
            if not host_port.isdigit() or int(host_port) > MAX_PORT:
                raise InvalidArgument(f"invalid port specification: {host_port!r}")
            found.append(
                PortRequest(
                    container_port=port,
                    protocol=protocol,
                    host_ip=place.host_ip,
                    host_port=int(host_port),
                )
            )
    if host.publish_all_ports:
        published = {(request.container_port, request.protocol) for request in found}
        exposed = [parse_port(text) for text in record.config.exposed_ports or {}]
        found += [
            PortRequest(container_port=port, protocol=protocol)
            for port, protocol in exposed
            if (port, protocol) not in published
        ]
    return tuple(found)


def endpoint_request(record: ContainerRecord) -> EndpointRequest | None:
    """Return what to connect; None for a container that shares another's network."""
    host = record.host_config
    if spec.shared_container(host.network_mode) is not None:
        return None
    asked = record.networks.get(host.network_mode)
    address = mac = ""
    if asked is not None:
        mac = asked.mac_address
        address = str((asked.ipam_config or {}).get("IPv4Address") or "")
    return EndpointRequest(
        container_id=record.id,
        container_name=record.name,
        network=host.network_mode,
        hostname=spec.hostname(record),
        address=address,
        mac=mac,
        ports=port_requests(record),
    )


def summary_ports(record: ContainerRecord, endpoint: EndpointRecord | None) -> list[Document]:
    """Return the ports as lists of containers show them."""
    if endpoint is None:
        return []
    published = list(endpoint.ports)
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


def settings(
    record: ContainerRecord, endpoint: EndpointRecord | None, network: NetworkRecord | None
) -> Document:
    """Return inspect's NetworkSettings: with addresses while the container runs."""
    ports = _port_map(record, endpoint.ports) if endpoint is not None else {}
    shared = spec.shared_container(record.host_config.network_mode) is not None
    networks = (
        {} if shared else {record.host_config.network_mode: _shown(record, endpoint, network)}
    )
    return {
        "Bridge": "",
        "SandboxID": endpoint.id if endpoint is not None else "",
        "SandboxKey": f"/proc/{record.pid}/ns/net" if record.pid else "",
        "Ports": ports,
        "EndpointID": endpoint.id if endpoint is not None else "",
        "Gateway": endpoint.gateway if endpoint is not None else "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "IPAddress": endpoint.address if endpoint is not None else "",
        "IPPrefixLen": endpoint.prefix_length if endpoint is not None else 0,
        "IPv6Gateway": "",
        "MacAddress": endpoint.mac if endpoint is not None else "",
        "Networks": networks,
    }


def _port_map(record: ContainerRecord, published: Iterable[PortRecord]) -> Document:
    ports: dict[str, list[dict[str, str]] | None] = dict.fromkeys(exposed_ports(record))
    for port in published:
        key = f"{port.container_port}/{port.protocol}"
        ports[key] = [
            *(ports.get(key) or []),
            {"HostIp": port.host_ip, "HostPort": str(port.host_port)},
        ]
    return dict(ports)


def _shown(
    record: ContainerRecord, endpoint: EndpointRecord | None, network: NetworkRecord | None
) -> Document:
    asked = record.networks.get(record.host_config.network_mode)
    return {
        "IPAMConfig": asked.ipam_config if asked is not None else None,
        "Links": None,
        "Aliases": asked.aliases if asked is not None else None,
        "MacAddress": endpoint.mac if endpoint is not None else "",
        "DriverOpts": None,
        "GwPriority": 0,
        "NetworkID": network.id if network is not None else "",
        "EndpointID": endpoint.id if endpoint is not None else "",
        "Gateway": endpoint.gateway if endpoint is not None else "",
        "IPAddress": endpoint.address if endpoint is not None else "",
        "IPPrefixLen": endpoint.prefix_length if endpoint is not None else 0,
        "IPv6Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "DNSNames": None,
    }


def network_document(network: NetworkRecord, endpoints: Iterable[EndpointRecord]) -> Document:
    """Return a network as the API shows it."""
    pools: list[Document] = []
    if network.subnet:
        pools = [{"Subnet": network.subnet, "Gateway": network.gateway}]
        if network.ip_range:
            pools[0]["IPRange"] = network.ip_range
    return {
        "Name": network.name,
        "Id": network.id,
        "Created": times.rfc3339(network.created_at_ns),
        "Scope": "local",
        "Driver": network.driver,
        "EnableIPv4": True,
        "EnableIPv6": False,
        "IPAM": {"Driver": "default", "Options": None, "Config": pools},
        "Internal": network.internal,
        "Attachable": network.attachable,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {
            endpoint.container_id: {
                "Name": endpoint.container_name,
                "EndpointID": endpoint.id,
                "MacAddress": endpoint.mac,
                "IPv4Address": f"{endpoint.address}/{endpoint.prefix_length}"
                if endpoint.address
                else "",
                "IPv6Address": "",
            }
            for endpoint in endpoints
        },
        "Options": network.options,
        "Labels": network.labels,
    }
