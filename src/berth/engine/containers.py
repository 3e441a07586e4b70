"""The lives of containers: create, start, the end and what follows it, remove."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import time
from collections import defaultdict
from typing import TYPE_CHECKING

from berth.engine import hostfiles, spec, status
from berth.engine.models import ContainerConfig, ContainerRecord, HostConfig
from berth.engine.names import random_name
from berth.engine.restart import Backoff, wants_restart
from berth.errors import BerthError, Conflict, InvalidArgument, NotFound, NotModified
from berth.runtime.client import Task
from berth.runtime.requests import Attachment, ExitRecord, LogTarget, TaskRequest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from berth.engine.background import Background
    from berth.engine.events import Events
    from berth.engine.instance import Instance
    from berth.images.service import ImageService
    from berth.kernel.cgroups import Cgroup, Hierarchies
    from berth.runtime.client import Runtime
    from berth.state import State

NAME_CHARACTERS = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
START_FAILED = {"command-not-found": 127, "command-not-executable": 126}
DEFAULT_START_FAILED = 128
UNKNOWN_EXIT = 255


class Life:
    """What berthd keeps in memory of one container, beside its record."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.task: Task | None = None
        self.waiting: list[Attachment] = []  # clients that attached before the start
        self.orphans: list[int] = []  # connections of /wait, for the monitor
        self.ended = asyncio.Event()  # replaced at each start
        self.removed = asyncio.Event()
        self.backoff = Backoff()
        self.restarting: asyncio.Task[None] | None = None


