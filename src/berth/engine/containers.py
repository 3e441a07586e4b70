"""Containers: made, asked to do things, and removed. Their lives in between are of `lives`."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from berth.engine import (
    admission,
    defaults,
    hostfiles,
    imagemounts,
    links,
    resources,
    status,
    storage,
    support,
)
from berth.engine.creation import Creation
from berth.engine.life import NOTHING_LENT, Loan
from berth.engine.limits import changed_limits
from berth.engine.lives import Lives
from berth.engine.metrics import timed
from berth.engine.reconcile import reconcile
from berth.engine.records import Records
from berth.engine.restart import Backoff, check_policy
from berth.engine.signals import signal_number
from berth.errors import BerthError, Conflict, Failed, InvalidArgument, NotFound

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from berth.engine.checkpoints import Checkpoint
    from berth.engine.life import Life
    from berth.engine.models import ContainerConfig, ContainerRecord, HostConfig, UpdateRequest
    from berth.engine.services import Services
    from berth.kernel.cgroups import Cgroup
    from berth.oci.platform import Platform
    from berth.runtime.requests import Attachment
    from berth.runtime.tasks import Task


class Containers:
    """Every container of an engine."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._records = Records(services.state)
        self._lives = Lives(services, self._records, remove=self._remove_quietly)
        self._creation = Creation(services, self._records)
        for root in (services.data_root, services.exec_root):
            (root / "containers").mkdir(mode=0o710, exist_ok=True)

    # Finding

    def all(self) -> list[ContainerRecord]:
        """Return every container, youngest first."""
        return self._records.all()

    def find(self, ref: str) -> ContainerRecord:
        """Return the container that ``ref`` names: a name, an id or a unique prefix of one."""
        return self._records.find(ref)

    def get(self, id_: str) -> ContainerRecord | None:
        """Return the container with an id, None when it is gone."""
        return self._records.get(id_)

    def has(self, record: ContainerRecord) -> bool:
        """Say whether the container still exists."""
        return self._records.has(record)

    def task(self, record: ContainerRecord) -> Task:
        """Return the running task of a container; Conflict when it does not run."""
        return self._lives.task(record)

    def data_folder(self, record: ContainerRecord) -> Path:
        """Return where its own files and its log are."""
        return self._lives.data_folder(record)

    def log_path(self, record: ContainerRecord) -> Path:
        """Return where its log is."""
        return self._lives.log_path(record)

    def files_folder(self, record: ContainerRecord) -> Path:
        """Return where its hosts and resolv.conf are: with the one whose network it shares."""
        return self._lives.files_folder(record)

    def lock(self, record: ContainerRecord) -> asyncio.Lock:
        """Return the lock under which its life changes."""
        return self._lives.of(record).lock

    async def unprepare(self, record: ContainerRecord) -> None:
        """Take back what is prepared for its start."""
        await self._lives.unprepare(record)

    def save(self, record: ContainerRecord) -> None:
        """Store what changed of a container."""
        self._records.put(record, durable=True)

    def ended(self, record: ContainerRecord) -> asyncio.Event:
        """Return the event that is set when the current run has ended."""
        return self._lives.of(record).ended

    def cgroup(self, record: ContainerRecord) -> Cgroup:
        """Return its groups."""
        return self._lives.cgroup(record)

    def has_quota(self, record: ContainerRecord) -> bool:
        """Say whether there is a limit of what it writes."""
        rootfs = self._services.images.rootfs(record.id)
        return storage.has_quota(record, rootfs, self._services)

    def emit(self, record: ContainerRecord, action: str, **more: str) -> None:
        """Tell listeners what happened to a container."""
        self._lives.emit(record, action, **more)

    @asynccontextmanager
    async def hold(self, record: ContainerRecord) -> AsyncIterator[None]:
        """Keep a container from starting, ending and being removed, and take back what is prepared."""
        await self._lives.unprepare(record)
        life = self._lives.of(record)
        async with life.lock:
            if life.settling is not None:
                await asyncio.wait([life.settling])
            if not self._records.has(record):
                raise NotFound(f"No such container: {record.id}")
            yield

    # Create, change and remove

    @timed("create")
    async def create(
        self,
        config: ContainerConfig,
        *,
        name: str | None,
        host_config: HostConfig,
        platform: Platform | None = None,
        recursive_read_only: bool = True,
        loan: Loan = NOTHING_LENT,
    ) -> ContainerRecord:
        """Make a container; nothing is left when it cannot be made."""
        init, by_default = host_config.init, self._services.settings.now.init
        id_ = self._services.runtime.take_id(init=by_default if init is None else init)
        try:
            record = await self._creation.create(
                id_, config, name, host_config, platform, recursive_read_only=recursive_read_only
            )
            self.emit(record, "create")
        except BaseException:
            await self._services.runtime.give_back(id_)
            raise
        self._lives.of(record).loan = loan
        self._services.background.start(
            self._lives.prepare(record), name=f"prepare {record.id[:12]}"
        )
        return record

    def rename(self, ref: str, name: str) -> None:
        """Give a container another name."""
        record = self.find(ref)
        if not name:
            raise InvalidArgument("Neither old nor new names may be empty")
        old = record.name
        if name.removeprefix("/") == old:
            raise InvalidArgument("Renaming a container with the same name as its current name")
        try:
            record.name = self._records.claim_name(name)
        except BerthError as error:
            raise type(error)(f"Error when allocating new name: {error.message}") from error
        self._records.put(record, durable=True)
        for other in links.rename(self.all(), old, record.name):
            self._records.put(other, durable=True)
        self._services.network.rename(record.id, record.name)
        self.emit(record, "rename", oldName=f"/{old}")

    async def update(self, ref: str, update: UpdateRequest) -> list[str]:
        """Change limits and restart policy, at once when it runs; return warnings."""
        admission.check_cpusets(update)
        resources.resources(update)
        warnings = support.discard(update, self._services.support)
        check_policy(update)
        record = self.find(ref)
        host, limits = changed_limits(record, update)
        await self._lives.unprepare(record)
        async with self._lives.of(record).lock:
            if record.status in status.ALIVE and limits:
                group = self.cgroup(record)
                if "memory" in limits:  # the new limit may be above the old one of memory and swap
                    group.apply({"memory": {"swap": -1}})
                group.apply(limits)
            record.host_config = host
            self._records.put(record, durable=True)
        self.emit(record, "update")
        return warnings

    @timed("delete")
    async def remove(self, ref: str, *, force: bool, volumes: bool = False) -> None:
        """Remove a container; with ``force`` also one that runs, with ``volumes`` its anonymous ones."""
        record = self.find(ref)
        life = self._lives.of(record)
        if not force:
            status.require_removable(record)
        record.stopped_by_user = True
        await self._lives.cancel_restart(record, life)
        while life.task is not None and (force or record.status in status.ALIVE):
            try:
                await self._lives.kill_and_wait(record, life)
            except Failed as error:
                why = f'cannot remove container "/{record.name}": could not kill: {error.message}'
                raise Failed(why) from error
        await self._lives.unprepare(record)
        async with life.lock:
            if not self._records.has(record):
                return
            if life.task is not None:
                raise Conflict(f"cannot remove container {record.id}: it was started meanwhile")
            await self.discard(record, volumes=volumes or record.host_config.auto_remove)
        self.emit(record, "destroy")
        self._lives.forget(record)

    async def unlink(self, ref: str) -> None:
        """Remove the link "NAME/ALIAS", also from the hosts of a container that runs."""
        record, alias = links.remove(ref, self.find)
        async with self._lives.of(record).lock:
            self._records.put(record, durable=True)
            if record.status in status.ALIVE:
                folder = self._lives.files_folder(record)
                await hostfiles.apart(folder, partial(hostfiles.unlink, folder, alias))

    async def discard(self, record: ContainerRecord, *, volumes: bool) -> None:
        """Remove all that belongs to a container that does not run, its record last."""
        record.status = status.REMOVING
        self._records.put(record, durable=True)
        settling = self._lives.of(record).settling
        if settling is not None and record.host_config.device_requests:
            await asyncio.wait([settling])  # hooks of devices may be running
        await imagemounts.remove(record, self._services.images)
        hostfiles.remove_tree(self._lives.exec_folder(record))
        folder = self._lives.data_folder(record)
        await hostfiles.apart(folder, partial(hostfiles.remove_tree, folder))
        self._records.remove(record)
        for point in record.mount_points if volumes else []:
            if point.anonymous and not self.users_of(point.volume):
                await self._services.volumes.remove(point.volume, force=True, users=())
                self._services.events.emit("volume", "destroy", point.volume, {"driver": "local"})

    async def _remove_quietly(self, record: ContainerRecord) -> None:
        try:
            await self.remove(record.id, force=True)
        except NotFound:
            return

    def users_of(self, volume: str) -> list[str]:
        """Return the ids of the containers that have a volume."""
        return self._records.users_of(volume)

    async def prune(self, wanted: Callable[[ContainerRecord], bool]) -> list[ContainerRecord]:
        """Remove every container that does not run and is ``wanted`` away; return them."""
        removed = []
        for record in self.all():
            if record.status in (status.CREATED, status.EXITED, status.DEAD) and wanted(record):
                await self.remove(record.id, force=False)
                removed.append(record)
        return removed

    # Verbs

    @timed("start")
    async def start(self, ref: str, checkpoint: Checkpoint | None = None) -> None:
        """Start the container's process, or let it go on from a checkpoint; returns when it runs."""
        record = self.find(ref)
        life = self._lives.of(record)
        async with life.lock:
            status.require_startable(record)
            record.stopped_by_user = False
            record.restart_count = 0
            life.backoff = Backoff()
            await self._lives.start(record, life, checkpoint)

    async def stop(self, ref: str, *, signal_name: str | None, timeout_s: int | None) -> None:
        """Ask the process to end, and make it end after the timeout (negative: never)."""
        record = self.find(ref)
        life = self._lives.of(record)
        status.require_stoppable(record)
        number = signal_number(signal_name or record.config.stop_signal or "SIGTERM")
        record.stopped_by_user = True
        self._records.put(record)
        await self._lives.cancel_restart(record, life)
        if life.task is not None:
            await self._stop(record, life, number, timeout_s)
        self.emit(record, "stop")

    async def _stop(
        self, record: ContainerRecord, life: Life, number: int, timeout_s: int | None
    ) -> None:
        if timeout_s is None:
            timeout_s = record.config.stop_timeout
        if timeout_s is None:
            timeout_s = defaults.STOP_TIMEOUT_S
        ended = life.ended
        self._lives.signal(record, life, number)
        try:
            await asyncio.wait_for(ended.wait(), timeout_s if timeout_s >= 0 else None)
        except TimeoutError:
            try:
                await self._lives.kill_and_wait(record, life)
            except Failed as error:
                raise Failed(f"cannot stop container: {record.id}: {error.message}") from error

    async def restart(self, ref: str, *, signal_name: str | None, timeout_s: int | None) -> None:
        """Stop the container if it runs, then start it."""
        record = self.find(ref)
        life = self._lives.of(record)
        life.kept = True
        try:
            if record.status in (*status.ALIVE, status.RESTARTING):
                await self.stop(record.id, signal_name=signal_name, timeout_s=timeout_s)
            await self.start(record.id)
        except BerthError as error:
            text = f"Cannot restart container {ref}: {error.message}"
            raise Failed(text, hint=error.hint) from error
        finally:
            life.kept = False
        self.emit(record, "restart")

    async def kill(self, ref: str, *, signal_name: str) -> None:
        """Send a signal to the container's process; with SIGKILL return when it has ended.

        As in Docker it is not started again after that, unless its image or `create` chose a signal to
        stop with, and this is another.
        """
        record = self.find(ref)
        life = self._lives.of(record)
        number = signal_number(signal_name or "SIGKILL")
        chosen = record.config.stop_signal
        stops = not chosen or number in (signal.SIGKILL, signal_number(chosen))
        if record.status == status.RESTARTING:
            record.stopped_by_user = record.stopped_by_user or stops
            await self._lives.cancel_restart(record, life)
        elif life.task is None:
            raise Conflict(f"container {record.id} is not running")
        if stops:
            record.stopped_by_user = True
            self._records.put(record)
        if number == signal.SIGKILL:
            await self._lives.kill_and_wait(record, life)
        elif life.task is not None:
            self._lives.signal(record, life, number, thaw=stops)

    def pause(self, ref: str) -> None:
        """Freeze every process of the container."""
        record = self.find(ref)
        status.require_pausable(record)
        self.cgroup(record).freeze()
        self._set_status(record, status.PAUSED, "pause")

    def unpause(self, ref: str) -> None:
        """Let a paused container go on."""
        record = self.find(ref)
        status.require_paused(record)
        self.cgroup(record).thaw()
        self._set_status(record, status.RUNNING, "unpause")

    def _set_status(self, record: ContainerRecord, value: str, action: str) -> None:
        record.status = value
        self._records.put(record)
        self.emit(record, action)

    async def wait(self, ref: str, *, condition: str, started: Callable[[], int | None]) -> int:
        """Wait for ``not-running``, ``next-exit`` or ``removed``; return the exit code.

        ``started`` is called when the wait is registered: it answers the client's head and returns a
        duplicate of its connection, on which the monitor answers should berthd be gone by then.
        """
        record = self.find(ref)
        life = self._lives.of(record)
        idle = record.status not in (*status.ALIVE, status.RESTARTING)
        events = {"removed": life.removed, "next-exit": life.ended, "not-running": life.ended}
        if condition not in events:
            raise InvalidArgument(f'invalid condition: "{condition}"')
        event, fd = events[condition], started()
        if idle and condition == "not-running":
            event = asyncio.Event()
            event.set()
        try:
            if fd is not None and life.task is not None:
                await life.task.answer_if_orphaned(fd)
            elif fd is not None and not event.is_set():
                life.orphans.append(os.dup(fd))
        finally:
            if fd is not None:
                os.close(fd)
        await event.wait()
        return record.exit_code

    async def attach(self, ref: str, attachment: Attachment) -> None:
        """Let a client see and feed the container; one that does not run yet takes it along."""
        record = self.find(ref)
        life = self._lives.of(record)
        async with life.lock:  # a start that is under way has taken along those who came before it
            task = life.task
            if task is None:
                life.waiting.append(attachment)
        if task is not None:
            try:
                await task.attach(attachment)
            finally:
                os.close(attachment.fd)
        self.emit(record, "attach")

    def take_back(self, record: ContainerRecord) -> None:
        """Note that what was lent to a container is no longer there for its next start."""
        self._lives.of(record).loan = NOTHING_LENT

    async def reconcile(self) -> None:
        """Find out what became of containers while no berthd was there."""
        await reconcile(self._services, self._records, self._lives, discard=self.discard)
