"""The lives of containers: the start, the end and what follows from it."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from typing import TYPE_CHECKING

from berth.engine import (
    connecting,
    failures,
    hostfiles,
    logtargets,
    mountpoints,
    sharing,
    spec,
    status,
)
from berth.engine.asking import task_request
from berth.engine.life import Life
from berth.engine.restart import wants_restart
from berth.errors import BerthError, Conflict, Failed, MountMismatch
from berth.runtime.requests import ExitRecord, Handover

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence
    from pathlib import Path

    from berth.engine.checkpoints import Checkpoint
    from berth.engine.models import ContainerRecord
    from berth.engine.records import Records
    from berth.engine.services import Services
    from berth.kernel.cgroups import Cgroup
    from berth.runtime.requests import Attachment, RemoteLog
    from berth.runtime.tasks import PreparedTask, Task

log = logging.getLogger("berth")

KILL_TIMEOUT_S = 10.0
LAST_WAIT_S = 2.0
REMAINS_POLL_S = 0.01
MAX_PREPARED = 8
PREPARED_S = 2.0
SIGKILL = 9


class Lives:
    """Starts containers, follows them to their end, and starts again those whose policy says so."""

    def __init__(
        self,
        services: Services,
        records: Records,
        *,
        remove: Callable[[ContainerRecord], Coroutine[object, object, None]],
    ) -> None:
        self._services = services
        self._records = records
        self._remove = remove
        self._lives: dict[str, Life] = {}
        self._data = services.data_root / "containers"
        self._exec = services.exec_root / "containers"

    def of(self, record: ContainerRecord) -> Life:
        """Return the life of a container; of one that was removed meanwhile, what nobody keeps."""
        life = self._lives.get(record.id)
        if life is None:
            life = Life(data_folder=self._data / record.id, exec_folder=self._exec / record.id)
            if self._records.has(record):
                self._lives[record.id] = life
        return life

    def forget(self, record: ContainerRecord) -> None:
        """Let go of a container that was removed; those who wait for that go on."""
        life = self._lives.pop(record.id, None)
        if life is None:
            return
        if life.restarting is not None:
            life.restarting.cancel()
        for fd in [*(client.fd for client in life.waiting), *life.orphans]:
            os.close(fd)
        life.ended.set()
        life.removed.set()

    def data_folder(self, record: ContainerRecord) -> Path:
        """Return where the container's own files and its log are."""
        return self.of(record).data_folder

    def files_folder(self, record: ContainerRecord) -> Path:
        """Return where its hosts and resolv.conf are: with the one whose network it shares."""
        other = sharing.network_of(record)
        return self.data_folder(record) if other is None else self._data / other

    def exec_folder(self, record: ContainerRecord) -> Path:
        """Return where its monitor keeps its socket and records."""
        return self.of(record).exec_folder

    def log_path(self, record: ContainerRecord) -> Path:
        """Return where its log is."""
        return logtargets.path_of(record, self.data_folder(record))

    def cgroup(self, record: ContainerRecord) -> Cgroup:
        """Return its groups."""
        path = spec.cgroup_path(record, cgroup=self._services.instance.cgroup)
        return self._services.hierarchies.open_group(path)

    def task(self, record: ContainerRecord) -> Task:
        """Return the running task of a container; Conflict when it does not run."""
        life = self._lives.get(record.id)
        if life is None or life.task is None:
            raise Conflict(f"container {record.id} is not running")
        return life.task

    async def prepare(self, record: ContainerRecord) -> None:
        """Prepare a new container for its start, which usually follows: few, and for a while only."""
        life = self.of(record)
        async with life.lock:
            self._prepare_if_useful(record, life)
            await self._services.runtime.give_back(record.id)

    def _prepare_if_useful(self, record: ContainerRecord, life: Life) -> None:
        waiting = sum(other.prepared is not None for other in self._lives.values())
        if (
            waiting >= MAX_PREPARED
            or life.prepared is not None
            or not self._records.has(record)
            or record.status != status.CREATED
            or sharing.needs_others(record)
        ):
            return
        try:
            life.prepared = self._prepare(record, sharing.Joined(lambda _other: None))
        except (BerthError, OSError, ValueError):  # the start, which tries again, says why
            hostfiles.remove_tree(self.exec_folder(record))
            return
        life.expiry = asyncio.get_running_loop().call_later(
            PREPARED_S,
            lambda: self._services.background.start(
                self.unprepare(record), name=f"unprepare {record.id[:12]}"
            ),
        )

    def _prepare(
        self, record: ContainerRecord, joined: sharing.Joined, checkpoint: Checkpoint | None = None
    ) -> PreparedTask:
        life = self.of(record)
        hostfiles.remove_tree(life.exec_folder)
        life.exec_folder.mkdir(mode=0o710)
        return self._services.runtime.prepare_task(
            task_request(self._services, self._records, record, life, checkpoint, joined)
        )

    async def unprepare(self, record: ContainerRecord) -> None:
        """Undo the preparation of a start: it did not follow, or what it would be made of changes."""
        life = self.of(record)
        async with life.lock:
            await self._abandon(life)

    async def _abandon(self, life: Life) -> None:
        prepared = self._take_prepared(life)
        if prepared is not None:
            await prepared.abandon()
            hostfiles.remove_tree(life.exec_folder)

    def _take_prepared(self, life: Life) -> PreparedTask | None:
        prepared, life.prepared = life.prepared, None
        if life.expiry is not None:
            life.expiry.cancel()
            life.expiry = None
        return prepared

    async def start(
        self, record: ContainerRecord, life: Life, checkpoint: Checkpoint | None = None
    ) -> None:
        """Start the process, or let it go on; the caller holds the lock. On failure everything is undone."""
        if life.settling is not None:
            await asyncio.wait([life.settling])
        waiting, life.waiting = life.waiting, []
        orphans, life.orphans = life.orphans, []
        joined = sharing.Joined(lambda other: self.of(other).task)
        try:
            if checkpoint is not None:
                await self._abandon(life)
            prepared = self._take_prepared(life) or self._prepare(record, joined, checkpoint)
            sharing.note_network(record, self._records)
            earlier = (checkpoint or record).addresses
            task = await self._start_task(record, prepared, waiting, orphans, earlier)
        except (BerthError, OSError, ValueError) as error:
            failure = failures.of_start(error)
            await self.destroy_remains(record)  # of a monitor that died; others leave nothing
            await self._disconnect(record)
            hostfiles.remove_tree(self.exec_folder(record))
            self._note_failed_start(record, life, failure)
            if failure is not error:
                raise failure from error
            raise
        finally:
            joined.close()
            for fd in (*(client.fd for client in waiting), *orphans):
                os.close(fd)
        record.status = status.RUNNING
        record.pid = task.pid
        record.error = ""
        record.exit_code = 0
        record.oom_killed = False
        record.started_ns = task.started_at_ns
        self._records.put(record)
        life.task = task
        self.emit(record, "start")
        self.follow(record, life, task)

    async def _start_task(
        self,
        record: ContainerRecord,
        prepared: PreparedTask,
        waiting: list[Attachment],
        orphans: list[int],
        earlier: Mapping[str, Sequence[str]],
    ) -> Task:
        """Connect, hand over and start; whoever catches the failure disconnects."""
        services = self._services
        try:
            folder = self.data_folder(record)
            remote = await logtargets.remote_log(record)
        except BaseException:
            await prepared.abandon()
            raise
        try:
            sandbox = await connecting.connect(
                services, record, folder, self._records, prepared, earlier
            )
            await services.volumes.hold(mountpoints.volumes(record), record.id)
            added = services.cdi.edits(record.host_config)
            trees = hostfiles.open_trees(self.files_folder(record), record, added)
        except BaseException as error:
            _close_log(remote)
            await prepared.abandon()
            if isinstance(error, MountMismatch):
                raise failures.of_runtime(error) from error
            raise
        mountpoints.emit(services.events, record, "mount")
        handover = Handover(
            trees=(*trees, *self.of(record).loan.trees),
            netns_fd=sandbox.netns_fd if sandbox else None,
            attachments=tuple(waiting),
            orphans=tuple(orphans),
            log=remote,
            keep_fds=services.network.unkept(record.id),
        )
        try:
            return await prepared.start(handover)
        except BerthError as error:
            raise failures.of_runtime(error) from error
        finally:
            _close_log(remote)
            for tree in trees:
                os.close(tree.fd)

    def _note_failed_start(self, record: ContainerRecord, life: Life, error: BerthError) -> None:
        began = bool(record.started_ns)
        record.status = status.EXITED if began else status.CREATED
        record.pid = 0
        record.exit_code = failures.exit_code(error)
        record.error = error.message
        if began:
            record.finished_ns = time.time_ns()
        self._records.put(record)
        self._wake(life)
        if record.host_config.auto_remove:
            self._services.background.start(self._remove(record), name=f"remove {record.id[:12]}")

    def follow(self, record: ContainerRecord, life: Life, task: Task) -> None:
        """Wait for the end of a running task, in the background."""
        life.backoff.began(record.started_ns)
        self._services.background.start(
            self._follow(record, life, task), name=f"life {record.id[:12]}"
        )

    async def _follow(self, record: ContainerRecord, life: Life, task: Task) -> None:
        """Wait for the end, record it, and do what follows from it."""
        ended = await task.wait()
        if ended.reason:
            await self.destroy_remains(record)
        async with life.lock:
            life.task = None
            await self._disconnect(record, oom_killed=ended.oom_killed)
            # Not before the end is recorded: till then a berthd that takes over learns of it there.
            restarts = self._records.has(record) and self.note_end(record, life, ended)
            life.settling = self._services.background.start(
                self._settle(life, task), name=f"settle {record.id[:12]}"
            )
        if not self._records.has(record):
            return
        if record.host_config.auto_remove and not life.kept:
            await self._remove(record)
        elif restarts:
            self.restart_later(record, life)

    async def _settle(self, life: Life, task: Task) -> None:
        await task.settle()
        hostfiles.remove_tree(life.exec_folder)

    def note_end(self, record: ContainerRecord, life: Life, ended: ExitRecord) -> bool:
        """Record an end, then tell everyone; say whether the container is to be started again."""
        restarts = wants_restart(record, ended.exit_code)
        dead = bool(ended.reason) and not restarts
        record.status = status.RESTARTING if restarts else status.DEAD if dead else status.EXITED
        record.pid = 0
        record.exit_code = ended.exit_code
        record.oom_killed = ended.oom_killed
        record.finished_ns = ended.finished_at_ns
        record.error = ended.reason or ""
        record.restart_count += restarts
        self._records.put(record)
        ran_s = max(0, record.finished_ns - record.started_ns) // 1_000_000_000
        self.emit(record, "die", exitCode=str(ended.exit_code), execDuration=str(ran_s))
        self._wake(life)
        return restarts

    def _wake(self, life: Life) -> None:
        life.ended.set()
        life.ended = asyncio.Event()

    def restart_later(self, record: ContainerRecord, life: Life) -> None:
        """Start a container again after its delay."""
        life.restarting = self._services.background.start(
            self._restart_later(record, life), name=f"restart {record.id[:12]}"
        )

    async def _restart_later(self, record: ContainerRecord, life: Life) -> None:
        await asyncio.sleep(life.backoff.next_delay_s())
        async with life.lock:
            life.restarting = None
            if not self._records.has(record) or record.status != status.RESTARTING:
                return
            try:
                await self.start(record, life)
            except (BerthError, OSError, ValueError) as error:  # its record says why
                log.info("container %s is not started again: %s", record.id[:12], error)

    async def cancel_restart(self, record: ContainerRecord, life: Life) -> None:
        """Let a container that waits for its next start rest; one that is just starting runs then."""
        if life.restarting is not None:
            life.restarting.cancel()
            life.restarting = None
        async with life.lock:
            if record.status == status.RESTARTING:
                record.status = status.EXITED
                self._records.put(record)
                self._wake(life)

    async def destroy_remains(self, record: ContainerRecord) -> None:
        """Kill and clean up what a dead monitor left: nobody else waits for those processes."""
        group = self.cgroup(record)
        deadline = time.monotonic() + KILL_TIMEOUT_S
        while True:
            pids = group.pids()
            if pids:
                group.kill()
            else:
                try:
                    group.remove()
                except OSError as error:  # a process of its start has just entered
                    log.debug("container %s: %s", record.id[:12], error)
                else:
                    break
            if time.monotonic() > deadline:
                log.warning("container %s: processes %s do not end", record.id[:12], pids)
                return
            await asyncio.sleep(REMAINS_POLL_S)
        try:
            await self._services.runtime.run_last_hooks(self.exec_folder(record), record.id)
        except BerthError as error:
            log.warning("container %s: %s", record.id[:12], error)

    async def kill_and_wait(self, record: ContainerRecord, life: Life) -> None:
        """End the process for good; returns when its end is recorded."""
        ended = life.ended
        if life.task is None:
            return
        self.signal(record, life, SIGKILL)
        try:
            await asyncio.wait_for(ended.wait(), KILL_TIMEOUT_S)
        except TimeoutError:
            self.cgroup(record).kill()
            try:
                await asyncio.wait_for(ended.wait(), LAST_WAIT_S)
            except TimeoutError:  # in the kernel for good, or its monitor was stopped
                raise Failed("tried to kill container, but did not receive an exit event") from None

    def signal(
        self, record: ContainerRecord, life: Life, number: int, *, thaw: bool = True
    ) -> None:
        """Send a signal to the process, and tell of it; a frozen one is woken to see it."""
        if life.task is None:
            raise Conflict(f"container {record.id} is not running")
        life.task.signal(number)
        self.emit(record, "kill", signal=str(number))
        if thaw and record.status == status.PAUSED:
            self.cgroup(record).thaw()
            record.status = status.RUNNING
            self._records.put(record)
            self.emit(record, "unpause")

    async def _disconnect(self, record: ContainerRecord, *, oom_killed: bool = False) -> None:
        """Let go of the networks and volumes of a container that ended, or did not start."""
        if oom_killed:
            self.emit(record, "oom")
        shared = self.data_folder(record) if self._records.has_guests(record) else None
        await connecting.disconnect(self._services, record, shared=shared)
        await self._services.volumes.release(record.id)
        mountpoints.emit(self._services.events, record, "unmount")

    def emit(self, record: ContainerRecord, action: str, **more: str) -> None:
        """Tell listeners what happened to a container."""
        attributes = {"image": record.config.image, "name": record.name, **more}
        labels = record.config.labels or {}
        self._services.events.emit("container", action, record.id, {**labels, **attributes})


def _close_log(log: RemoteLog | None) -> None:
    if log is not None and log.fd is not None:
        os.close(log.fd)