class Containers:
    """Every container of an engine."""

    def __init__(  # noqa: PLR0913 - composed in one place, by name
        self,
        *,
        state: State,
        roots: tuple[Path, Path],
        instance: Instance,
        runtime: Runtime,
        images: ImageService,
        hierarchies: Hierarchies,
        events: Events,
        background: Background,
    ) -> None:
        self._table = state.table("containers", ContainerRecord)
        self._data, self._exec = (root / "containers" for root in roots)
        self._instance = instance
        self._runtime = runtime
        self._images = images
        self._hierarchies = hierarchies
        self._events = events
        self._background = background
        self._records = dict(self._table.items())
        self._lives: defaultdict[str, Life] = defaultdict(Life)
        for folder in (self._data, self._exec):
            folder.mkdir(mode=0o710, exist_ok=True)

    # Finding

    def all(self) -> list[ContainerRecord]:
        """Return every container, youngest first."""
        return sorted(self._records.values(), key=lambda record: -record.created_ns)

    def find(self, ref: str) -> ContainerRecord:
        """Return the container that ``ref`` names: a name, an id or a unique prefix of one."""
        if ref in self._records:
            return self._records[ref]
        name = ref.removeprefix("/")
        for record in self._records.values():
            if record.name == name:
                return record
        found = [record for id_, record in self._records.items() if ref and id_.startswith(ref)]
        if len(found) > 1:
            raise InvalidArgument(f"Multiple IDs found with provided prefix: {ref}")
        if not found:
            raise NotFound(f"No such container: {ref}")
        return found[0]

    def task(self, record: ContainerRecord) -> Task:
        """Return the running task of a container; Conflict when it does not run."""
        task = self._lives[record.id].task
        if task is None:
            raise Conflict(f"container {record.id} is not running")
        return task

    def log_path(self, record: ContainerRecord) -> Path:
        """Return where its log is."""
        return self._data / record.id / f"{record.id}-json.log"

    def ended(self, record: ContainerRecord) -> asyncio.Event:
        """Return the event that is set when the current run has ended."""
        return self._lives[record.id].ended

    def cgroup(self, record: ContainerRecord) -> Cgroup:
        """Return its groups."""
        kind = "dev" if record.host_config.privileged else "std"
        return self._hierarchies.open_group(f"{self._instance.cgroup}/{kind}/{record.id}")

    # Create and remove

    async def create(
        self, config: ContainerConfig, *, name: str | None, host_config: HostConfig
    ) -> ContainerRecord:
        """Make a container; nothing is left when it cannot be made."""
        image = self._images.resolve(config.image)
        name = self._claim_name(name)
        if host_config.network_mode not in ("none", "host"):
            host_config.network_mode = "none"
        config.user = config.user or image.config.user
        config.working_dir = config.working_dir or image.config.working_dir
        config.labels = {**(image.config.labels or {}), **(config.labels or {})}
        config.stop_signal = config.stop_signal or image.config.stop_signal
        record = ContainerRecord(
            id=secrets.token_hex(32),
            name=name,
            created_ns=time.time_ns(),
            image_id=image.id,
            config=config,
            host_config=host_config,
            args=spec.arguments(config, image.config),
            env=spec.environment(config, image.config),
        )
        spec.build(record, cgroup=self._instance.cgroup)  # refuses what cannot be
        if config.stop_signal:
            signal_number(config.stop_signal)
        hostfiles.check_binds(host_config)
        folder = self._data / record.id
        folder.mkdir(mode=0o710)
        try:
            hostfiles.write(folder, record)
            self._images.prepare_rootfs(image, record.id)
            self._records[record.id] = record
            self._table.put(record.id, record, durable=True)
        except BaseException:
            self._records.pop(record.id, None)
            hostfiles.remove_tree(folder)
            await self._images.remove_rootfs(record.id)
            raise
        self._emit(record, "create")
        return record

    def _claim_name(self, name: str | None) -> str:
        taken = {record.name: record.id for record in self._records.values()}
        if not name:
            return random_name(taken)
        name = name.removeprefix("/")
        if len(name) < 2 or set(name) - NAME_CHARACTERS or not name[0].isalnum():
            raise InvalidArgument(
                f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
            )
        if name in taken:
            raise Conflict(
                f'Conflict. The container name "/{name}" is already in use by container "{taken[name]}".'
                " You have to remove (or rename) that container to be able to reuse that name."
            )
        return name

    def rename(self, ref: str, name: str) -> None:
        """Give a container another name."""
        record = self.find(ref)
        if not name:
            raise InvalidArgument("Neither old nor new names may be empty")
        record.name = self._claim_name(name)
        self._table.put(record.id, record, durable=True)
        self._emit(record, "rename")

    async def remove(self, ref: str, *, force: bool) -> None:
        """Remove a container; with ``force`` also one that runs."""
        record = self.find(ref)
        life = self._lives[record.id]
        if not force:
            status.require_removable(record)
        elif record.status in status.ALIVE:
            record.stopped_by_user = True
            await self._kill(record, life)
        if life.restarting is not None:
            life.restarting.cancel()
        async with life.lock:
            if record.id not in self._records:
                return
            await self._images.remove_rootfs(record.id)
            hostfiles.remove_tree(self._data / record.id)
            hostfiles.remove_tree(self._exec / record.id)
            del self._records[record.id]
            self._table.remove(record.id, durable=True)
        self._emit(record, "destroy")
        for client in life.waiting:
            os.close(client.fd)
        life.removed.set()
        self._lives.pop(record.id, None)

    # Start and end

    async def start(self, ref: str) -> None:
        """Start the container's process; returns when it runs."""
        record = self.find(ref)
        life = self._lives[record.id]
        async with life.lock:
            status.require_startable(record)
            record.stopped_by_user = False
            await self._start(record, life)

    async def _start(self, record: ContainerRecord, life: Life) -> None:
        folder = self._exec / record.id
        hostfiles.remove_tree(folder)
        folder.mkdir(mode=0o710)
        request = self._request(record, life, folder)
        try:
            task = await self._runtime.start_task(request)
        except BerthError as error:
            code = START_FAILED.get(error.code, DEFAULT_START_FAILED)
            self._note_end(record, life, ExitRecord(exit_code=code, finished_at_ns=time.time_ns()))
            record.error = start_failure(error)
            record.status = status.CREATED
            self._table.put(record.id, record)
            hostfiles.remove_tree(folder)
            if record.host_config.auto_remove:
                self._background.start(self._remove_quietly(record), name="remove")
            raise type(error)(record.error) from error
        finally:
            for tree in request.trees:
                os.close(tree.fd)
            for client in request.attachments:
                os.close(client.fd)
            life.waiting.clear()
        record.status = status.RUNNING
        record.pid = task.pid
        record.error = ""
        record.exit_code = 0
        record.oom_killed = False
        record.started_ns = task.started_at_ns
        self._table.put(record.id, record)
        life.task = task
        for fd in life.orphans:
            await task.answer_if_orphaned(fd)
            os.close(fd)
        life.orphans.clear()
        self._emit(record, "start")
        self._background.start(self._follow(record, life, task), name=f"life {record.id[:12]}")

    def _request(self, record: ContainerRecord, life: Life, folder: Path) -> TaskRequest:
        host, config = record.host_config, record.config
        size = host.console_size or [0, 0]
        log = None
        if host.log_config.type != "none":
            log = LogTarget(path=self.log_path(record))
        return TaskRequest(
            id=record.id,
            directory=folder,
            spec=spec.build(record, cgroup=self._instance.cgroup),
            rootfs=self._images.rootfs(record.id),
            trees=hostfiles.open_trees(self._data / record.id, record),
            user=config.user,
            groups=tuple(host.group_add or ()),
            terminal=config.tty,
            terminal_size=(size[0], size[1]),
            stdin=config.open_stdin,
            stdin_once=config.stdin_once,
            log=log,
            init=bool(host.init),
            attachments=tuple(life.waiting),
        )

    async def _follow(self, record: ContainerRecord, life: Life, task: Task) -> None:
        """Wait for the end, record it, and do what follows from it."""
        ended = await task.wait()
        if ended.reason:
            self._destroy_remains(record)
        async with life.lock:
            if ended.oom_killed:
                self._emit(record, "oom")
            life.task = None
            restarts = wants_restart(record, ended.exit_code)
            self._note_end(record, life, ended)
            if restarts:
                record.status = status.RESTARTING
            self._table.put(record.id, record)
            self._emit(record, "die", exitCode=str(ended.exit_code))
        self._background.start(task.settle(), name=f"settle {record.id[:12]}")
        if record.host_config.auto_remove:
            await self._remove_quietly(record)
        elif restarts:
            life.restarting = self._background.start(
                self._restart_later(record, life), name=f"restart {record.id[:12]}"
            )

    async def _remove_quietly(self, record: ContainerRecord) -> None:
        try:
            await self.remove(record.id, force=True)
        except NotFound:
            return

    def _note_end(self, record: ContainerRecord, life: Life, ended: ExitRecord) -> None:
        record.status = status.EXITED
        record.pid = 0
        record.exit_code = ended.exit_code
        record.oom_killed = ended.oom_killed
        record.finished_ns = ended.finished_at_ns
        record.error = ended.reason or ""
        life.ended.set()
        life.ended = asyncio.Event()

    async def _restart_later(self, record: ContainerRecord, life: Life) -> None:
        ran_ns = record.finished_ns - record.started_ns
        await asyncio.sleep(life.backoff.next_delay_s(ran_ns))
        async with life.lock:
            life.restarting = None
            if record.id not in self._records or record.status != status.RESTARTING:
                return
            record.restart_count += 1
            try:
                await self._start(record, life)
            except BerthError:
                record.status = status.EXITED
                self._table.put(record.id, record)

    def _destroy_remains(self, record: ContainerRecord) -> None:
        """Kill and clean up what a dead monitor left."""
        group = self.cgroup(record)
        try:
            group.kill()
            group.remove()
        except OSError:
            return

    # Verbs on running ones

    async def stop(self, ref: str, *, signal_name: str | None, timeout_s: int | None) -> None:
        """Ask the process to end, and make it end after the timeout."""
        record = self.find(ref)
        life = self._lives[record.id]
        if record.status == status.RESTARTING:
            if life.restarting is not None:
                life.restarting.cancel()
            record.status = status.EXITED
            record.stopped_by_user = True
            self._table.put(record.id, record)
            return
        if record.status not in status.ALIVE:
            raise NotModified(f"container {record.id} is already stopped")
        record.stopped_by_user = True
        self._table.put(record.id, record)
        if timeout_s is None:
            timeout_s = record.config.stop_timeout
        grace = 10 if timeout_s is None else timeout_s
        ended = life.ended
        self._signal(record, signal_number(signal_name or record.config.stop_signal or "SIGTERM"))
        try:
            await asyncio.wait_for(ended.wait(), grace if grace >= 0 else None)
        except TimeoutError:
            await self._kill(record, life)
        self._emit(record, "stop")

    async def _kill(self, record: ContainerRecord, life: Life) -> None:
        ended = life.ended
        if life.task is None:
            return
        life.task.signal(signal.SIGKILL)
        if record.status == status.PAUSED:
            self.cgroup(record).thaw()
        await ended.wait()

    def kill(self, ref: str, *, signal_name: str) -> None:
        """Send a signal to the container's process."""
        record = self.find(ref)
        number = signal_number(signal_name or "SIGKILL")
        if record.status not in status.ALIVE:
            raise Conflict(f"cannot kill container: {ref}: container {record.id} is not running")
        if number in (signal.SIGKILL, signal.SIGTERM):
            record.stopped_by_user = True
        self._signal(record, number)
        self._emit(record, "kill", signal=str(number))

    def _signal(self, record: ContainerRecord, number: int) -> None:
        self.task(record).signal(number)
        if record.status == status.PAUSED and number == signal.SIGKILL:
            self.cgroup(record).thaw()

    def pause(self, ref: str) -> None:
        """Freeze every process of the container."""
        record = self.find(ref)
        if record.status == status.PAUSED:
            raise Conflict(f"container {record.id} is already paused")
        status.require_running(record)
        self.cgroup(record).freeze()
        self._set_status(record, status.PAUSED, "pause")

    def unpause(self, ref: str) -> None:
        """Let a paused container go on."""
        record = self.find(ref)
        if record.status != status.PAUSED:
            raise Conflict(f"container {record.id} is not paused")
        self.cgroup(record).thaw()
        self._set_status(record, status.RUNNING, "unpause")

    def _set_status(self, record: ContainerRecord, value: str, action: str) -> None:
        record.status = value
        self._table.put(record.id, record)
        self._emit(record, action)

    async def wait(self, ref: str, *, condition: str, started: Callable[[], int | None]) -> int:
        """Wait for ``not-running``, ``next-exit`` or ``removed``; return the exit code.

        ``started`` is called when the wait is registered: it answers the client's head and returns a
        duplicate of its connection, on which the monitor answers should berthd be gone by then.
        """
        record = self.find(ref)
        life = self._lives[record.id]
        idle = record.status not in (*status.ALIVE, status.RESTARTING)
        fd = started()
        if fd is not None:
            if life.task is not None:
                await life.task.answer_if_orphaned(fd)
                os.close(fd)
            else:
                life.orphans.append(fd)
        if condition == "removed":
            await life.removed.wait()
        elif condition == "next-exit" or not idle:
            await life.ended.wait()
        return record.exit_code

    async def attach(self, ref: str, attachment: Attachment) -> None:
        """Let a client see and feed the container; one that does not run yet takes it along."""
        record = self.find(ref)
        life = self._lives[record.id]
        if life.task is None:
            life.waiting.append(attachment)
            self._emit(record, "attach")
            return
        try:
            await life.task.attach(attachment)
        finally:
            os.close(attachment.fd)
        self._emit(record, "attach")

    # After a restart of berthd

    async def reconcile(self) -> None:
        """Find out what became of containers while no berthd was there."""
        for record in list(self._records.values()):
            # The folder of one that is not marked as running: berthd died in the middle of its start.
            begun = (self._exec / record.id).exists()
            if begun or record.status in (*status.ALIVE, status.RESTARTING):
                await self._adopt(record)
        for record in list(self._records.values()):
            policy = record.host_config.restart_policy.name
            if record.status == status.EXITED and record.host_config.auto_remove:
                await self._remove_quietly(record)
            elif record.status == status.RESTARTING or (
                record.status == status.EXITED and policy == "always" and record.started_ns
            ):
                await self._start_again(record)

    async def _adopt(self, record: ContainerRecord) -> None:
        life = self._lives[record.id]
        found = await self._runtime.adopt(self._exec / record.id, record.id)
        if isinstance(found, Task):
            life.task = found
            record.pid, record.started_ns = found.pid, found.started_at_ns
            if record.status not in status.ALIVE:
                record.status = status.RUNNING
            self._table.put(record.id, record)
            self._background.start(self._follow(record, life, found), name="adopted")
            return
        self._destroy_remains(record)
        ended = found or ExitRecord(exit_code=UNKNOWN_EXIT, finished_at_ns=time.time_ns())
        if record.status in status.ALIVE:
            self._note_end(record, life, ended)
            if wants_restart(record, ended.exit_code):
                record.status = status.RESTARTING
            self._table.put(record.id, record)

    async def _start_again(self, record: ContainerRecord) -> None:
        life = self._lives[record.id]
        async with life.lock:
            try:
                await self._start(record, life)
            except BerthError:  # its record says why
                return

    def _emit(self, record: ContainerRecord, action: str, **more: str) -> None:
        attributes = {"image": record.config.image, "name": record.name, **more}
        self._events.emit(
            "container", action, record.id, {**(record.config.labels or {}), **attributes}
        )


def signal_number(name: str) -> int:
    """Return the number of a signal given as "9", "KILL" or "SIGKILL"."""
    if name.isdigit() and 0 < int(name) < signal.NSIG:
        return int(name)
    full = name.upper() if name.upper().startswith("SIG") else f"SIG{name.upper()}"
    number = getattr(signal, full, None)
    if not isinstance(number, signal.Signals):
        raise InvalidArgument(f"Invalid signal: {name}")
    return int(number)


def start_failure(error: BerthError) -> str:
    """Return why a start failed, in the words from which clients choose their exit code."""
    return (
        "failed to create task for container: failed to create shim task: OCI runtime create failed:"
        f" berth create failed: unable to start container process: {error.message}"
    )
