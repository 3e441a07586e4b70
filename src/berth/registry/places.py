"""Places where registries answer, and the folders that say something of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from berth.registry.proxies import origin

if TYPE_CHECKING:
    from collections.abc import Sequence

FOLDERS = (
    Path("/etc/berth/certs.d"),
    Path("/etc/docker/certs.d"),
    Path("/etc/containers/certs.d"),
)


@dataclass(frozen=True, slots=True)
class Tls:
    """What is said of one server apart from its folder."""

    verify: bool = True
    authorities: tuple[Path, ...] = ()
    identities: tuple[tuple[Path, ...], ...] = ()  # a certificate, and its key if that is apart


NO_TLS = Tls()


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A place where a registry answers. ``url`` has no path; ``path`` is that of the API's root."""

    url: str
    tls: Tls = NO_TLS
    mirror: bool = False
    path: str = "/v2"
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def api(self) -> str:
        """The URL of the API's root, without a slash at its end."""
        return self.url + self.path

    def tls_of(self, url: str) -> Tls:
        """Return what to show and to trust at another URL: at other origins no certificate of ours."""
        return self.tls if origin(url) == origin(self.url) else Tls(verify=self.tls.verify)


def folder_of(netloc: str, folders: Sequence[Path]) -> Path | None:
    """Return the directory of a registry's certificates, None when there is none."""
    host = netloc.rpartition("@")[2]
    if not host or "/" in host or host.startswith("."):
        return None
    return next((found for folder in folders if (found := folder / host).is_dir()), None)
