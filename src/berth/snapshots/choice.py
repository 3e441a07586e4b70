"""Which storage driver an engine has: what its data root was begun with, what is asked for, or what works."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from berth.errors import BerthError, Conflict, Unsupported
from berth.runtime.removal import remove_tree
from berth.snapshots.driver import SnapshotRecord
from berth.snapshots.overlay import OverlayDriver
from berth.snapshots.store import Snapshots
from berth.snapshots.vfs import VfsDriver

if TYPE_CHECKING:
    from pathlib import Path

    from berth.configuration.subordinate import IdMaps
    from berth.runtime.client import Runtime
    from berth.snapshots.driver import Driver
    from berth.state import State

TRY = "berth.snapshots.trials:try_overlay"
TRY_MAPS = "berth.snapshots.trials:try_maps"
TRIAL = "trial"


class Chosen(msgspec.Struct, kw_only=True):
    """The driver that made what is under the data root."""

    driver: str


async def open_snapshots(
    *, state: State, data_root: Path, runtime: Runtime, wanted: str = ""
) -> Snapshots:
    """Return the snapshots of a data root, not yet opened.

    Conflict: another driver made those that are there. Unsupported: the one that is wanted does not work.
    """
    base = data_root / "snapshots"
    # Nobody else may reach the set-user-ID programs of images.
    base.mkdir(mode=0o700, exist_ok=True)
    base.chmod(0o700)
    table = state.table("storage", Chosen)
    found = table.get("driver")
    if found is None or wanted not in ("", found.driver):
        if state.table("snapshots", SnapshotRecord).items():
            known = found.driver if found else OverlayDriver.name
            if wanted not in ("", known):
                raise Conflict(
                    f"data root {data_root} has layers of the storage driver {known}, not {wanted}",
                    hint=f"choose another --data-root, or --storage-driver {known}",
                )
            found = Chosen(driver=known)
        else:
            found = Chosen(driver=await _working(base, runtime, wanted))
        table.put("driver", found, durable=True)
    driver: Driver = OverlayDriver(base)
    if found.driver == VfsDriver.name:
        driver = VfsDriver(base, runtime)
    return Snapshots(state=state, base=base, driver=driver)


async def _working(base: Path, runtime: Runtime, wanted: str) -> str:
    """Return the driver for a data root without layers: what is wanted, else overlayfs if it works there."""
    if wanted == VfsDriver.name:
        return wanted
    remove_tree(str(base / TRIAL))
    (base / TRIAL).mkdir()
    try:
        job = await runtime.run_job(TRY, {"folder": str(base / TRIAL)})
        await job.result()
    except BerthError as error:
        if wanted:
            raise Unsupported(
                f"storage driver {wanted} does not work in {base}: {error.message}",
                hint=f"use --storage-driver {VfsDriver.name}, or a --data-root elsewhere",
            ) from error
        return VfsDriver.name
    finally:
        remove_tree(str(base / TRIAL))
    return OverlayDriver.name


async def check_id_maps(snapshots: Snapshots, runtime: Runtime, maps: IdMaps) -> None:
    """Refuse maps of ids that roots of containers cannot have here, with the remedy."""
    folder = snapshots.base / TRIAL
    remove_tree(str(folder))
    folder.mkdir()
    tables = {"uids": maps.uids, "gids": maps.gids}
    overlay = snapshots.driver.name == OverlayDriver.name
    try:
        job = await runtime.run_job(TRY_MAPS, {"folder": str(folder), "overlay": overlay, **tables})
        await job.result()
    except BerthError as error:
        raise Unsupported(
            f"user namespaces (userns-remap) do not work here: {error.message}",
            hint=f"Linux 5.19 is needed, id-mapped mounts on the file system of {snapshots.base},"
            " and user.max_user_namespaces (sysctl) above 0",
        ) from error
    finally:
        remove_tree(str(folder))
