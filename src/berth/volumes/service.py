"""The volumes of one engine: named directories under the data root, filled from images when empty."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import stat
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from berth.errors import Conflict, Failed, InvalidArgument, NotFound
from berth.kernel.mounts import open_beneath, open_in_root
from berth.runtime.removal import remove_tree
from berth.snapshots.limits import Limits
from berth.volumes import local

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from pathlib import Path

    from berth.runtime.client import Runtime
    from berth.state import State

log = logging.getLogger("berth")

NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
FOLDER = "volumes"
DATA = "_data"
COPY_UP = "berth.volumes.copy:copy_up"
REMOVED_PREFIX = ".removed-"  # which is the beginning of no volume's name
ANONYMOUS_LABEL = "com.docker.volume.anonymous"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


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
        self._snapshots = data_root / "snapshots"
        self._folder.mkdir(exist_ok=True)
        # Nobody else may reach the set-user-ID programs of containers.
        self._folder.chmod(0o700)
        self._limits = Limits(self._folder)
        self._runtime = runtime
        self._mounted: dict[str, set[str]] = {}  # volumes with something mounted, and who uses them
        self._mounting = asyncio.Lock()

    def clean(self) -> None:
        """Delete directories that no record knows: creations and removals cut short."""
        known = {name for name, _ in self._table.items()}
        for entry in self._folder.iterdir():
            if entry.name not in known:
                self._delete(entry.name)

    # What options have mounted while a volume is used

    async def hold(self, names: Iterable[str], user: str) -> None:
        """Mount what the volumes ``names`` need; it stays until the last user lets go."""
        for name in names:
            volume = self._table.get(name)
            if volume is None or not local.needs_mount(volume.options):
                continue
            async with self._mounting:
                if not local.is_mounted(self.path(name)):
                    await asyncio.to_thread(local.mount, volume.options or {}, self.path(name))
                self._mounted.setdefault(name, set()).add(user)

    async def release(self, user: str) -> None:
        """Let go of all that ``user`` holds."""
        held = [name for name, users in self._mounted.items() if user in users]
        for name in held:
            async with self._mounting:
                users = self._mounted.get(name, set())
                users.discard(user)
                if not users:
                    self._mounted.pop(name, None)
                    local.unmount(self.path(name))

    def adopt(self, names: Iterable[str], user: str) -> None:
        """Note that a container which runs uses volumes: they are mounted."""
        for name in names:
            volume = self._table.get(name)
            if volume is not None and local.needs_mount(volume.options):
                self._mounted.setdefault(name, set()).add(user)

    def settle(self) -> None:
        """Unmount what nobody uses any more, after every container that runs was adopted."""
        for name, volume in self._table.items():
            if local.needs_mount(volume.options) and name not in self._mounted:
                local.unmount(self.path(name))

    def is_mounted_from_elsewhere(self, name: str) -> bool:
        """Say whether a volume's files are in another place, and belong to whom that says."""
        return local.needs_mount(self.find(name).options)

    def path(self, name: str) -> Path:
        """Return the directory that containers see."""
        return self._folder / name / DATA

    def all(self) -> list[Volume]:
        """Return every volume."""
        return [volume for _, volume in self._table.items()]

    def has(self, name: str) -> bool:
        """Say whether there is a volume of this name."""
        return self._table.get(name) is not None

    def is_limited(self, name: str) -> bool:
        """Say whether there is a limit of what may be written to a volume."""
        volume = self._table.get(name)
        return volume is not None and bool(local.limit_bytes(volume.options or {}))

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
            prefix = f"create {name}: " if name else ""
            raise NotFound(
                f'{prefix}error looking up volume plugin {driver}: plugin "{driver}" not found'
            )
        if name and (known := self._table.get(name)):
            return known
        if not name:
            name = os.urandom(32).hex()
            labels = {**(labels or {}), ANONYMOUS_LABEL: ""}
        try:
            check_name(name)
            local.check(options or {}, has_quotas=self._limits.are_possible)
        except InvalidArgument as error:
            raise InvalidArgument(f"create {name}: {error}") from error
        self._make(name, limit_bytes=local.limit_bytes(options or {}))
        volume = Volume(name=name, created_ns=time.time_ns(), labels=labels, options=options)
        self._table.put(name, volume, durable=True)
        return volume

    def _make(self, name: str, *, limit_bytes: int) -> None:
        folder = self._folder / name
        folder.mkdir(mode=0o755, exist_ok=True)
        if limit_bytes:
            try:
                self._limits.set(
                    folder, limit_bytes
                )  # containers, which see what is below, cannot change that
            except Failed:
                self._delete(name)
                raise
        self.path(name).mkdir(mode=0o755, exist_ok=True)

    def _delete(self, name: str) -> None:
        """Delete a volume's directory, and nothing of what may be mounted in it."""
        local.unmount(self.path(name))
        project = self._limits.project_of(self._folder / name)
        try:
            remove_tree(str(self._folder / name))
        except OSError as error:  # a file that cannot be changed: the next start tries again
            log.warning("delete volume %s: %s", name, error)
        self._limits.give_up(project)

    async def fill(
        self, name: str, lower: Sequence[str], target: str, *, subpath: str = ""
    ) -> None:
        """Copy what an image has at ``target`` into the volume, or ``subpath`` in it, when that is empty.

        ``lower``: the directories that are the image, below those of the snapshots, topmost first.
        """
        user = os.urandom(16).hex()
        try:
            try:
                await self.hold([name], user)
            except Failed as error:  # it cannot be mounted, which the start will say
                log.debug("%s", error)
                return
            await self._fill(self.path(name), lower, target, subpath=subpath)
        finally:
            await self.release(user)

    async def _fill(self, path: Path, lower: Sequence[str], target: str, *, subpath: str) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if subpath:
                base, fd = fd, open_beneath(fd, subpath, os.O_RDONLY | os.O_DIRECTORY)
                os.close(base)
            with os.scandir(fd) as entries:  # of a container's, millions maybe
                if next(entries, None) is not None:
                    return
            argument = {"base": str(self._snapshots), "lower": [*lower], "path": target}
            job = await self._runtime.run_job(COPY_UP, argument, fds=[fd])
        except OSError:  # there is no such directory in the volume, which the start will say
            return
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
        self._mounted.pop(name, None)
        doomed = f"{REMOVED_PREFIX}{os.urandom(8).hex()}"  # the name may be taken again at once
        with suppress(FileNotFoundError):
            (self._folder / name).rename(self._folder / doomed)
        await asyncio.to_thread(self._delete, doomed)

    async def size_bytes(self, name: str) -> int:
        """Return the space that a volume takes."""
        return await asyncio.to_thread(_disk_usage, self._folder / name)


