"""Jobs that try whether something works where the data root is, in a directory for that."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from berth.errors import Unsupported
from berth.kernel import capabilities, mounts, namespaces, processes
from berth.runtime import remapping
from berth.runtime.idmaps import id_map, on_host
from berth.runtime.rootfs import OVERLAY_OPTIONS
from berth.runtime.worker import confine
from berth.snapshots.whiteouts import OPAQUE_XATTR

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from berth.oci.runtime_spec import IdMapping


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
