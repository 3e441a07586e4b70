"""The engine about itself: version and info."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from berth import __version__
from berth.engine import cdi, checkpoints, defaults, logoptions, status

if TYPE_CHECKING:
    from berth.engine.models import ContainerRecord
    from berth.engine.services import Services

API_VERSION = "1.56"
MIN_API_VERSION = "1.24"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
OS_RELEASE = Path("/etc/os-release")

NO_SWARM = {
    "NodeID": "",
    "NodeAddr": "",
    "LocalNodeState": "inactive",
    "ControlAvailable": False,
    "Error": "",
    "RemoteManagers": None,
}

Document = dict[str, object]


def version() -> Document:
    """Return the engine's version as Docker's clients read it."""
    kernel = platform.release()
    common = {"ApiVersion": API_VERSION, "MinAPIVersion": MIN_API_VERSION}
    machine = platform.machine()
    architecture = ARCHITECTURES.get(machine, machine)
    python = f"Python {platform.python_version()}"
    details = {
        **common,
        "Arch": architecture,
        "BuildTime": "",
        "Experimental": str(checkpoints.ARE_POSSIBLE).lower(),
        "GitCommit": "",
        "GoVersion": python,
        "KernelVersion": kernel,
        "Os": "linux",
    }
    return {
        "Platform": {"Name": "berth"},
        "Components": [{"Name": "Engine", "Version": __version__, "Details": details}],
        "Version": __version__,
        **common,
        "GitCommit": "",
        "GoVersion": python,
        "Os": "linux",
        "Arch": architecture,
        "KernelVersion": kernel,
        "BuildTime": "",
        **({"Experimental": True} if checkpoints.ARE_POSSIBLE else {}),
    }


def os_release() -> dict[str, str]:
    """Return what os-release(5) says of this machine."""
    try:
        lines = OS_RELEASE.read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.partition("=") for line in lines if "=" in line)
    return {name: value.strip("\"'") for name, _, value in pairs}


def info(services: Services, records: list[ContainerRecord]) -> Document:
    """Return what the engine has and where it runs."""
    support, release = services.support, os_release()
    pages, page = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    settings = services.settings.now
    unified = services.hierarchies.only_unified
    driver, backing = services.images.storage
    return {
        "ID": services.instance.name,
        "Containers": len(records),
        "ContainersRunning": sum(r.status == status.RUNNING for r in records),
        "ContainersPaused": sum(r.status == status.PAUSED for r in records),
        "ContainersStopped": sum(r.status not in status.ALIVE for r in records),
        "Images": len(services.images.all()),
        "Driver": driver,
        "DriverStatus": [["Backing", backing]],
        "Plugins": {
            "Volume": ["local"],
            "Network": ["bridge", "host", "null"],
            "Authorization": None,
            "Log": list(logoptions.DRIVERS),
        },
        "MemoryLimit": support.memory,
        "SwapLimit": support.swap,
        "CpuCfsPeriod": support.cfs,
        "CpuCfsQuota": support.cfs,
        "CPUShares": support.shares,
        "CPUSet": support.cpuset,
        "PidsLimit": support.pids,
        "OomKillDisable": support.oom_kill_disable,
        "IPv4Forwarding": True,
        "Debug": settings.debug,
        "NFd": len(list(Path("/proc/self/fd").iterdir())),
        "NGoroutines": 1,
        "SystemTime": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        "LoggingDriver": settings.log_driver,
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": "2" if unified else "1",
        "NEventsListener": services.events.clients,
        "KernelVersion": platform.release(),
        "OperatingSystem": release.get("PRETTY_NAME", "Linux"),
        "OSVersion": release.get("VERSION_ID", ""),
        "OSType": "linux",
        "Architecture": platform.machine(),
        "NCPU": os.cpu_count(),
        "MemTotal": pages * page,
        "IndexServerAddress": "https://index.docker.io/v1/",
        "DockerRootDir": str(services.data_root),
        "HttpProxy": "",
        "HttpsProxy": "",
        "NoProxy": "",
        "Name": platform.node(),
        "Labels": list(settings.labels),
        "ExperimentalBuild": checkpoints.ARE_POSSIBLE,
        "ServerVersion": __version__,
        "CDISpecDirs": list(services.cdi.folders),
        "DiscoveredDevices": [{"Source": cdi.DRIVER, "ID": name} for name in services.cdi.names()],
        "Runtimes": {name: {"path": defaults.PROGRAM} for name in defaults.RUNTIMES},
        "DefaultRuntime": defaults.RUNTIME,
        "Swarm": NO_SWARM,
        "GenericResources": None,
        "ContainerdCommit": {"ID": ""},
        "RuncCommit": {"ID": __version__},
        "InitCommit": {"ID": __version__},
        "RegistryConfig": services.registry.describe(),
        "LiveRestoreEnabled": True,
        "DefaultAddressPools": [
            {"Base": pool.base, "Size": pool.size} for pool in settings.default_address_pools
        ],
        "Isolation": "",
        "InitBinary": defaults.PROGRAM,
        "SecurityOptions": [*(["name=userns"] if services.id_maps else []), "name=cgroupns"],
        "Warnings": [*support.warnings(), *services.cdi.problems()] or None,
    }
