"""Notices when somebody takes the engine's nftables tables away, so that they are back at once.

Without them published ports are closed, and networks are not apart.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from berth.errors import BerthError
from berth.kernel import netlinkevents, nftables

if TYPE_CHECKING:
    from berth.kernel.netlinkevents import Listener
    from berth.network.foundation import Foundation

log = logging.getLogger("berth")


class Watch:
    """Looks at the tables whenever something of theirs is deleted, by this engine or by others."""

    def __init__(self, foundation: Foundation, listener: Listener) -> None:
        """Own the ``listener`` from now on."""
        self._base = foundation
        self._listener = listener
        self._looking: asyncio.Task[None] | None = None
        self._is_stale = False
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(listener.fileno(), self._read)

    @classmethod
    async def open(cls, foundation: Foundation) -> Watch:
        """Begin to watch."""
        return cls(foundation, await foundation.thread.run(_listen))

    async def close(self) -> None:
        """Watch no more."""
        self._loop.remove_reader(self._listener.fileno())
        self._listener.close()
        if self._looking is not None:
            await asyncio.wait([self._looking])

    def _read(self) -> None:
        messages = self._listener.read()
        name = self._base.names.table
        if messages is None or any(nftables.is_loss(message, name) for message in messages):
            self._is_stale = True
            if self._looking is None:
                self._looking = self._loop.create_task(self._look(), name="look at nftables")

    async def _look(self) -> None:
        try:
            while self._is_stale:
                self._is_stale = False
                await self._base.thread.run(self._base.table.look)
        except (OSError, BerthError) as error:
            log.error("nftables table %s cannot be restored: %s", self._base.names.table, error)  # noqa: TRY400
        finally:
            self._looking = None


def _listen() -> Listener:
    return netlinkevents.Listener(netlinkevents.NFTABLES, ignored=nftables.ORDINARY_EVENTS)
