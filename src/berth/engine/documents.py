"""Containers as the API shows them: inspect and lists."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from berth.engine import links, mountpoints, networksettings, security, status
from berth.engine.logoptions import JSON_FILE
from berth.oci import times
from berth.runtime.requests import OverlayRootfs

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from berth.engine.health import State as Health
    from berth.engine.models import ContainerRecord
    from berth.network.records import EndpointRecord, NetworkRecord
    from berth.runtime.requests import Rootfs

Document = dict[str, object]
# Lists that clients expect as such, not as null.
NONE = "none"  # of a container's health
LISTS = ("BlkioWeightDevice", "Devices")
# What Docker leaves out when there is nothing to say.
OPTIONAL = ("Annotations", "Init", "Mounts", "StorageOpt", "Tmpfs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What belongs to a container beside its record."""

    folder: Path
    files_folder: Path  # of its hosts and resolv.conf: its own, or that of whose network it shares
    driver: str = ""  # of the storage
    rootfs: Rootfs | None = None
    endpoints: tuple[EndpointRecord, ...] = ()
    networks: Mapping[str, NetworkRecord] = field(default_factory=dict)  # by name
    exec_ids: tuple[str, ...] = ()
    health: Health | None = None
    names: list[str] | None = None  # when it has more than one


def state(record: ContainerRecord, health: Health | None = None) -> Document:
    """Return inspect's State."""
    found: Document = {
        "Status": record.status,
        "Running": record.status in (*status.ALIVE, status.RESTARTING),
        "Paused": record.status == status.PAUSED,
        "Restarting": record.status == status.RESTARTING,
        "OOMKilled": record.oom_killed,
        "Dead": record.status == status.DEAD,
        "Pid": record.pid,
        "ExitCode": record.exit_code,
        "Error": record.error,
        "StartedAt": times.rfc3339(record.started_ns),
        "FinishedAt": times.rfc3339(record.finished_ns),
    }
    if health is not None:
        found["Health"] = health.document()
    return found


def inspect(record: ContainerRecord, around: Surroundings) -> Document:
    """Return everything about a container."""
    folder = around.folder
    has_log = record.host_config.log_config.type in ("", JSON_FILE)
    return {
        "Id": record.id,
        "Created": times.rfc3339(record.created_ns),
        "Path": record.args[0],
        "Args": record.args[1:],
        "State": state(record, around.health),
        "Image": record.image_id,
        "ResolvConfPath": str(around.files_folder / "resolv.conf"),
        "HostnamePath": str(around.files_folder / "hostname"),
        "HostsPath": str(around.files_folder / "hosts"),
        "LogPath": str(folder / f"{record.id}-json.log") if has_log else "",
        "Name": f"/{record.name}",
        "RestartCount": record.restart_count,
        "Driver": around.driver,
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": list(around.exec_ids) or None,
        "HostConfig": host_config(record),
        "GraphDriver": graph_driver(around.driver, around.rootfs),
        "Mounts": mountpoints.documents(record),
        "Config": config(record),
        "NetworkSettings": networksettings.settings(record, around.endpoints, around.networks),
    }


def host_config(record: ContainerRecord) -> Document:
    """Return the host configuration, with the paths that are hidden by default."""
    shown: Document = msgspec.to_builtins(record.host_config)
    masked, read_only = security.hidden_paths(record.host_config)
    shown |= {"MaskedPaths": masked or None, "ReadonlyPaths": read_only or None}
    shown["Links"] = links.shown(record)
    shown["OomKillDisable"] = bool(shown["OomKillDisable"])
    shown["PortBindings"] = shown["PortBindings"] or {}
    shown["ConsoleSize"] = shown["ConsoleSize"] or [0, 0]
    for name in LISTS:
        shown[name] = shown[name] or []
    for name in OPTIONAL:
        if not shown[name] and shown[name] is not False:
            del shown[name]
    if shown["MemorySwappiness"] == -1:
        shown["MemorySwappiness"] = None
    if shown["LogConfig"] and not record.host_config.log_config.config:
        shown["LogConfig"] = {"Type": record.host_config.log_config.type, "Config": {}}
    return shown


def config(record: ContainerRecord) -> Document:
    """Return the configuration as it took effect."""
    shown: Document = msgspec.to_builtins(record.config)
    shown["Hostname"] = record.config.hostname or record.id[:12]
    shown["Env"] = shown_env(record)
    shown["Labels"] = shown["Labels"] or {}
    shown["Volumes"] = shown["Volumes"] or None
    for name in ("Healthcheck", "Shell", "StopSignal", "StopTimeout"):
        if shown[name] is None:
            del shown[name]
    for name in ("ExposedPorts", "NetworkDisabled"):
        if not shown[name]:
            del shown[name]
    main = record.networks.get(record.host_config.network_mode)
    if main is not None and main.mac_address:
        shown["MacAddress"] = main.mac_address
    return shown


def shown_env(record: ContainerRecord) -> list[str]:
    """Return the environment with the client's bare names: they say what is not to be set."""
    return [*record.env, *(entry for entry in record.config.env or () if "=" not in entry)]


def graph_driver(driver: str, rootfs: Rootfs | None) -> Document:
    """Return where the root's layers are; they are mounted in the container only."""
    if not isinstance(rootfs, OverlayRootfs):
        return {"Name": driver, "Data": None}
    base = rootfs.base
    lower = (name if name.startswith("/") else f"{base}/{name}" for name in rootfs.lower)
    return {
        "Name": driver,
        "Data": {
            "LowerDir": ":".join(lower),
            "MergedDir": "",
            "UpperDir": f"{base}/{rootfs.upper}",
            "WorkDir": f"{base}/{rootfs.work}",
        },
    }


def _word(word: str) -> str:
    """Return a word as lists show it: quoted when it has a space, as Docker does."""
    return f"'{word}'" if " " in word else word


def summary(record: ContainerRecord, around: Surroundings) -> Document:
    """Return what lists show of a container."""
    return {
        "Id": record.id,
        "Names": around.names or [f"/{record.name}"],
        "Image": record.config.image,
        "ImageID": record.image_id,
        "Command": " ".join(_word(word) for word in record.args),
        "Created": record.created_ns // times.SECOND_NS,
        "Ports": networksettings.summary_ports(record, around.endpoints),
        "Labels": record.config.labels or {},
        "State": record.status,
        "Status": status.describe(record, around.health.status if around.health else ""),
        "Health": {
            "Status": around.health.status if around.health else NONE,
            "FailingStreak": around.health.streak if around.health else 0,
        },
        "HostConfig": {"NetworkMode": record.host_config.network_mode},
        "NetworkSettings": {
            "Networks": networksettings.places(record, around.endpoints, around.networks)
        },
        "Mounts": mountpoints.documents(record),
    }
