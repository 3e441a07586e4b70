"""Where a repository is found: mirrors first, then the registry, and by which protocol.

``hosts.toml`` may say so (:mod:`berth.registry.hosts`). Else:

As Docker does: a registry is asked by https; one that counts as insecure by https without looking at the
certificate, and if that fails by http. Insecure are loopback addresses and what the options say.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from berth.errors import InvalidArgument
from berth.registry.places import FOLDERS, Endpoint, Tls
from berth.registry.proxies import Address, address_of, contains

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

PULLING = ("pull", "resolve")
HUB_DOMAIN = "docker.io"
HUB_HOST = "registry-1.docker.io"
ALWAYS_INSECURE = ("127.0.0.0/8", "::1/128")


class Endpoints:
    """The options ``--registry-mirror URL`` and ``--insecure-registry CIDR|HOST``."""

    def __init__(
        self,
        mirrors: Sequence[str],
        insecure: Sequence[str],
        folders: Sequence[Path] = FOLDERS,
    ) -> None:
        self._folders = folders
        self._mirrors = [_check_mirror(mirror) for mirror in mirrors]
        self._insecure_blocks = [*ALWAYS_INSECURE, *(rule for rule in insecure if "/" in rule)]
        self._insecure_hosts = {rule.lower() for rule in insecure if "/" not in rule}

    def describe(self) -> dict[str, object]:
        """Return the options as the Engine API shows them (RegistryConfig)."""
        hub = {"Name": "docker.io", "Mirrors": self._mirrors, "Secure": True, "Official": True}
        known = {"docker.io": hub}
        for host in sorted(self._insecure_hosts):
            known[host] = {"Name": host, "Mirrors": [], "Secure": False, "Official": False}
        return {
            "IndexConfigs": known,
            "InsecureRegistryCIDRs": self._insecure_blocks,
            "Mirrors": self._mirrors,
        }

    def of(self, domain: str, actions: Collection[str] = PULLING) -> list[Endpoint]:
        """Return where to do something with the repositories of ``domain``, in order.

        May resolve its name. What ``hosts.toml`` says comes in place of the registry itself.
        """
        from berth.registry.hosts import configured

        found = configured(domain, self._folders, set(actions))
        if found is None:
            found = self._registry(domain)
        if domain != HUB_DOMAIN or "push" in actions:
            return found
        return [*map(self._mirror, self._mirrors), *found]

    def itself(self, domain: str) -> list[Endpoint]:
        """Return where a registry itself is, no mirrors: who may see its passwords."""
        found = [place for place in self.of(domain, ()) if not place.mirror]
        return found or self._registry(domain)

    def _mirror(self, url: str) -> Endpoint:
        insecure = self.is_insecure(urlsplit(url).netloc.rpartition("@")[2])
        return Endpoint(url=url, tls=Tls(verify=not insecure), mirror=True)

    def _registry(self, domain: str) -> list[Endpoint]:
        if domain == HUB_DOMAIN:
            return [Endpoint(url=f"https://{HUB_HOST}")]
        if not self.is_insecure(domain):
            return [Endpoint(url=f"https://{domain}")]
        return [
            Endpoint(url=f"https://{domain}", tls=Tls(verify=False)),
            Endpoint(url=f"http://{domain}", tls=Tls(verify=False)),
        ]

    def is_insecure(self, domain: str) -> bool:
        """Say whether ``host[:port]`` is named by a rule, or an address of it is in a block."""
        try:
            host = urlsplit(f"//{domain}").hostname or ""
        except ValueError as error:
            raise InvalidArgument(f"invalid registry {domain!r}: {error}") from None
        if domain.lower() in self._insecure_hosts or host in self._insecure_hosts:
            return True
        return any(
            contains(block, address)
            for address in _resolve(host)
            for block in self._insecure_blocks
        )


def _resolve(host: str) -> list[Address]:
    if address := address_of(host):
        return [address]
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):  # UnicodeError: no name of a host
        return []
    return [a for entry in found if (a := address_of(str(entry[4][0]).partition("%")[0]))]


def _check_mirror(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise InvalidArgument(f'invalid mirror: "{url}": use http://HOST[:PORT] or https://…')
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise InvalidArgument(
            f'invalid mirror: path, query or fragment at the end of the URI "{url}"'
        )
    return url.rstrip("/")
