"""berthd's hold on monitors whose run is over: the next container or exec is theirs, without a fork.

A monitor is still one container's at a time, so that each fails alone.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from berth.errors import Unavailable
from berth.kernel import processes

if TYPE_CHECKING:
    from berth.runtime.channel import Channel, Message

MOST = 2  # they cost a megabyte each; in a storm, forks do
KEEP_S = 30.0
LEAVE_S = 1.0  # one that somebody has stopped goes when it is let on: its socket has ended


class FreeMonitors:
    """Channels of monitors that are free, for a while."""

    def __init__(self) -> None:
        self._expiry: dict[Channel, asyncio.TimerHandle] = {}
        self._pids: dict[Channel, int] = {}
        self._closed = False

    def add(self, channel: Channel, pid: int) -> None:
        """Take the channel of one that is free."""
        if self._closed or len(self._expiry) >= MOST:
            channel.close()
            return
        timer = asyncio.get_running_loop().call_later(KEEP_S, channel.close)
        self._expiry[channel] = timer
        self._pids[channel] = pid
        channel.deliver_to(lambda _item: self._forget(channel))  # nothing but its end can come

    def _forget(self, channel: Channel) -> None:
        if timer := self._expiry.pop(channel, None):
            timer.cancel()
            del self._pids[channel]
            channel.close()

    def ask(self, document: Message, fds: list[int], plan: Message) -> Channel | None:
        """Give a run to one of them; None when there is none."""
        while self._expiry:
            channel, timer = self._expiry.popitem()
            timer.cancel()
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

    async def close(self) -> None:
        """Let them leave; none is there any more when this returns, but one that is stopped."""
        self._closed = True
        channels = list(self._expiry)
        for channel in channels:
            self._expiry.pop(channel).cancel()
            channel.collect()
            channel.finish()
        with suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_S):
                for channel in channels:
                    while await channel.receive() is not None:
                        pass
