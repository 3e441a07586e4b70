"""The texts of a container's hosts, hostname and resolv.conf, as Docker writes them. No I/O."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

FALLBACK_SERVERS = ("8.8.8.8", "8.8.4.4")  # Docker's, for a host whose resolvers are all its own

_HOSTS = """\
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""


def hosts(
    *,
    hostname: str,
    domainname: str = "",
    addresses: Iterable[str] = (),
    extra: Iterable[tuple[str, str]] = (),
) -> str:
    """Return /etc/hosts: the well-known part, ``extra`` (address, name), then the container itself."""
    lines = [f"{address}\t{name}\n" for address, name in extra]
    names = f"{hostname}.{domainname} {hostname}" if domainname else hostname
    lines += [f"{address}\t{names}\n" for address in addresses]
    return _HOSTS + "".join(lines)


def extra_hosts(entries: Iterable[str], *, host_gateway: str) -> list[tuple[str, str]]:
    """Split --add-host entries into (address, name); ``host-gateway`` becomes the given address."""
    found = []
    for entry in entries:
        name, _, address = entry.partition(":")
        found.append((host_gateway if address == "host-gateway" else address.strip("[]"), name))
    return found


def hostname(name: str) -> str:
    """Return /etc/hostname."""
    return name + "\n"


def resolv_conf(
    host: str,
    *,
    servers: Sequence[str] = (),
    search: Sequence[str] = (),
    options: Sequence[str] = (),
    own_namespace: bool = True,
) -> str:
    """Return /etc/resolv.conf from the host's, with what was given in place of what the host has.

    In a namespace of its own a container cannot reach the host's loopback resolvers; they are left
    out, and when none is left public ones take their place. ``search`` of "." means no search.
    """
    lines = [line.split() for line in host.splitlines()]
    lines = [words for words in lines if words and words[0][0] not in "#;"]
    found = list(servers) or [w[1] for w in lines if w[0] == "nameserver" and len(w) > 1]
    if own_namespace and not servers:
        found = [server for server in found if not _is_unreachable(server)] or [*FALLBACK_SERVERS]
    searched = list(search) or next((w[1:] for w in reversed(lines) if w[0] == "search"), [])
    chosen = list(options) or next((w[1:] for w in reversed(lines) if w[0] == "options"), [])
    text = "".join(f"nameserver {server}\n" for server in found)
    if searched and searched != ["."]:
        text += f"search {' '.join(searched)}\n"
    if chosen:
        text += f"options {' '.join(chosen)}\n"
    return text


def _is_unreachable(server: str) -> bool:
    """Loopback, or IPv6, which containers do not have yet."""
    try:
        address = ip_address(server.partition("%")[0])
    except ValueError:
        return True
    return address.is_loopback or address.version == 6
