"""berthd's hold on the zygote: it is started, asked to fork, and followed by another when it dies."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from typing import TYPE_CHECKING

from berth.errors import Failed, Unavailable
from berth.kernel import sealing, sockets
from berth.runtime.channel import Channel, Message

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from berth.oci.runtime_spec import Spec

log = logging.getLogger("berth")

CONTROL_FD = 3  # where the zygote finds its end of the socket
BOOT = (
    "import sys; sys.path[:] = {path!r};"
    " from berth.runtime import compact; compact.fill_holes();"
    " from berth.runtime.zygote import main;"
    " main({control}, {data!r}, {exec!r}, {hidden!r}, {descriptors}, {default_spec!r})"
)


class Zygote:
    """The zygote of an engine. What came out of one that died goes on; another takes its place.

    One that dies before it is ready is not followed by another until there is something to fork.
    """

    def __init__(
        self,
        *,
        data_root: Path,
        exec_root: Path,
        hidden: Sequence[str],
        descriptors: int,
        default_spec: Spec,
    ) -> None:
        self._log = str(exec_root / "zygote.log")
        self._boot = BOOT.format(
            control=CONTROL_FD,
            path=[entry for entry in sys.path if entry],
            data=str(data_root),
            exec=str(exec_root),
            hidden=list(hidden),
            descriptors=descriptors,
            default_spec=default_spec,
        )
        self._channel: Channel | None = None
        self._ready: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._closed = False
        self.pid = 0

    async def open(self) -> None:
        """Start it; returns when it is ready."""
        self._spawn()
        if not await self._ready:
            raise Failed(f"start zygote: it ended; see {self._log}")

    def _spawn(self) -> Channel:
        ours, theirs = sockets.pair()
        program = sealing.sealed_interpreter()
        # Without the columns of tracebacks there is less between the objects that forks write to.
        options = ["-I", "-S", "-X", "utf8", "-X", "no_debug_ranges"]
        argv = [sys.executable, *options, "-c", self._boot]
        self.pid = os.posix_spawn(
            f"/proc/self/fd/{program}",
            argv,
            {},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, theirs.fileno(), CONTROL_FD),
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDWR, 0),
                (os.POSIX_SPAWN_DUP2, 0, 1),
                (os.POSIX_SPAWN_OPEN, 2, self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            ],
            setsid=True,
        )
        os.close(program)
        theirs.close()
        channel = self._channel = Channel(ours)
        self._ready = asyncio.get_running_loop().create_future()
        channel.deliver_to(self._note)
        return channel

    def _note(self, item: tuple[Message, list[int]] | None) -> None:
        """Note that it is ready, or has ended."""
        if item is not None:
            self._ready.set_result(True)
            return
        self._channel = None
        if self._closed:
            return
        _, status = os.waitpid(self.pid, 0)  # it has ended, or is about to
        log.error("zygote %d ended with status %d; see %s", self.pid, status, self._log)
        if self._ready.done():
            self._spawn()
            log.info("started zygote %d", self.pid)
        else:
            self._ready.set_result(False)

    def fork(self, document: Message, fds: list[int], plan: Message | None = None) -> Channel:
        """Have a process forked for a request; whether it was is seen from its channel."""
        ours, theirs = sockets.pair()
        try:
            self._send(document, [theirs.fileno(), *fds], plan)
        except Unavailable:
            ours.close()
            raise
        finally:
            theirs.close()
        return Channel(ours)

    def _send(self, document: Message, fds: list[int], plan: Message | None) -> None:
        """Ask the zygote; one that is just starting reads it when it is ready."""
        channel = self._channel or self._spawn()
        try:
            channel.send(document, fds, plan)
        except Unavailable:
            channel.close()  # it has ended, which was not noticed yet
            (self._channel or self._spawn()).send(document, fds, plan)

    async def close(self) -> None:
        """Let it leave; monitors go on."""
        self._closed = True
        if self._channel is not None:
            self._channel.close()
            await asyncio.to_thread(os.waitpid, self.pid, 0)
