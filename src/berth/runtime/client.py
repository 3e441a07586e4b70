"""berthd's side of the runtime: ask the zygote, follow the monitors and workers it forks."""

from __future__ import annotations

import _socket
import asyncio
import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from berth.errors import BerthError, Failed, Unavailable, from_record
from berth.kernel import processes, sockets
from berth.runtime import documents
from berth.runtime.channel import Channel, Message
from berth.runtime.monitors import FreeMonitors
from berth.runtime.records import EXIT_FILE, SOCKET_FILE, TASK_FILE, remove_records
from berth.runtime.requests import (
    Attachment,
    DefaultSpec,
    ExecRequest,
    ExitRecord,
    Handover,
    TaskRequest,
)
from berth.runtime.zygotes import Zygote

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from berth.kernel.cgroups import Hierarchies

    Release = Callable[[Channel, int], None]

log = logging.getLogger("berth")

ANSWER_S = 1.0  # how long a new berthd waits for a monitor's word
MONITOR_DIED = "the container's monitor died"


def _close(channel: Channel, _monitor: int) -> None:
    channel.close()


class Task:
    """The running process of a container, or an exec."""

    def __init__(
        self,
        id_: str,
        channel: Channel,
        directory: Path,
        release: Release = _close,
    ) -> None:
        """``release`` takes the channel of a monitor that is free for another run, and its process id."""
        self.id = id_
        self._release = release
        self.pid = 0
        self.pidfd = -1
        self.monitor = 0
        self.pipes = [0, 0, 0]  # the kernel's numbers of those that are its streams
        self.started_at_ns = 0
        self.detached = asyncio.Event()
        self._kept: list[int] = []  # descriptors that an earlier berthd let the monitor hold
        self._directory = directory
        self._channel = channel
        self._exit: asyncio.Future[ExitRecord] = asyncio.get_running_loop().create_future()
        self._gone = asyncio.Event()

    async def started(self) -> None:
        """Wait until the program runs; raise what went wrong."""
        item = await self._channel.receive()
        if item is None:
            raise Failed("start container process: the monitor died before it began")
        message, _ = item
        if message["event"] == "failed":
            self._channel.close()
            raise from_record(_strings(message["error"]))
        self._note(item)
        expected = _integer(message.get("kept", 0))  # younger than the message
        while item is not None and len(self._kept) < expected:
            item = await self._channel.receive()
            self._note(item)
        self._channel.deliver_to(self._note)

    def assume(self) -> bool:
        """Follow a process whose monitor does not answer, but is there: somebody has stopped it."""
        path = self._directory / TASK_FILE
        try:
            known = json.loads(path.read_bytes())
            parent = Path(f"/proc/{known['pid']}/stat").read_text().rpartition(")")[2].split()[1]
            if int(parent) != known["monitor"]:
                raise ProcessLookupError
            self.pid, self.pidfd = known["pid"], os.pidfd_open(known["pid"])
            self.monitor = known["monitor"]
            self.started_at_ns = path.stat().st_mtime_ns
        except (KeyError, OSError, ValueError):
            self._channel.close()
            return False
        log.warning("task %s: its monitor %d does not answer", self.id[:12], known["monitor"])
        self._channel.deliver_to(self._note)
        return True

    def _note(self, item: tuple[Message, list[int]] | None) -> None:
        if item is None:
            if not self._exit.done():
                self._exit.set_result(_record_of_the_dead(self._directory))
            self._gone.set()
            return
        try:
            self._take(*item)
        except (AssertionError, IndexError, KeyError) as error:
            # Of a version that is not understood: what cannot be followed is as good as dead.
            log.warning("task %s: unreadable message of its monitor: %r", self.id[:12], error)
            self._channel.close()

    def _take(self, message: Message, fds: list[int]) -> None:
        event = message["event"]
        if event == "started":
            if self.pidfd >= 0:
                os.close(self.pidfd)
            self.pid, self.pidfd = _integer(message["pid"]), fds[0]
            self.monitor = _integer(message.get("monitor", 0))  # younger than the message
            self.started_at_ns = _integer(message["started_at_ns"])
            pipes = message.get("pipes", self.pipes)  # younger than the message
            assert isinstance(pipes, list)
            self.pipes = pipes
        elif event == "exited" and not self._exit.done():
            self._exit.set_result(exit_record(message))
        elif event == "kept":
            self._kept += fds
        elif event == "detached":
            self.detached.set()
        elif event == "free":
            self._gone.set()
            self._release(self._channel.pass_on(), self.monitor)

    async def wait(self) -> ExitRecord:
        """Wait for the end; any number may."""
        return await asyncio.shield(self._exit)

    def ended(self) -> ExitRecord | None:
        """Return how it ended, also when that was told only just now; None while it runs."""
        self._channel.drain()
        return self._exit.result() if self._exit.done() else None

    async def ended_or_left(self) -> ExitRecord | None:
        """Return how it ended; of one whose monitor is just dying, too: clients' streams may end first."""
        ended = self.ended()
        if ended is None and self.monitor and processes.is_exiting(self.monitor):
            ended = await self.wait()
        return ended

    def signal(self, number: int) -> None:
        """Send a signal to the process itself; nothing when it has ended."""
        try:
            processes.pidfd_send_signal(self.pidfd, number)
        except ProcessLookupError:
            return

    async def attach(self, attachment: Attachment) -> None:
        """Let the monitor serve a client's connection; the caller still closes its own descriptor."""
        self._channel.send({"op": "attach", **documents.of_attachment(attachment)}, [attachment.fd])

    async def resize(self, *, rows: int, columns: int) -> None:
        """Set the size of the terminal."""
        self._channel.send({"op": "resize", "rows": rows, "columns": columns})

    async def clear_log(self) -> None:
        """Let the monitor forget the log on disk."""
        self._channel.send({"op": "clear"})

    async def answer_if_orphaned(self, fd: int) -> None:
        """Let the monitor answer a /wait whose head was sent, should berthd be gone at the end."""
        try:
            self._channel.send({"op": "answer"}, [fd])
        except Unavailable:  # it is gone: the end, and the answer, come from here in a moment
            return

    def keep(self, fds: Sequence[int]) -> None:
        """Let the monitor hold descriptors till the end of the process, for a later berthd to take."""
        try:
            for first in range(0, len(fds), sockets.MAX_DESCRIPTORS):
                part = fds[first : first + sockets.MAX_DESCRIPTORS]
                self._channel.send({"op": "keep"}, part)
        except Unavailable:  # it is gone, and what they were for, too
            return

    def take_kept(self) -> list[int]:
        """Return the descriptors that an earlier berthd let the monitor hold; the caller's from now on."""
        kept, self._kept = self._kept, []
        return kept

    async def settle(self) -> None:
        """Say that the exit is recorded; returns when the monitor left and its records are gone."""
        try:
            self._channel.send({"op": "settle"})
        except Unavailable:
            self._channel.close()
        await self._gone.wait()
        for fd in self.take_kept():
            os.close(fd)
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1
        remove_records(f"{self._directory}/")


