"""`--link` on the default bridge: another container's address in hosts, its ports in variables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from berth.engine import status
from berth.engine.networking import exposed_ports, parse_port
from berth.errors import InvalidArgument, NotFound
from berth.network.networks import DEFAULT

if TYPE_CHECKING:
    from collections.abc import Callable

    from berth.engine.models import ContainerRecord, HostConfig
    from berth.network.service import NetworkService

    Find = Callable[[str], ContainerRecord]


@dataclass(frozen=True, slots=True)
class Link:
    """Another container under an alias, at its address."""

    record: ContainerRecord
    alias: str
    address: str


def check(host: HostConfig, find: Find) -> None:
    """Refuse links to containers that there are not."""
    for entry in host.links or []:
        ref, _, _ = entry.partition(":")
        try:
            find(ref)
        except NotFound:
            raise InvalidArgument(
                f"could not get container for {ref}: No such container: {ref}"
            ) from None


def resolve(record: ContainerRecord, service: NetworkService, find: Find) -> list[Link]:
    """Return what a container that starts is linked with; all of it must run."""
    found = []
    for entry in record.host_config.links or [] if DEFAULT in record.networks else []:
        ref, _, alias = entry.partition(":")
        other = find(ref)
        alias = alias or other.name
        if other.status not in status.ALIVE:
            raise InvalidArgument(
                f"Cannot link to a non running container: /{other.name} AS /{record.name}/{alias}"
            )
        places = {e.network_name: e.address for e in service.endpoints_of(other.id)}
        found.append(Link(other, alias, places.get(DEFAULT, "")))
    return found


def hosts(record: ContainerRecord, service: NetworkService, find: Find) -> list[tuple[str, str]]:
    """Return the lines of hosts: address, names."""
    links = resolve(record, service, find)
    return [
        (link.address, " ".join(dict.fromkeys((link.alias, link.record.id[:12], link.record.name))))
        for link in links
    ]


def environment(record: ContainerRecord, service: NetworkService, find: Find) -> list[str]:
    """Return the variables by which programs of old find a linked container."""
    found = []
    for link in resolve(record, service, find):
        name = link.alias.upper().replace("-", "_")
        ports = sorted(map(parse_port, exposed_ports(link.record)))
        for number, (port, protocol) in enumerate(ports):
            url = f"{protocol}://{link.address}:{port}"
            if number == 0:
                found.append(f"{name}_PORT={url}")
            prefix = f"{name}_PORT_{port}_{protocol.upper()}"
            found += [f"{prefix}={url}", f"{prefix}_ADDR={link.address}"]
            found += [f"{prefix}_PORT={port}", f"{prefix}_PROTO={protocol}"]
        found.append(f"{name}_NAME=/{record.name}/{link.alias}")
        for variable in link.record.config.env or []:
            key, equals, value = variable.partition("=")
            if equals and key not in ("HOME", "PATH"):
                found.append(f"{name}_ENV_{key}={value}")
    return found
