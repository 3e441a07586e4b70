"""How much a container may write: `--storage-opt size`, and what the engine says for others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from berth.configuration import checks
from berth.engine import mountpoints
from berth.errors import Unsupported
from berth.runtime.requests import DirectoryRootfs
from berth.snapshots.limits import REMEDY

if TYPE_CHECKING:
    from berth.configuration.settings import Settings
    from berth.engine.models import ContainerRecord, HostConfig
    from berth.engine.services import Services
    from berth.runtime.requests import Rootfs
    from berth.snapshots.limits import Limits


def check(host: HostConfig, limits: Limits) -> None:
    """Refuse a size where none can be had."""
    if host.storage_opt and not limits.are_possible:
        raise Unsupported(
            "--storage-opt is supported only for overlay over xfs with 'pquota' mount option",
            hint=REMEDY,
        )


def has_quota(record: ContainerRecord, rootfs: Rootfs, services: Services) -> bool:
    """Say whether there is a limit of what is written to a container's root, or to one of its volumes."""
    if any(map(services.volumes.is_limited, mountpoints.volumes(record))):
        return True
    inner = rootfs.path if isinstance(rootfs, DirectoryRootfs) else rootfs.upper
    return bool(services.limits.project_of(rootfs.base / inner.partition("/")[0]))


def limit_bytes(host: HostConfig, settings: Settings) -> int:
    """Return the limit of a container, 0 for none."""
    for value in (host.storage_opt or {}).values():
        return checks.size_bytes(value)
    return checks.default_size(settings)
