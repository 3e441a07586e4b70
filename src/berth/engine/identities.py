"""User namespaces: which containers get one, and with whose ids."""

from __future__ import annotations

from typing import TYPE_CHECKING

from berth.errors import Conflict, InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterable

    from berth.configuration.subordinate import IdMaps
    from berth.engine.models import ContainerRecord, HostConfig
    from berth.oci.runtime_spec import IdMapping, Linux

HOST = "host"


def maps(host: HostConfig, of_engine: IdMaps | None) -> IdMaps | None:
    """Return the ids of a new container, None for the host's; refuse what needs the host's."""
    if of_engine is None or host.userns_mode == HOST:
        return None
    if host.privileged:
        raise InvalidArgument(
            "privileged mode is incompatible with user namespaces.  You must run the container in the"
            " host namespace when running privileged mode"
        )
    if host.network_mode == HOST:
        raise InvalidArgument(
            "cannot share the host's network namespace when user namespaces are enabled"
        )
    if host.pid_mode == HOST:
        raise InvalidArgument(
            "cannot share the host PID namespace when user namespaces are enabled"
        )
    return of_engine


def mappings(record: ContainerRecord) -> Linux:
    """Return what the ``linux`` of a container's spec says about its ids."""
    if record.id_maps is None:
        return {}
    return {
        "uidMappings": [_mapping(*span) for span in record.id_maps.uids],
        "gidMappings": [_mapping(*span) for span in record.id_maps.gids],
    }


def _mapping(inside: int, outside: int, size: int) -> IdMapping:
    return {"containerID": inside, "hostID": outside, "size": size}


def shared_namespace(record: ContainerRecord, others: Iterable[ContainerRecord]) -> str | None:
    """Return the user namespace to join: that of those whose other namespaces are joined.

    None for a container with the host's ids, which may join any.
    """
    if record.id_maps is None:
        return None
    found = {other.id: other for other in others}
    if len(found) > 1:
        raise Conflict(
            "cannot join namespaces of several containers, each in a user namespace of its own",
            hint="use --userns host",
        )
    for other in found.values():
        if other.id_maps != record.id_maps:
            raise Conflict(
                f"cannot join namespaces of container {other.id}, which has other ids on the host",
                hint="use the same --userns for both",
            )
        return f"/proc/{other.pid}/ns/user"
    return None
