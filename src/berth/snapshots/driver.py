"""What a storage driver does, and what the store records for it.

The store (:mod:`berth.snapshots.store`) keeps layers, which are directories with every driver; a driver
knows how a container gets a writable root on top of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:
    from pathlib import Path

    from berth.runtime.requests import Rootfs


class SnapshotRecord(msgspec.Struct, kw_only=True):
    """A directory under ``snapshots``: a layer (key: its chain ID), a container's (its id) or a view."""

    number: int
    lower: list[str]  # topmost first, as the overlay takes it
    size_bytes: int = 0  # of a layer's files
    marked: bool = False  # the topmost is not the image's, but what marks containers
    view: bool = False  # for reading only: it keeps the layers of an image that a container sees


def is_layer(record: SnapshotRecord) -> bool:
    """Say whether a record is a layer's: those have themselves on top."""
    return record.lower[:1] == [f"{record.number}/fs"]


class Driver(Protocol):
    """How containers get their roots. Records are those of containers and views."""

    @property
    def name(self) -> str:
        """Docker's name of it."""

    @property
    def backing(self) -> str:
        """What it works with, for people."""

    @property
    def has_plain_layers(self) -> bool:
        """Whether layers say what they hide by plain files, not in overlayfs's way."""

    @property
    def writes_layers(self) -> bool:
        """Whether what a container has written is a layer's files as it is."""

    @property
    def can_show_host(self) -> bool:
        """Whether this machine's own root can be below a container's."""

    def make(self, folder: Path, record: SnapshotRecord) -> None:
        """Begin a snapshot in its new directory. Done at once: a transaction of the state is open."""

    async def fill(self, record: SnapshotRecord) -> None:
        """Make what takes time, before the snapshot is used. Idempotent; a crash leaves nothing half done."""

    def is_filled(self, record: SnapshotRecord) -> bool:
        """Say whether nothing is left for :meth:`fill`."""

    async def merge_anew(self, layer: SnapshotRecord, target: str) -> str:
        """Make what is kept of a whole image beside its topmost layer once more, as ``target``.

        Returns where it is kept, "" when nothing is. Both are below the snapshots' directory.
        """

    def rootfs(self, record: SnapshotRecord) -> Rootfs:
        """Return how to mount a container's root."""

    def view(self, record: SnapshotRecord) -> tuple[str, ...]:
        """Return the directories that are the image below, topmost first."""

    def needed(self, record: SnapshotRecord) -> list[str]:
        """Return the directories that a container needs, its own first."""

    def usage(self, record: SnapshotRecord) -> int:
        """Return how many bytes a container's own files take on disk. Takes its time."""
