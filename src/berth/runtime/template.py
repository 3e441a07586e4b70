"""The zygote's mount namespace: a handful of mounts, so that cloning it is cheap and does not grow.

/            a small tmpfs, read-only once made
/proc        procfs
/rootfs      empty: where each container mounts its root, in its own namespace
STAGE        empty: where a spare has the kernel's file systems until it has a root
HOST_ROOT    the host's "/", without what is mounted below it
HIDING       a layer of whiteouts over it
MACHINE      empty: where the two are mounted as one, below layers of the data root, which is in HOST_ROOT
EMPTY        empty: a layer below a single one, which overlayfs does not take alone
data root, exec root   at their own absolute paths
"""

from __future__ import annotations

import os
import stat

from berth.kernel.mounts import (
    MNT_DETACH,
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    mount,
    pivot_root,
    umount2,
)
from berth.kernel.namespaces import CLONE_NEWNS, unshare

HOST_ROOT = "/.host"
HIDING = "/.hiding"
MACHINE = "/.machine"
EMPTY = "/.empty"
ROOTFS = "/rootfs"
STAGE = "/.stage"
STAGED = ("/proc", "/dev")
MARK = "/.dockerenv"  # by which programs know that they are in a container


def enter(data_root: str, exec_root: str, hidden: list[str]) -> None:
    """Move the calling, single-threaded process into a template mount namespace of its own.

    ``hidden``: absolute paths on the host. ``exec_root`` must exist; it is covered while the
    template is being built.
    """
    unshare(CLONE_NEWNS)
    mount("", "/", flags=MS_REC | MS_PRIVATE)
    roots = [(root, os.open(root, os.O_PATH | os.O_CLOEXEC)) for root in (data_root, exec_root)]
    base, stages = exec_root, [STAGE + path for path in STAGED]
    mount("tmpfs", base, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755,size=1m")
    for path in ("/proc", ROOTFS, *stages, HOST_ROOT, MACHINE, EMPTY, data_root, exec_root):
        os.makedirs(base + path, mode=0o755, exist_ok=True)
    mount("/", base + HOST_ROOT, flags=MS_BIND)
    for root, fd in roots:
        mount(f"/proc/self/fd/{fd}", base + root, flags=MS_BIND)
        os.close(fd)
    mount("proc", base + "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    _build_hiding_layer(base + HIDING, hidden)
    os.chdir(base)
    pivot_root(".", ".")
    umount2(".", MNT_DETACH)
    os.chdir("/")
    mount("", "/", flags=MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)


def _build_hiding_layer(layer: str, hidden: list[str]) -> None:
    """Fill an overlayfs layer with a whiteout for each path.

    It must be on another file system than the host's root, or overlayfs sees the two overlap (ELOOP).
    """
    os.mkdir(layer, 0o755)
    os.close(os.open(layer + MARK, os.O_CREAT | os.O_CLOEXEC, 0o755))
    _copy_attributes("/", layer)
    for path in hidden:
        parts = path.strip("/").split("/")
        folders = ["/" + "/".join(parts[:depth]) for depth in range(1, len(parts))]
        if any(os.path.islink(folder) for folder in folders):
            continue  # it is hidden under its real name
        for folder in folders:
            if not os.path.exists(layer + folder):
                os.mkdir(layer + folder)
                _copy_attributes(folder, layer + folder)
        if not os.path.lexists(layer + path):
            os.mknod(layer + path, stat.S_IFCHR, 0)


def _copy_attributes(source: str, target: str) -> None:
    status = os.stat(source)
    os.chown(target, status.st_uid, status.st_gid)
    os.chmod(target, status.st_mode & 0o7777)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
