"""The engine as its API sees it: containers, execs and images, and documents about them."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from berth import __version__
from berth.engine import status
from berth.errors import InvalidArgument
from berth.logs import reader

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from berth.engine.containers import Containers
    from berth.engine.events import Event, Events
    from berth.engine.execs import Execs
    from berth.engine.models import ContainerConfig, ContainerRecord, HostConfig
    from berth.images.service import Image, ImageService
    from berth.logs.entries import LogQuery

NEVER = "0001-01-01T00:00:00Z"
NO_BRIDGE = "this engine has no bridge network yet: the container has a loopback interface only"

Document = dict[str, object]


class Engine:
    """What the API needs of everything below it."""

    def __init__(
        self,
        *,
        containers: Containers,
        execs: Execs,
        images: ImageService,
        events: Events,
        data_root: Path,
    ) -> None:
        self.containers = containers
        self.execs = execs
        self.images = images
        self._events = events
        self._data_root = data_root

    # Containers

    async def create(
        self, config: ContainerConfig, *, name: str | None, host: HostConfig
    ) -> tuple[ContainerRecord, list[str]]:
        """Make a container; return it and warnings."""
        warnings = []
        if host.network_mode in ("", "default", "bridge"):
            host.network_mode = "none"
            warnings.append(NO_BRIDGE)
        if host.network_mode not in ("none", "host"):
            raise InvalidArgument(
                f"network {host.network_mode!r}: this engine has none and host only"
            )
        if any((host.port_bindings or {}).values()):
            raise InvalidArgument("publish ports: this engine has no bridge network yet")
        return await self.containers.create(config, name=name, host_config=host), warnings

    async def restart(
        self, ref: str, *, signal_name: str | None = None, timeout_s: int | None
    ) -> None:
        """Stop the container if it runs, then start it."""
        await self.containers.restart(ref, signal_name=signal_name, timeout_s=timeout_s)

    def summaries(
        self, *, all_: bool, limit: int | None, filters: dict[str, list[str]]
    ) -> list[Document]:
        """Return summaries of the running containers, or of ``all_``."""
        records = [
            record
            for record in self.containers.all()
            if (all_ or limit or "status" in filters or record.status in status.ALIVE)
            and matches(record, filters)
        ]
        return [self._summary(record) for record in records[: limit or None]]

    def _summary(self, record: ContainerRecord) -> Document:
        return {
            "Id": record.id,
            "Names": [f"/{record.name}"],
            "Image": record.config.image,
            "ImageID": record.image_id,
            "Command": " ".join(record.args),
            "Created": record.created_ns // 1_000_000_000,
            "Ports": [],
            "Labels": record.config.labels or {},
            "State": record.status,
            "Status": status.describe(record),
            "HostConfig": {"NetworkMode": record.host_config.network_mode},
            "NetworkSettings": {"Networks": {}},
            "Mounts": [],
        }

    def inspect(self, ref: str) -> Document:
        """Return everything about a container."""
        record = self.containers.find(ref)
        folder = self.containers.log_path(record).parent
        return {
            "Id": record.id,
            "Created": rfc3339(record.created_ns),
            "Path": record.args[0],
            "Args": record.args[1:],
            "State": {
                "Status": record.status,
                "Running": record.status in status.ALIVE,
                "Paused": record.status == status.PAUSED,
                "Restarting": record.status == status.RESTARTING,
                "OOMKilled": record.oom_killed,
                "Dead": False,
                "Pid": record.pid,
                "ExitCode": record.exit_code,
                "Error": record.error,
                "StartedAt": rfc3339(record.started_ns),
                "FinishedAt": rfc3339(record.finished_ns),
            },
            "Image": record.image_id,
            "ResolvConfPath": str(folder / "resolv.conf"),
            "HostnamePath": str(folder / "hostname"),
            "HostsPath": str(folder / "hosts"),
            "LogPath": str(self.containers.log_path(record)),
            "Name": f"/{record.name}",
            "RestartCount": record.restart_count,
            "Driver": "overlayfs",
            "Platform": "linux",
            "MountLabel": "",
            "ProcessLabel": "",
            "AppArmorProfile": "",
            "ExecIDs": None,
            "HostConfig": record.host_config,
            "GraphDriver": {"Name": "overlayfs", "Data": None},
            "Mounts": [],
            "Config": record.config,
            "NetworkSettings": {"Ports": {}, "Networks": {}},
        }

    def top(self, ref: str) -> Document:
        """Return the processes of a container."""
        record = self.containers.find(ref)
        status.require_running(record)
        rows = [row for pid in self.containers.cgroup(record).pids() if (row := process_row(pid))]
        return {"Titles": ["UID", "PID", "PPID", "CMD"], "Processes": rows}

    def logs(self, record: ContainerRecord, query: LogQuery) -> AsyncIterator[bytes]:
        """Yield the log as clients get it."""
        if record.status not in (*status.ALIVE, status.RESTARTING):
            query = replace(query, follow=False)
        return reader.read_frames(
            self.containers.log_path(record),
            query,
            terminal=record.config.tty,
            ended=self.containers.ended(record),
        )

    # Images

    def image_list(self) -> list[Document]:
        """Return summaries of all images."""
        return [
            {
                "Id": image.id,
                "ParentId": "",
                "RepoTags": image.names,
                "RepoDigests": [],
                "Created": unix_time(image.created),
                "Size": image.size_bytes,
                "SharedSize": -1,
                "Labels": image.config.labels,
                "Containers": -1,
            }
            for image in self.images.all()
        ]

    def image_inspect(self, ref: str) -> Document:
        """Return everything about an image."""
        image: Image = self.images.resolve(ref)
        return {
            "Id": image.id,
            "RepoTags": image.names,
            "RepoDigests": [],
            "Created": image.created,
            "Config": image.config,
            "Architecture": image.architecture,
            "Os": "linux",
            "Size": image.size_bytes,
            "RootFS": {"Type": "layers", "Layers": image.diff_ids},
            "GraphDriver": {"Name": "overlayfs", "Data": None},
        }

    # System

    async def events_stream(
        self, since: str, until: str, filters: dict[str, list[str]]
    ) -> AsyncIterator[Event]:
        """Yield events, first the known ones since ``since`` (Unix seconds), until ``until``."""
        with self._events.listen() as queue:
            if since:
                for event in self._events.since(int(float(since) * 1e9)):
                    if event_matches(event, filters):
                        yield event
            if until and float(until) <= time.time():
                return
            while True:
                event = await queue.get()
                if event_matches(event, filters):
                    yield event

    def version(self) -> Document:
        """Return the engine's version as Docker's clients read it."""
        kernel = platform.release()
        details = {
            "ApiVersion": "1.51",
            "MinAPIVersion": "1.24",
            "Os": "linux",
            "KernelVersion": kernel,
        }
        return {
            "Platform": {"Name": "berth"},
            "Components": [{"Name": "Engine", "Version": __version__, "Details": details}],
            "Version": __version__,
            "ApiVersion": "1.51",
            "MinAPIVersion": "1.24",
            "GitCommit": "",
            "GoVersion": f"Python {platform.python_version()}",
            "Os": "linux",
            "Arch": {"x86_64": "amd64", "aarch64": "arm64"}.get(
                platform.machine(), platform.machine()
            ),
            "KernelVersion": kernel,
        }

    def info(self) -> Document:
        """Return what the engine has and where it runs."""
        records = self.containers.all()
        pages, page = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
        return {
            "ID": "",
            "Containers": len(records),
            "ContainersRunning": sum(r.status == status.RUNNING for r in records),
            "ContainersPaused": sum(r.status == status.PAUSED for r in records),
            "ContainersStopped": sum(r.status not in status.ALIVE for r in records),
            "Images": len(self.images.all()),
            "Driver": "overlayfs",
            "LoggingDriver": "json-file",
            "CgroupDriver": "cgroupfs",
            "KernelVersion": platform.release(),
            "OperatingSystem": "Linux",
            "OSType": "linux",
            "Architecture": platform.machine(),
            "NCPU": os.cpu_count(),
            "MemTotal": pages * page,
            "DockerRootDir": str(self._data_root),
            "Name": platform.node(),
            "ServerVersion": __version__,
            "DefaultRuntime": "berth",
        }


def matches(record: ContainerRecord, filters: dict[str, list[str]]) -> bool:
    """Say whether a container passes: values of one filter are alternatives, labels are not."""
    for key, values in filters.items():
        if key == "status":
            passes = record.status in values
        elif key == "name":
            passes = any(value.removeprefix("/") in record.name for value in values)
        elif key == "id":
            passes = any(record.id.startswith(value) for value in values)
        elif key == "label":
            passes = all(_has_label(record.config.labels or {}, value) for value in values)
        elif key == "ancestor":
            passes = record.config.image in values or record.image_id in values
        else:
            raise InvalidArgument(f"invalid filter '{key}'")
        if not passes:
            return False
    return True


def _has_label(labels: dict[str, str], wanted: str) -> bool:
    name, equals, value = wanted.partition("=")
    return name in labels and (not equals or labels[name] == value)


def event_matches(event: Event, filters: dict[str, list[str]]) -> bool:
    """Say whether an event passes."""
    actor = event["Actor"]
    assert isinstance(actor, dict)
    known = {
        "type": [event["Type"]],
        "event": [event["Action"]],
        "container": [actor["ID"], actor["Attributes"].get("name")],
    }
    return all(set(values) & set(known.get(key, values)) for key, values in filters.items())


def rfc3339(time_ns: int) -> str:
    """Return a time with nanoseconds, Go's zero for 0."""
    if not time_ns:
        return NEVER
    seconds, rest = divmod(time_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def unix_time(text: str) -> int:
    """Return the Unix time of an RFC 3339 one, to the second."""
    try:
        return int(datetime.fromisoformat(text[:19] + "+00:00").timestamp())
    except ValueError:
        return 0


def process_row(pid: int) -> list[str] | None:
    """Return UID, PID, PPID and command line of a process, None when it has ended."""
    folder = Path(f"/proc/{pid}")
    try:
        command = (
            (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        )
        fields = dict(
            line.split(":", 1)
            for line in (folder / "status").read_text().splitlines()
            if ":" in line
        )
    except OSError:
        return None
    uid, ppid = fields["Uid"].split()[0], fields["PPid"].strip()
    return [uid, str(pid), ppid, command or f"[{fields['Name'].strip()}]"]
