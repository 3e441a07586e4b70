"""berthd's side of the runtime: ask the zygote, follow the monitors and workers it forks."""

from __future__ import annotations

import _socket
import asyncio
import os
from functools import partial
from typing import TYPE_CHECKING

from berth.errors import BerthError
from berth.kernel import sockets
from berth.runtime import documents
from berth.runtime.channel import Channel, Message
from berth.runtime.jobs import Job
from berth.runtime.monitors import FreeMonitors, new_id
from berth.runtime.records import BUNDLE, CONFIG_FILE, SOCKET_FILE, TASK_FILE
from berth.runtime.tasks import PreparedTask, Task, record_of_the_dead
from berth.runtime.zygotes import Zygote

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from berth.kernel.cgroups import Hierarchies
    from berth.runtime.requests import DefaultSpec, ExecRequest, ExitRecord, TaskRequest

ANSWER_S = 1.0  # how long a new berthd waits for a monitor's word


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
        descriptors: int,
        hierarchies: Hierarchies,
        defaults: DefaultSpec,
    ) -> Runtime:
        """Start the zygote. Both roots exist. ``hidden``: host paths that no container sees.

        ``descriptors``: how many a container's processes may have, unless something else is said.
        """
        zygote = Zygote(
            data_root=data_root,
            exec_root=exec_root,
            hidden=hidden,
            descriptors=descriptors,
            default_spec=defaults.spec,
        )
        await zygote.open()
        return cls(zygote, hierarchies, defaults)

    def take_id(self, *, init: bool = False) -> str:
        """Return the id of a container that is about to be made; a process may be there for it already.

        With ``init`` there is none, see :meth:`prepare_task`.
        :meth:`prepare_task` or :meth:`give_back` follows.
        """
        return new_id() if init else self._free.take_id()

    async def give_back(self, id_: str) -> None:
        """Undo what is there for a container that is not prepared now, or was not made."""
        await self._free.give_back(id_)

    def prepare_task(self, request: TaskRequest) -> PreparedTask:
        """Begin to prepare a container's process; what goes wrong is raised by its start."""
        search = os.environ.get("PATH", "")
        if request.checkpoint is None:
            document, plan = documents.of_task(request, self._defaults, search)
            # With --init it stays a process of ours, which its container may be able to look into: one whose
            # monitor has served nobody else.
            fork = self._zygote.fork if request.init else partial(self._monitor, spare=request.id)
            channel = fork(document, [], plan)
        else:
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
            return record_of_the_dead(directory) if (directory / TASK_FILE).exists() else None
        task = Task(id_, Channel(sock), directory)
        try:
            await asyncio.wait_for(task.started(), ANSWER_S)
        except TimeoutError:
            return task if task.assume() else record_of_the_dead(directory)
        except BerthError:  # it left, or died, while it was asked
            return record_of_the_dead(directory)
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
        document: Message = {"op": "job", "entry": entry, "template": template}
        return Job(self._zygote.fork(document, list(fds), dict(argument)), entry)

    async def run_last_hooks(self, directory: Path, id_: str) -> None:
        """Run the hooks after the end of a container whose monitor died before it did."""
        bundle = directory / BUNDLE
        if (bundle / CONFIG_FILE).exists():
            argument = {"bundle": str(bundle), "id": id_, "search": os.environ.get("PATH", "")}
            await (await self.run_job("berth.runtime.hooking:run_poststop", argument)).result()

    async def close(self) -> None:
        """Let the zygote and what is free leave; monitors go on."""
        await self._free.close()
        await self._zygote.close()


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
