"""From a container's configuration to what it asks of networks."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from berth.engine import spec
from berth.engine.networkmodels import EndpointIpam
from berth.engine.networkmodels import EndpointRequest as EndpointConfig
from berth.errors import InvalidArgument
from berth.network import options, shaping
from berth.network.networks import DEFAULT, HOST, NONE
from berth.network.records import PROTOCOLS, EndpointRequest, PortRequest, SandboxRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from berth.engine.models import ContainerConfig, ContainerRecord, HostConfig

    Networks = dict[str, EndpointConfig]

MAX_PORT = 65_535
MAX_PORT_DIGITS = 9
UNNAMED = ("default", "")


def settle(
    host: HostConfig, networks: Mapping[str, EndpointConfig], *, find: Callable[[str], str]
) -> Networks:
    """Name the default network, and return the networks to be in, the first one first.

    ``find`` returns the name of a network that may be given by its id, or what it does not know.
    """
    if host.network_mode in UNNAMED:
        host.network_mode = DEFAULT
    if spec.shared_container(host.network_mode) is not None:
        return {}
    for value in networks.values():
        shaping.parse(value.driver_opts)
        options.device_name(value.driver_opts or {})
    asked = {find(DEFAULT if name in UNNAMED else name): value for name, value in networks.items()}
    first = find(host.network_mode)
    return {first: asked.pop(first, None) or EndpointConfig(), **asked}


def check_mode(
    config: ContainerConfig, host: HostConfig, networks: Mapping[str, EndpointConfig]
) -> None:
    """Refuse what does not go together with the network of another container, or with the host's."""
    shares = spec.shared_container(host.network_mode) is not None
    mac = any(asked.mac_address for asked in networks.values())
    conflicts = {
        "hostname and the network mode": shares and config.hostname,
        "container type network can't be used with links. This would result in undefined behavior": (
            shares and host.links
        ),
        "host type networking can't be used with links. This would result in undefined behavior": (
            host.network_mode == HOST and host.links
        ),
        "dns and the network mode": shares and host.dns,
        "custom host-to-IP mapping and the network mode": shares and host.extra_hosts,
        "mac-address and the network mode": (shares or host.network_mode == HOST) and mac,
        "port publishing and the container type network mode": shares
        and (any((host.port_bindings or {}).values()) or host.publish_all_ports),
        "port exposing and the container type network mode": shares and config.exposed_ports,
    }
    for text, is_so in conflicts.items():
        if is_so:
            raise InvalidArgument(f"conflicting options: {text}")


def gets_namespace(record: ContainerRecord) -> bool:
    """Say whether the container starts in a network namespace that was made for it before.

    One that is in no network makes its own, and so does one that was taken out of all of them.
    """
    is_plain = not record.networks or NONE in record.networks
    return not is_plain and record.host_config.network_mode != HOST


def parse_port(text: str) -> tuple[int, str]:
    """Split "80/tcp"; the protocol is tcp unless said."""
    number, _, protocol = text.partition("/")
    protocol = protocol.lower() or "tcp"
    is_number = number.isascii() and number.isdigit() and len(number) <= MAX_PORT_DIGITS
    if protocol not in PROTOCOLS or not is_number or not 0 < int(number) <= MAX_PORT:
        raise InvalidArgument(f"invalid port specification: {text!r}")
    return int(number), protocol


def is_port(text: str) -> bool:
    """Say whether it is one: what an image says, nobody has looked at."""
    try:
        parse_port(text)
    except InvalidArgument:
        return False
    return True


def exposed_ports(record: ContainerRecord) -> list[str]:
    """Return the ports that a container says it serves or publishes, as "80/tcp"."""
    found = dict.fromkeys(record.config.exposed_ports or {})
    found.update(dict.fromkeys(record.host_config.port_bindings or {}))
    return ["{}/{}".format(*parse_port(text)) for text in found if is_port(text)]


def _host_ports(text: str) -> tuple[int, int]:
    """Return the first and the last port of the host that will do: "8080" or "8080-8090"."""
    first, _, last = (text or "0").partition("-")
    last = last or first
    digits = first + last
    is_numbers = bool(first and last) and digits.isascii() and digits.isdigit()
    is_short = max(len(first), len(last)) <= MAX_PORT_DIGITS
    if not (is_numbers and is_short and int(first) <= int(last) <= MAX_PORT):
        raise InvalidArgument(f"invalid port specification: {text!r}")
    return int(first), int(last)


def port_requests(record: ContainerRecord) -> tuple[PortRequest, ...]:
    """Return the ports to publish; with --publish-all also those that are only exposed."""
    host = record.host_config
    found = []
    bindings = host.port_bindings or {}
    for text, places in bindings.items():
        port, protocol = parse_port(text)
        for place in places or []:
            first, last = _host_ports(place.host_port)
            found.append(
                PortRequest(
                    container_port=port,
                    protocol=protocol,
                    host_ip=place.host_ip,
                    host_port=first,
                    last_host_port=last,
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


def sandbox_request(
    record: ContainerRecord, earlier: Mapping[str, Sequence[str]] | None = None
) -> SandboxRequest | None:
    """Return what to connect; None for a container that shares another's network.

    ``earlier``: addresses that it had, by its networks.
    """
    if spec.shared_container(record.host_config.network_mode) is not None:
        return None
    return SandboxRequest(
        container_id=record.id,
        container_name=record.name,
        hostname=record.config.hostname,
        endpoints=tuple(
            replace(endpoint_request(name, asked), earlier=tuple((earlier or {}).get(name, ())))
            for name, asked in record.networks.items()
        ),
        ports=port_requests(record),
        servers=tuple(record.host_config.dns or ()),
    )


def endpoint_request(network: str, asked: EndpointConfig) -> EndpointRequest:
    """Return what is asked of one network."""
    addresses = asked.ipam_config or EndpointIpam()
    return EndpointRequest(
        network=network,
        address=addresses.ipv4_address,
        address6=addresses.ipv6_address,
        link_local=tuple(addresses.link_local_ips),
        mac=asked.mac_address,
        aliases=tuple(asked.aliases or ()),
        links=tuple(asked.links or ()),
        gateway_priority=asked.gw_priority,
        options=dict(asked.driver_opts or {}),
    )
