"""What berthd keeps in memory of one container, beside its record."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from berth.engine.restart import Backoff

if TYPE_CHECKING:
    from pathlib import Path

    from berth.runtime.requests import Attachment, ImageTree, Tree
    from berth.runtime.tasks import PreparedTask, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Loan:
    """What a container gets that no record has: mounts (the descriptors stay the lender's) and variables."""

    trees: tuple[Tree, ...] = ()
    images: tuple[ImageTree, ...] = ()
    env: tuple[str, ...] = ()


NOTHING_LENT = Loan()


class Life:
    """The locks, tasks and waiting clients of one container."""

    def __init__(self, *, data_folder: Path, exec_folder: Path) -> None:
        self.lock = asyncio.Lock()
        self.task: Task | None = None
        self.prepared: PreparedTask | None = None
        self.expiry: asyncio.TimerHandle | None = None  # of what is prepared
        self.waiting: list[Attachment] = []  # clients that attached before the start
        self.orphans: list[int] = []  # connections of /wait, for the monitor
        self.loan = NOTHING_LENT
        self.ended = asyncio.Event()  # replaced at each start
        self.removed = asyncio.Event()
        self.backoff = Backoff()
        self.restarting: asyncio.Task[None] | None = None
        self.settling: asyncio.Task[None] | None = None  # the last run's monitor is on its way out
        self.data_folder = data_folder
        self.exec_folder = exec_folder
        self.kept = False  # not removed at its end although it asked for that: `restart`
