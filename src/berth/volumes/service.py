"""The volumes of one engine: named directories under the data root, filled from images when empty."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import shutil
import time
from typing import TYPE_CHECKING

import msgspec

from berth.errors import Conflict, InvalidArgument, NotFound

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from berth.runtime.client import Runtime
    from berth.runtime.requests import OverlayRootfs
    from berth.state import State

NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
FOLDER = "volumes"
DATA = "_data"
COPY_UP = "berth.volumes.copy:copy_up"
ANONYMOUS_LABEL = "com.docker.volume.anonymous"


class Volume(msgspec.Struct, kw_only=True):
    """A volume as it is stored. ``created_ns``: nanoseconds since the epoch."""

    name: str
    created_ns: int
    driver: str = "local"
    labels: dict[str, str] | None = None
    options: dict[str, str] | None = None

    @property
    def anonymous(self) -> bool:
        """Say whether nobody named it."""
        return ANONYMOUS_LABEL in (self.labels or {})


class VolumeService:
    """Everything berthd knows of volumes."""

    def __init__(self, *, state: State, data_root: Path, runtime: Runtime) -> None:
        self._table = state.table("volumes", Volume)
        self._folder = data_root / FOLDER
        self._folder.mkdir(mode=0o711, exist_ok=True)
        self._runtime = runtime

    def clean(self) -> None:
        """Delete directories that no record knows: creations and removals cut short."""
        known = {name for name, _ in self._table.items()}
        for entry in self._folder.iterdir():
            if entry.name not in known:
                shutil.rmtree(entry, ignore_errors=True)

    def path(self, name: str) -> Path:
        """Return the directory that containers see."""
        return self._folder / name / DATA

    def all(self) -> list[Volume]:
        """Return every volume."""
        return [volume for _, volume in self._table.items()]

    def find(self, name: str) -> Volume:
        """Return the volume ``name``."""
        volume = self._table.get(name)
        if volume is None:
            raise NotFound(f"get {name}: no such volume")
        return volume

    def create(
        self,
        name: str,
        *,
        driver: str = "local",
        labels: dict[str, str] | None = None,
        options: dict[str, str] | None = None,
    ) -> Volume:
        """Make a volume, or return the one that has the name. Without a name it is anonymous."""
        if driver not in ("", "local"):
            raise NotFound(f'error looking up volume plugin {driver}: plugin "{driver}" not found')
        if options:
            raise InvalidArgument(f"invalid option: {next(iter(options))!r}")
        if name and (known := self._table.get(name)):
            return known
        if not name:
            name = secrets.token_hex(32)
            labels = {**(labels or {}), ANONYMOUS_LABEL: ""}
        if not NAME.fullmatch(name):
            raise InvalidArgument(
                f'create {name}: "{name}" includes invalid characters for a local volume name, only'
                ' "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory,'
                " use absolute path"
            )
        self.path(name).mkdir(mode=0o755, parents=True, exist_ok=True)
        (self._folder / name).chmod(0o701)
        volume = Volume(name=name, created_ns=time.time_ns(), labels=labels, options=options)
        self._table.put(name, volume, durable=True)
        return volume

    async def fill(self, name: str, rootfs: OverlayRootfs, target: str) -> None:
        """Copy what the image has at ``target`` into the volume, when that is empty."""
        path = self.path(name)
        if any(path.iterdir()):
            return
        argument = {"base": str(rootfs.base), "lower": list(rootfs.lower), "path": target}
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            job = await self._runtime.run_job(COPY_UP, argument, fds=[fd])
        finally:
            os.close(fd)
        await job.result()

    async def remove(self, name: str, *, force: bool, users: Collection[str]) -> None:
        """Remove a volume. ``users``: ids of containers that have it. With ``force`` none need exist."""
        volume = self._table.get(name)
        if volume is None:
            if force:
                return
            raise NotFound(f"get {name}: no such volume")
        if users:
            raise Conflict(f"remove {name}: volume is in use - [{', '.join(sorted(users))}]")
        self._table.remove(name, durable=True)
        await asyncio.to_thread(shutil.rmtree, self._folder / name, ignore_errors=True)

    async def size_bytes(self, name: str) -> int:
        """Return the space that a volume takes."""
        return await asyncio.to_thread(_disk_usage, self._folder / name)


def _disk_usage(folder: Path) -> int:
    total = 0
    for base, _, files in os.walk(folder):
        for file in files:
            try:
                total += os.lstat(f"{base}/{file}").st_size
            except OSError:
                continue
    return total
