"""Where the administrator says that a registry's images are: containerd's ``certs.d/HOST/hosts.toml``.

A table ``[host."URL"]`` for each place to ask, in order, and ``server``, which is asked last. Known of
each: ``capabilities``, ``ca``, ``client``, ``skip_verify``, ``override_path`` and ``header``. A folder
``_default`` counts for registries that have none. A place of another name than the registry's is a mirror.
"""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from berth.errors import InvalidArgument
from berth.registry.endpoints import HUB_DOMAIN, HUB_HOST
from berth.registry.places import Endpoint, Tls, folder_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

FILE = "hosts.toml"
DEFAULT = "_default"
PULL, RESOLVE, PUSH = "pull", "resolve", "push"


class _Host(msgspec.Struct, kw_only=True):
    capabilities: tuple[str, ...] = (PULL, RESOLVE, PUSH)
    ca: str | list[str] = []
    client: str | list[str | list[str]] = []
    skip_verify: bool = False
    override_path: bool = False
    header: dict[str, str | list[str]] = {}


class _Hosts(_Host, kw_only=True):
    server: str = ""
    host: dict[str, _Host] = {}


def configured(domain: str, folders: Sequence[Path], actions: set[str]) -> list[Endpoint] | None:
    """Return where the repositories of ``domain`` are for these actions; None when nothing is said.

    InvalidArgument names a file that cannot be read.
    """
    folder = _folder(domain, folders)
    if folder is None:
        return None
    path = folder / FILE
    try:
        text = path.read_text()
        hosts = msgspec.convert(tomllib.loads(text), _Hosts)
        own = HUB_HOST if domain == HUB_DOMAIN else domain
        places = [*hosts.host.items(), (hosts.server or f"https://{own}", hosts)]
        last = len(places) - 1
        return [
            _endpoint(url, host, folder, names=(domain, own))
            for number, (url, host) in enumerate(places)
            if number == last or actions.issubset(host.capabilities)
        ]
    except (OSError, ValueError, msgspec.ValidationError) as error:
        raise InvalidArgument(f"read {path}: {error}") from error


def _folder(domain: str, folders: Sequence[Path]) -> Path | None:
    for name in (domain, DEFAULT):
        for base in folders:
            found = folder_of(name, (base,))
            if found is not None and (found / FILE).is_file():
                return found
    return None


def _endpoint(url: str, host: _Host, folder: Path, *, names: tuple[str, ...]) -> Endpoint:
    if "://" not in url:
        url = f"https://{url}"
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment:
        raise ValueError(f"{url!r} is no URL of a registry")
    path = parts.path.rstrip("/")
    if not host.override_path and not path.endswith("/v2"):
        path += "/v2"
    identities = [host.client] if isinstance(host.client, str) else host.client
    pairs = [[one] if isinstance(one, str) else one for one in identities]
    authorities = [host.ca] if isinstance(host.ca, str) else host.ca
    headers = {
        name: value if isinstance(value, str) else ", ".join(value)
        for name, value in host.header.items()
    }
    return Endpoint(
        url=f"{parts.scheme}://{parts.netloc}",
        path=path,
        tls=Tls(
            verify=not host.skip_verify,
            authorities=tuple(folder / ca for ca in authorities),
            identities=tuple(tuple(folder / file for file in pair) for pair in pairs),
        ),
        mirror=parts.netloc not in names,
        headers=tuple(headers.items()),
    )
