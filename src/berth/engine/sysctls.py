"""Kernel parameters of a container: those of its own namespaces only. Pure functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from berth.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Collection

    from berth.engine.models import HostConfig

OF_IPC = frozenset(
    f"kernel.{name}"
    for name in (
        "msgmax",
        "msgmnb",
        "msgmni",
        "sem",
        "shmall",
        "shmmax",
        "shmmni",
        "shm_rmid_forced",
    )
)


# What Docker sets in each network namespace; the network's service does it in those that it makes.
OF_NO_NETWORK = {"net.ipv4.ip_unprivileged_port_start": "0"}
PING = {"net.ipv4.ping_group_range": "0 2147483647"}  # not all of these are ids in a user namespace


def checked(host: HostConfig, own: Collection[str]) -> dict[str, str]:
    """Return the parameters to set; ``own`` are the kinds of namespaces that are not the host's."""
    values = host.sysctls or {}
    for name in values:
        _check(name, own)
    if host.network_mode != "none":
        return values
    return {**OF_NO_NETWORK, **({} if "user" in own else PING), **values}


def _check(name: str, own: Collection[str]) -> None:
    if name in OF_IPC or name.startswith("fs.mqueue."):
        if "ipc" not in own:
            raise InvalidArgument(f'sysctl "{name}" is not allowed in the hosts ipc namespace')
    elif name.startswith("net."):
        if "network" not in own:
            raise InvalidArgument(f'sysctl "{name}" not allowed in host network namespace')
    elif name == "kernel.hostname" and "uts" in own:
        raise InvalidArgument(
            f'sysctl "{name}" is not allowed as it conflicts with the OCI "hostname" field'
        )
    elif name != "kernel.domainname" or "uts" not in own:
        raise InvalidArgument(f'sysctl "{name}" is not in a separate kernel namespace')
