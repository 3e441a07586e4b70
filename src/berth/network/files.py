"""The texts of a container's hosts, hostname and resolv.conf, as Docker writes them."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

FALLBACK_SERVERS = ("8.8.8.8", "8.8.4.4")  # Docker's, for a host whose resolvers are all its own

RESOLV_CONF, HOSTS = "/etc/resolv.conf", "/etc/hosts"
_STUB, _BEHIND_STUB = "127.0.0.53", "/run/systemd/resolve/resolv.conf"

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
    base: str | None = None,
) -> str:
    """Return /etc/hosts: the well-known part, ``extra`` (address, names), then the container itself.

    ``base`` takes the place of the well-known part.
    """
    lines = [f"{address}\t{name}\n" for address, name in extra]
    names = own_names(hostname, domainname)
    lines += [f"{address}\t{names}\n" for address in addresses]
    return (_HOSTS if base is None else base) + "".join(lines)


def own_names(hostname: str, domainname: str) -> str:
    """Return what a container calls itself: the full name, which may be the host name, and the bare one."""
    whole = f"{hostname}.{domainname}" if domainname else hostname
    bare, dot, _ = whole.partition(".")
    return f"{whole} {bare}" if dot else whole


def host_hosts() -> str:
    """Return the host's hosts file."""
    return _read(HOSTS)


def extra_hosts(entries: Iterable[str], *, host_gateways: Sequence[str]) -> list[tuple[str, str]]:
    """Split --add-host entries into (address, name); ``host-gateway`` becomes the given addresses."""
    found = []
    for entry in entries:
        name, _, address = entry.partition(":")
        addresses = host_gateways if address == "host-gateway" else (address.strip("[]"),)
        found += [(one, name) for one in addresses]
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
    resolver: str = "",
) -> str:
    """Return /etc/resolv.conf from the host's, with what was given in place of what the host has.

    In a namespace of its own a container cannot reach the host's loopback resolvers; they are left
    out, and when none is left public ones take their place. ``search`` of "." means no search.
    ``resolver``: the only one to be asked; it asks the others, and knows names without dots.
    """
    lines = [line.split() for line in host.splitlines()]
    lines = [words for words in lines if words and words[0][0] not in "#;"]
    found = [resolver] if resolver else list(servers) or name_servers(host)
    if own_namespace and not servers and not resolver:
        found = [server for server in found if not _is_unreachable(server)] or [*FALLBACK_SERVERS]
    searched = list(search) or next((w[1:] for w in reversed(lines) if w[0] == "search"), [])
    chosen = list(options) or next((w[1:] for w in reversed(lines) if w[0] == "options"), [])
    if resolver and not any(word.startswith("ndots:") for word in chosen):
        chosen.append("ndots:0")
    text = "".join(f"nameserver {server}\n" for server in found)
    if searched and searched != ["."]:
        text += f"search {' '.join(searched)}\n"
    if chosen:
        text += f"options {' '.join(chosen)}\n"
    return text


def name_servers(text: str) -> list[str]:
    """Return the name servers of a resolv.conf."""
    lines = [line.split() for line in text.splitlines()]
    return [words[1] for words in lines if len(words) > 1 and words[0] == "nameserver"]


def host_resolv_conf() -> str:
    """Return the host's resolv.conf; where it names only systemd's stub, the one behind it."""
    text = _read(RESOLV_CONF)
    if name_servers(text) == [_STUB]:
        return _read(_BEHIND_STUB) or text
    return text


def _read(path: str) -> str:
    try:
        with open(path, errors="replace") as file:  # noqa: PTH123 - read at every start
            return file.read()
    except OSError:
        return ""


def with_address(text: str, address: str, names: str) -> str:
    """Return a hosts file with one more line at the end, or the same if it has that."""
    line = f"{address}\t{names}\n"
    if line in text.splitlines(keepends=True):
        return text
    return text + ("" if text.endswith("\n") or not text else "\n") + line


def without_names(text: str, names: str) -> str:
    """Return a hosts file without the line of exactly these names."""
    lines = text.splitlines(keepends=True)
    return "".join(line for line in lines if line.split()[1:] != names.split())


def without_address(text: str, address: str) -> str:
    """Return a hosts file without the lines of an address."""
    lines = text.splitlines(keepends=True)
    return "".join(line for line in lines if line.split()[:1] != [address])


def _is_unreachable(server: str) -> bool:
    """Loopback, or IPv6, which containers do not have yet."""
    try:
        address = ip_address(server.partition("%")[0])
    except ValueError:
        return True
    return address.is_loopback or address.version == 6
