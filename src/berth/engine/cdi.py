"""Devices that vendors describe for containers: the Container Device Interface, specification 1.0.

A file describes the devices of one kind ("vendor.com/gpu"), and what each adds to a container.
https://github.com/cncf-tags/container-device-interface/blob/main/SPEC.md
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from berth.engine.models import MountPoint
from berth.errors import Failed, InvalidArgument, Unsupported

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from berth.engine.models import DeviceRequest, HostConfig

log = logging.getLogger("berth")

# What the machine's administrator and its programs say; the later one counts more.
FOLDERS = ("/etc/cdi", "/var/run/cdi")
DRIVER = "cdi"
FAILED = "CDI device injection failed: "


class Node(msgspec.Struct, rename="camel"):
    """A device node; what is not said of it is as on the host."""

    path: str
    host_path: str = ""
    permissions: str = "rwm"
    file_mode: int | None = None
    uid: int | None = None
    gid: int | None = None


class Bind(msgspec.Struct, rename="camel"):
    """A path of the host's in the container."""

    host_path: str
    container_path: str
    options: list[str] = []


class Edits(msgspec.Struct, rename="camel"):
    """What a device adds to a container."""

    env: list[str] = []
    device_nodes: list[Node] = []
    mounts: list[Bind] = []
    hooks: list[msgspec.Raw] = []
    additional_gids: list[int] = msgspec.field(default_factory=list, name="additionalGids")


class Device(msgspec.Struct, rename="camel"):
    """One device of a kind."""

    name: str
    container_edits: Edits = msgspec.field(default_factory=Edits)


class Description(msgspec.Struct, rename="camel"):
    """A file: a kind, its devices, and what all of them add."""

    kind: str
    devices: list[Device] = []
    container_edits: Edits = msgspec.field(default_factory=Edits)


def requested(host: HostConfig) -> list[str]:
    """Return the names of the devices that a container is to have."""
    requests = [request for request in host.device_requests or [] if request.driver == DRIVER]
    return [name for request in requests for name in request.device_ids or []]


def check(request: DeviceRequest) -> None:
    """Refuse a request that makes no sense, in Docker's words."""
    if request.count:
        raise InvalidArgument("unexpected count in CDI device request")
    if request.options:
        raise InvalidArgument("unexpected options in CDI device request")


def edits(host: HostConfig) -> list[Edits]:
    """Return what the devices of a container add to it; Failed when one is not described."""
    names = requested(host)
    if not names:
        return []
    known = dict(_devices())
    missing = [name for name in names if name not in known]
    if missing:
        raise Failed(f"{FAILED}unresolvable CDI devices {', '.join(missing)}")
    found: list[Edits] = []
    for name in names:
        description, device = known[name]
        own = (description.container_edits, device.container_edits)
        found += [part for part in own if part not in found]
    if any(part.hooks for part in found):
        raise Unsupported(f"{FAILED}hooks of {', '.join(names)} are not run by this engine")
    return found


def environment(host: HostConfig) -> list[str]:
    """Return the variables that a container's devices set."""
    return [entry for part in edits(host) for entry in part.env]


def groups(host: HostConfig) -> list[str]:
    """Return the additional groups that a container's devices need."""
    return [str(gid) for part in edits(host) for gid in part.additional_gids]


def mount_points(host: HostConfig) -> list[MountPoint]:
    """Return what of the host's files a container's devices need."""
    return [
        MountPoint(
            kind="bind",
            target=bind.container_path,
            source=bind.host_path,
            read_only="ro" in bind.options,
            propagation="rprivate",
        )
        for part in edits(host)
        for bind in part.mounts
    ]


def _devices() -> Iterator[tuple[str, tuple[Description, Device]]]:
    for path in _files(FOLDERS):
        try:
            description = _read(path)
        except (OSError, msgspec.DecodeError) as error:  # others are described well
            log.warning("%s: %s", path, error)
            continue
        for device in description.devices:
            yield f"{description.kind}={device.name}", (description, device)


def _files(folders: Iterable[str]) -> Iterator[Path]:
    for folder in map(Path, folders):
        if folder.is_dir():
            yield from (
                path for path in sorted(folder.iterdir()) if path.suffix in (".json", ".yaml")
            )


def _read(path: Path) -> Description:
    data = path.read_bytes()
    if path.suffix == ".json":
        return msgspec.json.decode(data, type=Description)
    try:
        return msgspec.yaml.decode(data, type=Description)
    except ImportError as error:
        raise Failed(f"{FAILED}{path} is YAML, which needs the Python package PyYAML") from error