class PreparedTask:
    """A container's process that waits for its start, with namespaces and file systems made."""

    def __init__(self, id_: str, channel: Channel, directory: Path, release: Release) -> None:
        self._id = id_
        self._channel = channel
        self._directory = directory
        self._release = release

    async def start(self, handover: Handover) -> Task:
        """Let it become its program; returns when it runs, raises what went wrong on the way."""
        document, fds = documents.of_handover(handover)
        room = sockets.MAX_DESCRIPTORS - len(fds)
        try:
            self._channel.send(document, [*fds, *handover.keep_fds[:room]])
        except Unavailable:  # it failed already, and what it said about that is still to be read
            pass
        task = Task(self._id, self._channel, self._directory, self._release)
        await task.started()
        task.keep(handover.keep_fds[room:])
        return task

    async def network(self) -> int:
        """Return the network namespace that it has made in its user namespace; the caller's to close."""
        item = await self._channel.receive()
        if item is None:
            raise Failed("start container process: the monitor died before it began")
        message, fds = item
        if message["event"] == "failed":
            raise from_record(_strings(message["error"]))
        return fds[0]

    async def abandon(self) -> None:
        """Undo everything; returns when nothing is left of it but the records' directory."""
        self._channel.finish()
        while (item := await self._channel.receive()) is not None:
            for fd in item[1]:
                os.close(fd)
        remove_records(f"{self._directory}/")


class Job:
    """A worker at work."""

    def __init__(self, channel: Channel, name: str) -> None:
        self._channel = channel
        self._name = name
        self._outcome: Message | None = None

    async def __aiter__(self) -> AsyncIterator[Mapping[str, object]]:
        """Yield its progress until it ends."""
        while self._outcome is None:
            item = await self._channel.receive()
            message: Message = (
                item[0] if item else {"error": Failed(f"{self._name}: the worker died").record()}
            )
            if "progress" in message:
                progress = message["progress"]
                assert isinstance(progress, dict)
                yield progress
            else:
                self._outcome = message
                self._channel.close()

    async def first(self) -> Mapping[str, object]:
        """Wait for its first report; raise the kind that it raised instead."""
        async for progress in self:
            return progress
        return await self.result()

    async def result(self) -> Mapping[str, object]:
        """Wait for the end; raise the kind that it raised."""
        async for _ in self:
            pass
        assert self._outcome is not None
        if "error" in self._outcome:
            raise from_record(_strings(self._outcome["error"]))
        result = self._outcome["result"]
        return result if isinstance(result, dict) else {}

    async def end(self) -> None:
        """End the worker; it touches nothing any more when this returns."""
        self._channel.finish()
        while await self._channel.receive() is not None:
            pass