def check_name(name: str) -> None:
    """Refuse what is no name of a volume, in Docker's words."""
    if len(name) == 1:
        raise InvalidArgument(
            "volume name is too short, names should be at least two alphanumeric characters"
        )
    if not NAME.fullmatch(name):
        raise InvalidArgument(
            f'"{name}" includes invalid characters for a local volume name, only'
            ' "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory,'
            " use absolute path"
        )


def _disk_usage(folder: Path) -> int:
    """Return the space that files take; a container may be changing them meanwhile."""
    total = 0
    linked: dict[tuple[int, int], int] = {}  # a file with several names takes its space once
    try:
        root = os.open(folder, _DIRECTORY)
    except FileNotFoundError:
        return 0
    try:
        pending = [""]
        while pending:
            path = pending.pop()
            for name, status in _files(root, path):
                if stat.S_ISDIR(status.st_mode):
                    pending.append(f"{path}/{name}")
                elif status.st_nlink > 1:
                    linked[status.st_dev, status.st_ino] = status.st_size
                else:
                    total += status.st_size
    finally:
        os.close(root)
    return total + sum(linked.values())


def _files(root: int, path: str) -> Iterator[tuple[str, os.stat_result]]:
    """Yield what is in a directory; nothing of one that is gone, or deeper than paths can name."""
    try:
        folder = open_in_root(root, path, _DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                with suppress(OSError):
                    yield entry.name, entry.stat(follow_symlinks=False)
    finally:
        os.close(folder)
