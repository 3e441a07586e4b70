"""Which storage driver an engine has: what its data root was begun with, what is asked for, or what works."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import msgspec

from berth.errors import BerthError, Conflict, Unsupported
from berth.kernel import capabilities, mounts, namespaces, processes
from berth.runtime import remapping
from berth.runtime.idmaps import id_map, on_host
from berth.runtime.removal import remove_tree
from berth.runtime.rootfs import OVERLAY_OPTIONS
from berth.runtime.worker import confine
from berth.snapshots.driver import SnapshotRecord
from berth.snapshots.overlay import OverlayDriver
from berth.snapshots.store import Snapshots
from berth.snapshots.vfs import VfsDriver
from berth.snapshots.whiteouts import OPAQUE_XATTR

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from berth.configuration.subordinate import IdMaps
    from berth.oci.runtime_spec import IdMapping
    from berth.runtime.client import Runtime
    from berth.snapshots.driver import Driver
    from berth.state import State

TRY = "berth.snapshots.choice:try_overlay"
TRY_MAPS = "berth.snapshots.choice:try_maps"
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


def try_maps(
    argument: dict[str, object], fds: list[int], report: Callable[[Mapping[str, object]], None]
) -> Mapping[str, object]:
    """Mount a root with mapped ids in the empty directory ``folder``, and write to it as its root."""
    del fds, report
    folder = str(argument["folder"])
    uids, gids = (_table(argument[name]) for name in ("uids", "gids"))
    own = namespaces.new_user(id_map(uids), id_map(gids))
    namespaces.unshare(namespaces.CLONE_NEWNS)
    mounts.mount("", "/", flags=mounts.MS_REC | mounts.MS_PRIVATE)
    processes.set_file_owner(on_host(0, uids), on_host(0, gids))
    capabilities.raise_all()
    tree = mounts.open_tree(folder, recursive=False)
    remapping.map_owners(tree, own)
    mounts.move_mount(tree, folder)
    os.chdir(folder)
    for name in ("lower", "upper", "work", "merged"):
        os.mkdir(name)
    if argument["overlay"]:
        data = f"lowerdir=lower,upperdir=upper,workdir=work,{OVERLAY_OPTIONS}"
        mounts.mount("overlay", "merged", "overlay", 0, data)
    os.mkdir("merged/made")
    if os.stat("merged/made").st_uid != on_host(0, uids):
        raise Unsupported("what a container's root makes is not its own")
    return {}


def _table(spans: object) -> list[IdMapping]:
    assert isinstance(spans, list)
    return [{"containerID": inside, "hostID": first, "size": n} for inside, first, n in spans]


def try_overlay(
    argument: dict[str, object], fds: list[int], report: Callable[[Mapping[str, object]], None]
) -> Mapping[str, object]:
    """Mount an overlay in the empty directory ``folder``, in a mount namespace of this process's own.

    Whiteouts and opaque directories can be made as layers have them.
    """
    del fds, report
    namespaces.unshare(namespaces.CLONE_NEWNS)
    mounts.mount("", "/", flags=mounts.MS_REC | mounts.MS_PRIVATE)
    confine(
        str(argument["folder"]),
        keep_capabilities=("CAP_SYS_ADMIN", "CAP_MKNOD", "CAP_DAC_OVERRIDE"),
    )
    for name in ("lower", "upper", "work", "merged"):
        os.mkdir(f"/{name}")
    os.mkdir("/lower/hidden")
    os.mknod("/upper/hidden", stat.S_IFCHR, 0)
    os.setxattr("/upper", OPAQUE_XATTR, b"y")
    data = f"lowerdir=/lower,upperdir=/upper,workdir=/work,{OVERLAY_OPTIONS}"
    mounts.mount("overlay", "/merged", "overlay", 0, data)
    return {}
