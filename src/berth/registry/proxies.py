"""Which proxy a request goes through: HTTP_PROXY, HTTPS_PROXY and NO_PROXY as Go reads them.

Entries of NO_PROXY are host names (their subdomains too), addresses, CIDR blocks, each with an optional
port, or ``*``. This machine itself is never asked for through a proxy.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

PORTS = {"http": 80, "https": 443}


def proxy_for(url: str, environment: Mapping[str, str]) -> str | None:
    """Return the proxy's URL, or None for a direct connection."""
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    port = parts.port or PORTS.get(parts.scheme, 0)
    proxy = _variable(environment, f"{parts.scheme}_proxy")
    if not proxy or _is_excepted(host, port, _variable(environment, "no_proxy")):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def origin(url: str) -> tuple[str, str, int]:
    """Return what must be equal for credentials to be sent along."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or PORTS.get(parts.scheme, 0)


def _variable(environment: Mapping[str, str], name: str) -> str:
    return environment.get(name.upper()) or environment.get(name) or ""


def _is_excepted(host: str, port: int, no_proxy: str) -> bool:
    address = address_of(host)
    if host == "localhost" or (address is not None and address.is_loopback):
        return True
    return any(
        _matches(entry.strip().lower(), host, address, port) for entry in no_proxy.split(",")
    )


Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _matches(entry: str, host: str, address: Address | None, port: int) -> bool:
    if entry == "*":
        return True
    if "/" in entry:
        return address is not None and contains(entry, address)
    name, _, entry_port = entry.rpartition(":") if entry.count(":") == 1 else (entry, "", "")
    if not name or (entry_port and entry_port != str(port)):
        return False
    if address is not None:
        return address_of(name.strip("[]")) == address
    name = name.removeprefix("*")
    return host.endswith(name) if name.startswith(".") else f".{host}".endswith(f".{name}")


def address_of(host: str) -> Address | None:
    """Return the address that ``host`` is when it is no name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def contains(block: str, address: Address) -> bool:
    """Say whether ``address`` is in the CIDR ``block``; a block that is none contains nothing."""
    try:
        return address in ipaddress.ip_network(block, strict=False)
    except ValueError:
        return False
