"""Extra processes in running containers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from berth.engine import failures, hostfiles, identities, security, spec, status
from berth.engine.models import ExecConfig  # noqa: TC001 - msgspec reads it
from berth.errors import BerthError, Conflict, InvalidArgument, NotFound
from berth.runtime.requests import ExecRequest
from berth.runtime.tasks import Task

if TYPE_CHECKING:
    from pathlib import Path

    from berth.engine.background import Background
    from berth.engine.containers import Containers
    from berth.engine.models import ContainerRecord, ExecStart
    from berth.runtime.client import Runtime
    from berth.runtime.requests import Attachment, ExitRecord

MAX_KEPT = 1024
EXEC_FAILURE = "OCI runtime exec failed: exec failed: unable to start container process: "
KEPT_FILE = "exec.json"  # for the berthd that comes next
SIGKILL = 9
EXEC_FAILED = 126


class Kept(msgspec.Struct, kw_only=True):
    """What a later berthd has to know of an exec."""

    container_id: str
    config: ExecConfig


class Exec:
    """One exec: what was asked for, and how it went."""

    def __init__(self, id_: str, container_id: str, config: ExecConfig) -> None:
        self.id = id_
        self.container_id = container_id
        self.config = config
        self.task: Task | None = None
        self.started = False
        self.exit_code: int | None = None


class Execs:
    """The execs of an engine; ended ones are kept for a while, for clients ask how they ended."""

    def __init__(
        self, *, exec_root: Path, containers: Containers, runtime: Runtime, background: Background
    ) -> None:
        self._folder = exec_root / "execs"
        self._folder.mkdir(mode=0o710, exist_ok=True)
        self._containers = containers
        self._runtime = runtime
        self._background = background
        self._execs: dict[str, Exec] = {}

    async def adopt(self) -> None:
        """Find the execs of an earlier berthd: those that run, and how the others ended."""
        for folder in sorted(self._folder.iterdir()):
            try:
                kept = msgspec.json.decode((folder / KEPT_FILE).read_bytes(), type=Kept)
            except (OSError, msgspec.DecodeError):
                kept = None
            ended = await self._runtime.adopt(folder, folder.name)
            if kept is not None and ended is not None:
                found = self._execs[folder.name] = Exec(folder.name, kept.container_id, kept.config)
                found.started = True
                if isinstance(ended, Task):
                    found.task = ended
                    self._follow_later(found, ended, folder)
                    continue
                found.exit_code = ended.exit_code
            hostfiles.remove_tree(folder)

    def check(self, ref: str, config: ExecConfig) -> ContainerRecord:
        """Refuse an exec that cannot be; return the container."""
        record = self._containers.find(ref)
        status.require_running(record)
        if not config.cmd:
            raise InvalidArgument("No exec command specified")
        return record

    def create(self, ref: str, config: ExecConfig) -> str:
        """Make an exec; it runs when it is started."""
        record = self.check(ref, config)
        found = Exec(os.urandom(32).hex(), record.id, config)
        if len(self._execs) >= MAX_KEPT:
            ended = next((e for e in self._execs.values() if e.exit_code is not None), None)
            if ended is not None:
                del self._execs[ended.id]
        self._execs[found.id] = found
        self._emit(found, f"exec_create: {words(config.cmd)}")
        return found.id

    def _emit(self, found: Exec, action: str, **more: str) -> None:
        record = self._containers.get(found.container_id)
        if record is not None:
            self._containers.emit(record, action, execID=found.id, **more)

    def forget(self, found: Exec) -> None:
        """Let go of an exec that nobody will ask about."""
        self._execs.pop(found.id, None)

    def find(self, id_: str) -> Exec:
        """Return an exec by its id."""
        if id_ not in self._execs:
            raise NotFound(f"No such exec instance: {id_}")
        return self._execs[id_]

    def running_in(self, container_id: str) -> list[str]:
        """Return the ids of the execs that run in a container."""
        found = self._execs.values()
        return [e.id for e in found if e.container_id == container_id and e.task is not None]

    def task(self, id_: str) -> Task:
        """Return the running task of an exec."""
        found = self.find(id_)
        if found.task is None:
            raise Conflict(f"exec {id_} is not running")
        return found.task

    def require_startable(self, found: Exec) -> None:
        """Raise unless the exec may be started."""
        if found.started:
            raise Conflict(f"exec command {found.id} is already running")
        status.require_running(self._containers.find(found.container_id))

    async def start(self, found: Exec, options: ExecStart, attachment: Attachment | None) -> None:
        """Start it; a client's connection goes to its monitor."""
        self.require_startable(found)
        record = self._containers.find(found.container_id)
        task = self._containers.task(record)
        found.started = True
        folder = self._folder / found.id
        folder.mkdir(mode=0o710)
        kept = Kept(container_id=record.id, config=found.config)
        (folder / KEPT_FILE).write_bytes(msgspec.json.encode(kept))
        size = options.console_size or [0, 0]
        request = ExecRequest(
            id=found.id,
            container_id=record.id,
            directory=folder,
            pid=task.pid,
            pidfd=task.pidfd,
            process=dict(spec.exec_process(record, found.config)),
            cgroups_path=self._containers.cgroup(record).path,
            user=found.config.user or record.config.user,
            terminal=found.config.tty,
            terminal_size=(size[0], size[1]),
            stdin=found.config.attach_stdin,
            seccomp=security.exec_seccomp_filter(
                record.host_config,
                privileged=found.config.privileged,
                has_quota=self._containers.has_quota(record),
            ),
            remapped=record.id_maps is not None,
            linux=dict(identities.mappings(record)),
            attachments=(attachment,) if attachment else (),
        )
        try:
            found.task = task = await self._runtime.start_exec(request)
        except BerthError as error:
            found.exit_code = failures.exit_code(error, default=EXEC_FAILED)
            hostfiles.remove_tree(folder)
            if attachment is None:
                raise
            said = type(error) is InvalidArgument  # by Docker itself, not by its runtime
            self._tell(attachment, ("" if said else EXEC_FAILURE) + error.message + "\r\n")
            return
        finally:
            if attachment is not None:
                os.close(attachment.fd)
        self._emit(found, f"exec_start: {words(found.config.cmd)}")
        self._follow_later(found, task, folder)

    def _tell(self, attachment: Attachment, text: str) -> None:
        """Say on the connection why it failed: the response's head was sent already."""
        data = text.encode()
        if attachment.multiplexed:
            data = b"\1\0\0\0" + len(data).to_bytes(4, "big") + data
        try:
            os.write(attachment.fd, data)
        except OSError:
            return

    def _follow_later(self, found: Exec, task: Task, folder: Path) -> None:
        self._background.start(self._follow(found, task, folder), name=f"exec {found.id[:12]}")

    async def _follow(self, found: Exec, task: Task, folder: Path) -> None:
        ended = await task.wait()
        if ended.reason:  # nobody sees any more what it does, or how it ends
            task.signal(SIGKILL)
        self._note_end(found, ended)
        await task.settle()
        hostfiles.remove_tree(folder)

    def _note_end(self, found: Exec, ended: ExitRecord) -> None:
        """Keep and tell of an end, once: whoever is told of it finds it among the events."""
        if found.task is not None:
            found.exit_code, found.task = ended.exit_code, None
            self._emit(found, "exec_die", exitCode=str(ended.exit_code))

    async def inspect(self, id_: str) -> dict[str, object]:
        """Return how an exec is."""
        found = self.find(id_)
        # A client asks as soon as its streams have ended, maybe before the end was read here.
        if found.task is not None and (ended := await found.task.ended_or_left()):
            self._note_end(found, ended)
        config = found.config
        command = config.cmd or [""]
        return {
            "ID": found.id,
            "ContainerID": found.container_id,
            "Running": found.task is not None,
            "ExitCode": found.exit_code,
            "Pid": found.task.pid if found.task else 0,
            "OpenStdin": config.attach_stdin,
            "OpenStdout": config.attach_stdout,
            "OpenStderr": config.attach_stderr,
            "CanRemove": False,
            "DetachKeys": "",
            "ProcessConfig": {
                "tty": config.tty,
                "entrypoint": command[0],
                "arguments": command[1:],
                "privileged": config.privileged,
                "user": config.user,
            },
        }


def words(command: list[str] | None) -> str:
    """Return a command as events show it: a blank after the program, also when nothing follows."""
    program, *arguments = command or [""]
    return f"{program} {' '.join(arguments)}"
