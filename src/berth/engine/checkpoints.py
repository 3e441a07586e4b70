"""Checkpoints of containers: made, listed and removed. A start goes on from one.

They are in the container's folder, or where the client says; one that is not whole has a hidden name.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from berth.engine import connecting, hostfiles, spec, status
from berth.errors import BerthError, Conflict, Failed, InvalidArgument, NotFound, Unsupported
from berth.runtime import criu

if TYPE_CHECKING:
    from berth.engine.containers import Containers
    from berth.engine.models import CheckpointRequest, ContainerRecord
    from berth.engine.services import Services
    from berth.runtime.checkpoints import Noted

MAKE = "berth.runtime.checkpoints:make"
FOLDER = "checkpoints"
NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
HALF = ".{}.half"


class Checkpoint(NamedTuple):
    """One that is whole: where it is, and what addresses the container had in its networks."""

    path: Path
    addresses: dict[str, list[str]]


class Checkpoints:
    """Those of all containers."""

    def __init__(self, services: Services, containers: Containers) -> None:
        self._services = services
        self._containers = containers

    async def create(self, ref: str, request: CheckpointRequest) -> None:
        """Make one of a running container, which ends then if that was asked for."""
        name = request.checkpoint_id
        _check_name(name)
        record = self._containers.find(ref)
        status.require_alive(record)
        path = self._path(record, name, request.checkpoint_dir)
        refused = f"cannot checkpoint container {ref}"
        if os.path.lexists(path):
            why = f"checkpoint with name {name} already exists for container {ref}"
            raise Conflict(f"{refused}: {why}")
        try:
            search = _search(record)
        except Unsupported as error:
            raise Unsupported(f"{refused}: {error.message}", hint=error.hint) from error
        ended = self._containers.ended(record)
        async with self._containers.lock(record):
            argument = {
                "folder": str(path.parent),
                "name": name,
                "pid": record.pid,
                "pipes": self._containers.task(record).pipes,
                "targets": hostfiles.targets(record, self._services.cdi.edits(record.host_config)),
                "addresses": connecting.addresses_of(
                    self._services.network.endpoints_of(record.id)
                ),
                "cgroups_path": spec.cgroup_path(record, cgroup=self._services.instance.cgroup),
                "leave_running": not request.exit,
                "search": search,
            }
            try:
                await self._make(record, argument, ends=request.exit)
            except BerthError as error:
                raise type(error)(f"{refused}: {error.message}") from error
        if request.exit:
            await ended.wait()
        self._containers.emit(record, "checkpoint")

    async def _make(
        self, record: ContainerRecord, argument: dict[str, object], *, ends: bool
    ) -> None:
        """Make it. An end that was asked for is the user's: no policy starts the container again."""
        before = record.stopped_by_user
        record.stopped_by_user = before or ends
        self._containers.save(record)
        job = await self._services.runtime.run_job(MAKE, argument)
        try:
            await job.result()
        except BaseException:
            record.stopped_by_user = before
            self._containers.save(record)
            raise

    def all(self, ref: str, folder: str) -> list[str]:
        """Return the names of a container's, or of those in a folder of the client's."""
        record = self._containers.find(ref)
        root = self._root(record, folder)
        try:
            with os.scandir(root) as entries:
                return sorted(e.name for e in entries if e.is_dir() and NAME.fullmatch(e.name))
        except FileNotFoundError as error:
            if not folder:
                return []
            raise NotFound(
                f'checkpoint directory "{root}" does not exist for container {ref}'
            ) from error
        except NotADirectoryError as error:
            raise InvalidArgument(
                f'checkpoint directory "{root}" exists but is not a directory'
            ) from error
        except OSError as error:
            raise Failed(f"open {root}: {(error.strerror or '').lower()}") from error

    def find(self, ref: str, name: str, folder: str) -> Checkpoint:
        """Return one that a start can go on from."""
        _check_name(name)
        path = self._existing(ref, name, folder)
        _search(self._containers.find(ref))
        return Checkpoint(path, _read(path)["addresses"])

    async def remove(self, ref: str, name: str, folder: str) -> None:
        """Remove one."""
        _check_name(name)
        path = self._existing(ref, name, folder)
        if folder:
            _read(path)  # nothing else is removed out of a folder that is not the engine's
        half = path.with_name(HALF.format(name))
        try:
            path.rename(half)
            await asyncio.to_thread(shutil.rmtree, half)
        except OSError as error:
            raise Failed(f"remove {path}: {(error.strerror or '').lower()}") from error

    def _existing(self, ref: str, name: str, folder: str) -> Path:
        path = self._path(self._containers.find(ref), name, folder)
        if not path.exists():
            raise NotFound(f"checkpoint {name} does not exist for container {ref}")
        if path.is_symlink() or not path.is_dir():
            raise InvalidArgument(f"{path} exists and is not a directory")
        return path

    def _path(self, record: ContainerRecord, name: str, folder: str) -> Path:
        return self._root(record, folder) / name

    def _root(self, record: ContainerRecord, folder: str) -> Path:
        if folder and not folder.startswith("/"):
            raise InvalidArgument(
                f'the checkpoint directory "{folder}" is invalid, it needs to be an absolute path'
            )
        return Path(folder) if folder else self._containers.data_folder(record) / FOLDER


def remove_halves(folder: Path) -> None:
    """Remove what was being made, or removed, in a container's folder when berthd was killed."""
    for half in (folder / FOLDER).glob(HALF.format("*")):
        shutil.rmtree(half, ignore_errors=True)


def _read(path: Path) -> Noted:
    from berth.runtime.checkpoints import read_record

    images = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return read_record(images)
    except InvalidArgument as error:
        raise InvalidArgument(f"{path}: {error.message}") from error
    finally:
        os.close(images)


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name) or name.endswith("."):
        raise InvalidArgument(
            f'invalid checkpoint ID "{name}", only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed'
        )


def _search(record: ContainerRecord | None = None) -> str:
    """Return the path on which criu is found; Unsupported where there is none, or for this container."""
    if record is not None and record.host_config.init:
        raise Unsupported("with --init its first process is the engine's")
    if record is not None and record.id_maps is not None:
        raise Unsupported(
            "it is in a user namespace: --userns=host, or no userns-remap, would help"
        )
    if os.geteuid():
        raise Unsupported("checkpoints need root: criu cannot do without here")
    search = os.environ.get("PATH", "")
    criu.find(search)
    return search


def _are_possible() -> bool:
    try:
        return bool(_search())
    except Unsupported:
        return False


# At the start. Docker's clients know checkpoints as experimental, and show them where an engine says it is.
ARE_POSSIBLE = _are_possible()
