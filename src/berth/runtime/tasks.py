"""berthd's hold on tasks: the processes of containers and execs, from their preparation to their end."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from typing import TYPE_CHECKING

from berth.errors import Failed, Unavailable
from berth.kernel import processes, sockets
from berth.runtime import documents
from berth.runtime.channel import Channel, Message, told_error
from berth.runtime.records import EXIT_FILE, TASK_FILE, remove_records
from berth.runtime.requests import Attachment, ExitRecord, Handover

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    Release = Callable[[Channel, int], None]

log = logging.getLogger("berth")

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
            raise told_error(message)
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
            if processes.parent_of(known["pid"]) != known["monitor"]:
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
                self._exit.set_result(record_of_the_dead(self._directory))
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

    def open_file(self, name: str) -> int:
        """Open what proc(5) has of the process, the caller's to close; OSError when it has ended."""
        return processes.open_file(self.pid, name, self.pidfd)

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

    def keep(self, fds: Sequence[int], *, anew: bool = False) -> None:
        """Let the monitor hold descriptors till the end of the process, for a later berthd to take.

        ``anew``: and no others that it was given before.
        """
        most = sockets.MAX_DESCRIPTORS
        parts = [fds[first : first + most] for first in range(0, len(fds), most)]
        if anew and not parts:
            parts = [()]
        try:  # with the first ones, not before: a kill in between would lose them
            for number, part in enumerate(parts):
                self._channel.send({"op": "keep", "anew": anew and number == 0}, part)
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
            raise told_error(message)
        return fds[0]

    async def abandon(self) -> None:
        """Undo everything; returns when nothing is left of it but the records' directory."""
        self._channel.finish()
        while (item := await self._channel.receive()) is not None:
            for fd in item[1]:
                os.close(fd)
        remove_records(f"{self._directory}/")


def exit_record(message: Mapping[str, object]) -> ExitRecord:
    """Read the record of an end."""
    return ExitRecord(
        exit_code=_integer(message["exit_code"]),
        finished_at_ns=_integer(message["finished_at_ns"]),
        started_at_ns=_integer(message.get("started_at_ns", 0)),  # younger than the record
        oom_killed=bool(message.get("oom_killed")),
    )


def record_of_the_dead(directory: Path) -> ExitRecord:
    """Return what is known of a task whose monitor is gone."""
    try:
        return exit_record(json.loads((directory / EXIT_FILE).read_bytes()))
    except (AssertionError, FileNotFoundError, KeyError, ValueError):
        import time

        return ExitRecord(exit_code=137, finished_at_ns=time.time_ns(), reason=MONITOR_DIED)


def _integer(value: object) -> int:
    assert isinstance(value, int)
    return value
