"""Into a container's root, in a worker: after that the kernel resolves every path inside it.

A running container's root is its mount namespace; that of another is its overlay, mounted in a mount
namespace of the worker's own, with the volumes and files from the host that it would have.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, cast

from berth.kernel import mounts, namespaces
from berth.runtime import rootfs
from berth.runtime.template import ROOTFS
from berth.runtime.worker import confine

if TYPE_CHECKING:
    from berth.runtime.messages import RootfsMessage, TreeMessage

CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_MKNOD",
    "CAP_SETFCAP",
)


def enter(argument: dict[str, object], fds: list[int]) -> None:
    """Make the container's root this process's, and drop privileges.

    Argument: ``running`` (``fds[0]`` is its mount namespace then), else ``rootfs`` and ``trees``, one
    of ``fds`` for each. What is taken from ``fds`` is removed from it.
    """
    if argument["running"]:
        _join(fds)
    else:
        _mount(argument, fds)
    confine("/", keep_capabilities=CAPABILITIES)


def enter_own(argument: dict[str, object], fds: list[int]) -> None:
    """Enter like :func:`enter`, but without anything that is mounted below the root."""
    if not argument["running"]:
        _mount(argument, fds)
        confine("/", keep_capabilities=CAPABILITIES)
        return
    _join(fds)
    alone = mounts.open_tree("/", recursive=False)
    confine(alone, keep_capabilities=CAPABILITIES)
    os.close(alone)


def _join(fds: list[int]) -> None:
    namespace = fds.pop(0)
    namespaces.setns(namespace, namespaces.CLONE_NEWNS)
    os.close(namespace)


def _mount(argument: dict[str, object], fds: list[int]) -> None:
    own_namespace()
    message = cast("RootfsMessage", argument["rootfs"])
    images = rootfs.open_images(message)
    rootfs.mount_root(message)
    trees = cast("list[TreeMessage]", argument["trees"])
    rootfs.attach_trees(
        {},
        [
            *images,
            *(rootfs.tree_of(fds.pop(0), tree) for tree in trees),
        ],
        [],
    )


def own_namespace() -> None:
    """Take a mount namespace of this process's own, from which nothing goes back."""
    namespaces.unshare(namespaces.CLONE_NEWNS)
    mounts.mount("", "/", flags=mounts.MS_REC | mounts.MS_PRIVATE)


def open_layers(argument: dict[str, object]) -> tuple[int, int]:
    """Open a container's upper directory and, in one, those below it; then drop privileges.

    The process's root is an empty directory afterwards. CAP_SYS_ADMIN stays, for trusted.* attributes.
    """
    message = cast("RootfsMessage", argument["rootfs"])
    own_namespace()
    os.chdir(message["base"])
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    upper = os.open(message["upper"], flags)
    lower = message["lower"]
    if len(lower) == 1:  # overlayfs wants two
        below = os.open(lower[0], flags)
    else:
        rootfs.mount_machine(lower)
        data = f"lowerdir={':'.join(lower)},{rootfs.OVERLAY_OPTIONS}"
        mounts.mount("overlay", ROOTFS, "overlay", mounts.MS_RDONLY, data)
        below = os.open(ROOTFS, flags)
        mounts.umount2(ROOTFS, mounts.MNT_DETACH)
    confine(ROOTFS, keep_capabilities=(*CAPABILITIES, "CAP_SYS_ADMIN"))
    return upper, below
