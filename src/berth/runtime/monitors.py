"""berthd's hold on monitors whose run is over: the next container or exec is theirs, without a fork.

A monitor is still one container's at a time, so that each fails alone. One of them has a *spare*, a process
cloned ahead of a container. It carries the container's id, by which its groups are named, so whoever takes
the id takes the process.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from berth.errors import Unavailable
from berth.kernel import processes
from berth.kernel.cgroup_files import wait_until
from berth.runtime import documents

if TYPE_CHECKING:
    from berth.kernel.cgroups import Cgroup, Hierarchies
    from berth.runtime.channel import Channel, Message
    from berth.runtime.requests import DefaultSpec

MOST = 2  # they cost a megabyte each; in a storm, forks do
KEEP_S = 30.0
KEEP_SPARE_S = 10.0  # it would look that much older than its container
LEAVE_S = 1.0  # one that somebody has stopped goes when it is let on: its socket has ended


class FreeMonitors:
    """Channels of monitors that are free, for a while."""

    def __init__(self, hierarchies: Hierarchies, defaults: DefaultSpec) -> None:
        self._hierarchies = hierarchies
        self._defaults = defaults
        self._expiry: dict[Channel, asyncio.TimerHandle] = {}
        self._spares: dict[Channel, str] = {}  # of these, the ids of their spares
        self._promised: dict[str, Channel] = {}  # those whose ids were taken
        self._lost: set[str] = set()  # ids that were promised when their monitor died
        self._pids: dict[Channel, int] = {}
        self._closed = False

    def add(self, channel: Channel, pid: int) -> None:
        """Take the channel of one that is free."""
        if self._closed or len(self._expiry) >= MOST:
            channel.close()
            return
        keep_s = KEEP_S
        if self._defaults.ahead and not self._spares and self._ask_for_spare(channel):
            keep_s = KEEP_SPARE_S
        timer = asyncio.get_running_loop().call_later(keep_s, self._let_go, channel)
        self._expiry[channel] = timer
        self._pids[channel] = pid
        channel.deliver_to(lambda _item: self._lose(channel))  # nothing but its end can come

    def _ask_for_spare(self, channel: Channel) -> bool:
        id_ = new_id()
        try:
            channel.send(documents.of_spare(self._defaults, id_))
        except Unavailable:  # it is gone; reading says so
            return False
        self._spares[channel] = id_
        return True

    def _let_go(self, channel: Channel) -> None:
        """Let one leave; it undoes its spare itself."""
        del self._expiry[channel], self._pids[channel]
        self._spares.pop(channel, None)
        channel.close()

    def _lose(self, channel: Channel) -> None:
        """Clean up after one that has died: its spare goes with it, but for the groups."""
        if timer := self._expiry.pop(channel, None):
            timer.cancel()
        pid = self._pids.pop(channel, 0)
        channel.close()
        for promised in [key for key, value in self._promised.items() if value is channel]:
            del self._promised[promised]
            self._lost.add(promised)  # its groups are its container's, should that come
        id_ = self._spares.pop(channel, None)
        if id_ is not None:
            self._remove_groups(id_, pid)

    def _remove_groups(self, id_: str, monitor: int = 0) -> asyncio.Future[None]:
        group = self._hierarchies.open_group(f"{self._defaults.group}/{id_}")
        return asyncio.get_running_loop().run_in_executor(None, _remove, group, monitor)

    def take_id(self) -> str:
        """Return an id for a container; :meth:`ask` or :meth:`give_back` follows."""
        if not self._spares:
            return new_id()
        channel, id_ = self._spares.popitem()
        self._expiry.pop(channel).cancel()
        self._promised[id_] = channel
        return id_

    async def give_back(self, id_: str) -> None:
        """Undo the spare with this id, if it was not used; nothing is left of it when this returns."""
        channel = self._promised.pop(id_, None)
        if channel is not None:
            del self._pids[channel]
            await _let_leave([channel])
        elif id_ in self._lost:
            self._lost.remove(id_)
            await self._remove_groups(id_)

    def ask(
        self, document: Message, fds: list[int], plan: Message, id_: str | None = None
    ) -> Channel | None:
        """Give a run to one of them, to the one with the spare ``id_`` first; None when there is none."""
        self._lost.discard(id_ or "")
        while channel := self._promised.pop(id_ or "", None) or self._idle():
            channel.collect()
            if processes.is_stopped(self._pids.pop(channel)):  # it leaves when it is let on
                channel.close()
                continue
            try:
                channel.send(document, fds, plan)
            except Unavailable:  # somebody has killed it
                channel.close()
                continue
            return channel
        return None

    def _idle(self) -> Channel | None:
        """Take one without a spare."""
        for channel in reversed(self._expiry):
            if channel not in self._spares:
                self._expiry.pop(channel).cancel()
                return channel
        return None

    async def close(self) -> None:
        """Let them leave; none is there any more when this returns, but one that is stopped."""
        self._closed = True
        channels = [*self._expiry, *self._promised.values()]
        for timer in self._expiry.values():
            timer.cancel()
        self._expiry.clear()
        self._spares.clear()
        self._promised.clear()
        await _let_leave(channels)


def new_id() -> str:
    """Return an id that no container has."""
    return os.urandom(32).hex()


async def _let_leave(channels: list[Channel]) -> None:
    for channel in channels:
        channel.collect()
        channel.finish()
    with suppress(TimeoutError):
        async with asyncio.timeout(LEAVE_S):
            for channel in channels:
                while await channel.receive() is not None:
                    pass


def _remove(group: Cgroup, monitor: int) -> None:
    """Remove the groups of a spare, which may have been about to make them when its ``monitor`` was killed.

    It is told to end when that is gone, which takes longer than the end of a socket. What is left even
    then the next start of berthd removes.
    """
    if monitor:
        wait_until(lambda: _is_gone(monitor))
    wait_until(lambda: _is_removed(group))


def _is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def _is_removed(group: Cgroup) -> bool:
    try:
        group.kill()
        group.remove()
    except OSError:
        return False
    return not group.exists()
