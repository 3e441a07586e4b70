"""After a start of berthd: what became of containers while none was there. The kernel is right."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Protocol

from berth.engine import checkpoints, connecting, hostfiles, mountpoints, networking, status
from berth.engine.restart import wants_start_with_engine
from berth.errors import BerthError
from berth.runtime.requests import ExitRecord
from berth.runtime.tasks import Task

if TYPE_CHECKING:
    from berth.engine.lives import Lives
    from berth.engine.models import ContainerRecord
    from berth.engine.records import Records
    from berth.engine.services import Services

UNKNOWN_EXIT = 255


class Discard(Protocol):
    """Removes all that belongs to a container."""

    async def __call__(self, record: ContainerRecord, *, volumes: bool) -> None:
        """Remove it, with its anonymous volumes if asked."""
        ...


async def reconcile(
    services: Services, records: Records, lives: Lives, *, discard: Discard
) -> None:
    """Adopt what runs, record what ended, finish what was half done, start what should run."""
    ended: list[ContainerRecord] = []
    for record in records.all():
        if record.status == status.REMOVING:
            await discard(record, volumes=record.host_config.auto_remove)
        elif not await _adopt(services, records, record, lives):
            ended.append(record)
    services.volumes.settle()
    await _reconnect(services, records, lives)
    _remove_strangers(services, records)
    for record in reversed(ended):  # the oldest first: younger ones may need it
        if record.host_config.auto_remove and record.started_ns:
            await discard(record, volumes=True)
            lives.emit(record, "destroy")
            lives.forget(record)
        elif record.status == status.RESTARTING or wants_start_with_engine(record):
            await _start_again(record, lives)


async def _adopt(
    services: Services, records: Records, record: ContainerRecord, lives: Lives
) -> bool:
    """Say whether the container runs. A record may lag: it may run although it says it does not."""
    folder = lives.exec_folder(record)
    was_alive = record.status in status.ALIVE
    if not was_alive and not folder.is_dir():
        return False
    life = lives.of(record)
    found = await services.runtime.adopt(folder, record.id)
    if isinstance(found, Task):
        life.task = found
        record.pid = found.pid
        record.started_ns = found.started_at_ns
        # It may have been frozen, or thawed, just before that could be recorded.
        record.status = status.PAUSED if lives.cgroup(record).is_frozen() else status.RUNNING
        records.put(record)
        services.volumes.adopt(mountpoints.volumes(record), record.id)
        lives.follow(record, life, found)
        return True
    await lives.destroy_remains(record)
    hostfiles.remove_tree(folder)
    if found is not None and found.started_at_ns:  # it ran, also if that was not recorded any more
        record.started_ns = found.started_at_ns
        was_alive = True
    if was_alive:
        ended = found or ExitRecord(exit_code=UNKNOWN_EXIT, finished_at_ns=time.time_ns())
        if ended.oom_killed:
            lives.emit(record, "oom")
        lives.note_end(record, life, ended)
    return False


async def _reconnect(services: Services, records: Records, lives: Lives) -> None:
    """Mend the networks; containers that run keep theirs, and go on with the same sockets."""
    running = {record.id: record.pid for record in records.all() if record.pid}
    await services.network.open(running)
    for id_ in running:
        record = records.find(id_)
        request, task = networking.sandbox_request(record), lives.of(record).task
        if request is None or task is None:
            continue
        try:
            await services.network.adopt(
                request, open_namespace=partial(task.open_file, "ns/net"), kept=task.take_kept()
            )
        except OSError:  # it ended this moment; its follower disconnects it
            continue
        connecting.keep(services, id_, task)


def _remove_strangers(services: Services, records: Records) -> None:
    """Remove folders and groups of containers that were never completely made."""
    known = {record.id for record in records.all()}
    for group in services.hierarchies.open_group(f"{services.instance.cgroup}/std").children():
        if group.name not in known:
            group.kill()
            group.remove()
    for root in (services.data_root, services.exec_root):
        for entry in (root / "containers").iterdir():
            if entry.name not in known:
                hostfiles.remove_tree(entry)
            checkpoints.remove_halves(entry)


async def _start_again(record: ContainerRecord, lives: Lives) -> None:
    life = lives.of(record)
    async with life.lock:
        try:
            await lives.start(record, life)
        except BerthError:  # its record says why
            return
