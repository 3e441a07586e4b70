"""The overlayfs driver: an upper and a work directory a container, mounted in its mount namespace only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from berth.runtime.fileattributes import Facts, give_name
from berth.runtime.requests import OverlayRootfs
from berth.runtime.template import HIDING, HOST_ROOT, MACHINE
from berth.snapshots.usage import disk_usage

if TYPE_CHECKING:
    from pathlib import Path

    from berth.snapshots.driver import SnapshotRecord

OF_HOST = (HIDING, HOST_ROOT, MACHINE)


class OverlayDriver:
    """See :class:`berth.snapshots.driver.Driver`."""

    name = "overlay2"
    backing = "overlayfs, mounted in containers only"
    has_plain_layers = False
    writes_layers = True
    can_show_host = True

    def __init__(self, base: Path) -> None:
        self._base = base

    def make(self, folder: Path, record: SnapshotRecord) -> None:
        """Make the two directories, which is all."""
        for name in ("fs", "work"):
            (folder / name).mkdir()
        # The host's are elsewhere for containers.
        top = "/" if record.lower[0] in OF_HOST else record.lower[0]
        give_name(folder / "fs", Facts((self._base / top).stat()))

    async def fill(self, record: SnapshotRecord) -> None:
        """Nothing takes time."""

    def is_filled(self, record: SnapshotRecord) -> bool:
        """See Driver."""
        del record
        return True

    async def merge_anew(self, layer: SnapshotRecord, target: str) -> str:
        """Nothing is kept: the kernel merges."""
        del layer, target
        return ""

    def rootfs(self, record: SnapshotRecord) -> OverlayRootfs:
        """See Driver."""
        return OverlayRootfs(
            base=self._base,
            lower=tuple(record.lower),
            upper=f"{record.number}/fs",
            work=f"{record.number}/work",
        )

    def view(self, record: SnapshotRecord) -> tuple[str, ...]:
        """See Driver."""
        return tuple(record.lower)

    def needed(self, record: SnapshotRecord) -> list[str]:
        """See Driver."""
        own = [f"{record.number}/fs", f"{record.number}/work"]
        return [*own, *(name for name in record.lower if name not in OF_HOST)]

    def usage(self, record: SnapshotRecord) -> int:
        """See Driver."""
        return disk_usage(self._base / f"{record.number}/fs")
