"""`--link` on the default bridge: another container's address in hosts, its ports in variables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from berth.engine import status
from berth.engine.networking import UNNAMED, exposed_ports, parse_port
from berth.errors import Failed, InvalidArgument, NotFound
from berth.network.networks import DEFAULT, NONE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from berth.engine.models import ContainerRecord, HostConfig
    from berth.network.service import NetworkService

    Find = Callable[[str], ContainerRecord]


@dataclass(frozen=True, slots=True)
class Link:
    """Another container under an alias, at its address."""

    record: ContainerRecord
    alias: str
    address: str


def settle(host: HostConfig, find: Find) -> None:
    """Write links as NAME:ALIAS; refuse those to containers that there are not.

    In a network that somebody made they are names only, and may lead to what comes later.
    """
    if host.network_mode not in (DEFAULT, NONE, *UNNAMED):
        return
    for number, entry in enumerate(host.links or ()):
        ref, _, alias = entry.partition(":")
        try:
            other = find(ref)
        except NotFound:
            raise InvalidArgument(
                f"could not get container for {ref}: No such container: {ref}"
            ) from None
        assert host.links is not None
        host.links[number] = f"{other.name}:{alias or ref.removeprefix('/')}"


def of(record: ContainerRecord) -> dict[str, str]:
    """Return the names of the containers that one on the default network is linked with, by alias."""
    entries = record.host_config.links or [] if DEFAULT in record.networks else []
    pairs = (entry.partition(":") for entry in entries)
    return {alias or name: name for name, _, alias in pairs}


def shown(record: ContainerRecord) -> list[str] | None:
    """Return links as inspect shows them."""
    return [f"/{name}:/{record.name}/{alias}" for alias, name in of(record).items()] or None


def names(record: ContainerRecord, others: Iterable[ContainerRecord]) -> list[str]:
    """Return a container's names: its own, and those that it has by the links of ``others``."""
    linked = (
        f"/{other.name}/{alias}"
        for other in others
        if other.host_config.links
        for alias, name in of(other).items()
        if name == record.name
    )
    return [f"/{record.name}", *linked]


def rename(others: Iterable[ContainerRecord], old: str, new: str) -> list[ContainerRecord]:
    """Let links follow a container to its new name; return the containers that have them."""
    changed = []
    for other in others:
        links = other.host_config.links or []
        other.host_config.links = [
            f"{new}:{entry.partition(':')[2]}" if entry.partition(":")[0] == old else entry
            for entry in links
        ]
        if other.host_config.links != links:
            changed.append(other)
    return changed


def remove(ref: str, find: Find) -> tuple[ContainerRecord, str]:
    """Take the link ``ref`` ("NAME/ALIAS") from the container that has it; return that and the alias."""
    find(ref)
    parent, _, alias = ref.strip("/").rpartition("/")
    if not parent:
        raise Failed("Conflict, cannot remove the default link name of the container")
    record = find(parent)
    kept = [(name, other) for other, name in of(record).items() if other != alias]
    record.host_config.links = [f"{name}:{other}" for name, other in kept]
    return record, alias


def resolve(record: ContainerRecord, service: NetworkService, find: Find) -> list[Link]:
    """Return what a container that starts is linked with; all of it must run."""
    found = []
    for alias, name in of(record).items():
        other = find(name)
        if other.status not in status.ALIVE:
            raise InvalidArgument(
                f"Cannot link to a non running container: /{other.name} AS /{record.name}/{alias}"
            )
        places = {e.network_name: e.address for e in service.endpoints_of(other.id)}
        if DEFAULT not in places:
            raise Failed(
                f"Cannot link to /{other.name}, as it does not belong to the default network"
            )
        found.append(Link(other, alias, places.get(DEFAULT, "")))
    return found


def hosts(record: ContainerRecord, service: NetworkService, find: Find) -> list[tuple[str, str]]:
    """Return the lines of hosts: address, names."""
    return [_line(link) for link in resolve(record, service, find)]


def follow(
    record: ContainerRecord, others: Iterable[ContainerRecord], address: str
) -> Iterator[tuple[ContainerRecord, list[tuple[str, str]]]]:
    """Yield the running containers with a link to one that starts, with their lines of hosts for it."""
    for other in others:
        if other.host_config.links and other.status in status.ALIVE:
            found = [alias for alias, name in of(other).items() if name == record.name]
            if found:
                yield other, [_line(Link(record, alias, address)) for alias in found]


def _line(link: Link) -> tuple[str, str]:
    names = dict.fromkeys((link.alias, link.record.id[:12], link.record.name))
    return link.address, " ".join(names)


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