class Runtime:
    """The zygote and everything that comes out of it."""

    def __init__(self, zygote: Zygote, hierarchies: Hierarchies, defaults: DefaultSpec) -> None:
        self._zygote = zygote
        self._defaults = defaults
        self._free = FreeMonitors(hierarchies, defaults)

    @classmethod
    async def open(
        cls,
        *,
        data_root: Path,
        exec_root: Path,
        hidden: Sequence[str],
        hierarchies: Hierarchies,
        defaults: DefaultSpec,
    ) -> Runtime:
        """Start the zygote. Both roots exist. ``hidden``: host paths that no container sees."""
        zygote = Zygote(
            data_root=data_root, exec_root=exec_root, hidden=hidden, default_spec=defaults.spec
        )
        await zygote.open()
        return cls(zygote, hierarchies, defaults)

    def take_id(self) -> str:
        """Return the id of a container that is about to be made; a process may be there for it already.

        :meth:`prepare_task` or :meth:`give_back` follows.
        """
        return self._free.take_id()

    async def give_back(self, id_: str) -> None:
        """Undo what is there for a container that is not prepared now, or was not made."""
        await self._free.give_back(id_)

    def prepare_task(self, request: TaskRequest) -> PreparedTask:
        """Begin to prepare a container's process; what goes wrong is raised by its start."""
        if request.checkpoint is None:
            document, plan = documents.of_task(request, self._defaults)
            channel = self._monitor(document, [], plan, request.id)
        else:
            search = os.environ.get("PATH", "")
            document, plan = documents.of_restore(request, self._defaults, search)
            images = os.open(request.checkpoint, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                channel = self._monitor(document, [images], plan, request.id)
            finally:
                os.close(images)
        return PreparedTask(request.id, channel, request.directory, self._free.add)

    async def start_exec(self, request: ExecRequest) -> Task:
        """Start one more process in a running container."""
        document, plan = documents.of_exec(request)
        fds = [request.pidfd, *(a.fd for a in request.attachments)]
        channel = self._monitor(document, fds, plan)
        task = Task(request.id, channel, request.directory, self._free.add)
        await task.started()
        return task

    def _monitor(
        self, document: Message, fds: list[int], plan: Message, spare: str | None = None
    ) -> Channel:
        free = self._free.ask(document, fds, plan, spare)
        return free or self._zygote.fork(document, fds, plan)

    async def adopt(self, directory: Path, id_: str) -> Task | ExitRecord | None:
        """Find out about a task that an earlier berthd started."""
        if not directory.is_dir():
            return None
        sock = _connect(directory)
        if sock is None:
            return _record_of_the_dead(directory) if (directory / TASK_FILE).exists() else None
        task = Task(id_, Channel(sock), directory)
        try:
            await asyncio.wait_for(task.started(), ANSWER_S)
        except TimeoutError:
            return task if task.assume() else _record_of_the_dead(directory)
        except BerthError:  # it left, or died, while it was asked
            return _record_of_the_dead(directory)
        ended = task.ended()
        if ended is not None:
            await task.settle()
        return ended or task

    async def run_job(
        self,
        entry: str,
        argument: Mapping[str, object],
        *,
        fds: Sequence[int] = (),
        template: bool = False,
    ) -> Job:
        """Start a worker on ``entry`` ("module:function").

        With ``template`` in the zygote's mount namespace, where containers' roots can be mounted.
        """
        document: Message = {"op": "job", "entry": entry, "argument": dict(argument)}
        document["template"] = template
        return Job(self._zygote.fork(document, list(fds)), entry)

    async def close(self) -> None:
        """Let the zygote and what is free leave; monitors go on."""
        await self._free.close()
        await self._zygote.close()


def exit_record(message: Mapping[str, object]) -> ExitRecord:
    """Read the record of an end."""
    return ExitRecord(
        exit_code=_integer(message["exit_code"]),
        finished_at_ns=_integer(message["finished_at_ns"]),
        started_at_ns=_integer(message.get("started_at_ns", 0)),  # younger than the record
        oom_killed=bool(message.get("oom_killed")),
    )


def _record_of_the_dead(directory: Path) -> ExitRecord:
    """Return what is known of a task whose monitor is gone."""
    try:
        return exit_record(json.loads((directory / EXIT_FILE).read_bytes()))
    except (AssertionError, FileNotFoundError, KeyError, ValueError):
        import time

        return ExitRecord(exit_code=137, finished_at_ns=time.time_ns(), reason=MONITOR_DIED)


def _connect(directory: Path) -> sockets.Socket | None:
    folder = os.open(directory, os.O_PATH | os.O_CLOEXEC)
    sock = sockets.Socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    try:
        # Through the descriptor: a socket's path is limited to 107 bytes.
        sock.connect(f"/proc/self/fd/{folder}/{SOCKET_FILE}")
    except OSError:
        sock.close()
        return None
    finally:
        os.close(folder)
    return sock


def _integer(value: object) -> int:
    assert isinstance(value, int)
    return value


def _strings(value: object) -> dict[str, str]:
    assert isinstance(value, dict)
    return {str(key): str(text) for key, text in value.items()}
