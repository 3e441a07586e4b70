"""Into a container's root, in a worker: after that the kernel resolves every path inside it.

A running container's root is its mount namespace; that of another is its overlay, mounted in a mount
namespace of the worker's own, with the volumes and files from the host that it would have.
"""

from __future__ import annotations

import errno
import os
import select
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, cast

from berth.kernel import mounts, namespaces
from berth.runtime import rootfs
from berth.runtime.template import ROOTFS
from berth.runtime.worker import FILE_CAPABILITIES, confine

if TYPE_CHECKING:
    from berth.runtime.messages import RootfsMessage, TreeMessage


def enter(argument: dict[str, object], fds: list[int]) -> None:
    """Make the container's root this process's, and drop privileges.

    Argument: ``running`` (``fds`` are its mount namespace then, and its user namespace if it has one), else
    ``rootfs`` and ``trees``, one of ``fds`` for each. What is taken from ``fds`` is removed from it.
    """
    if argument["running"]:
        _join(fds)
        _share_ids(fds)
    else:
        _mount(argument, fds)
    confine("/", keep_capabilities=FILE_CAPABILITIES)


def enter_own(argument: dict[str, object], fds: list[int]) -> None:
    """Enter like :func:`enter`, but without anything that is mounted below the root."""
    if not argument["running"]:
        _mount(argument, fds)
        confine("/", keep_capabilities=FILE_CAPABILITIES)
        return
    _join(fds)
    alone = mounts.open_tree("/", recursive=False)
    _share_ids(fds)
    confine(alone, keep_capabilities=FILE_CAPABILITIES)
    os.close(alone)


def _join(fds: list[int]) -> None:
    namespace = fds.pop(0)
    namespaces.setns(namespace, namespaces.CLONE_NEWNS)
    os.close(namespace)


def _share_ids(fds: list[int]) -> None:
    """Be root of the container's user namespace, if it has one: then owners are as it sees them."""
    if not fds:
        return
    namespace = fds.pop(0)
    namespaces.setns(namespace, namespaces.CLONE_NEWUSER)
    os.close(namespace)
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


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


PAUSES_MS = (0, 5, 20, 75, 300, 900)
INDEX_XATTRS = ("trusted.overlay.origin", "trusted.overlay.uuid")


class Layers(NamedTuple):
    """A container's own directory and its image's, open.

    ``own`` has what the container has changed only, in overlayfs's form. With ``copied_ns`` it is a copy of
    all of the image, made until then.
    """

    own: int
    below: int
    copied_ns: int | None


def open_layers(argument: dict[str, object]) -> Layers:
    """Open a container's layers, in a mount namespace of this process's own; then drop privileges.

    The process's root is an empty directory afterwards. CAP_SYS_ADMIN stays, for trusted.* attributes.
    """
    found = layers_of(cast("RootfsMessage", argument["rootfs"]))
    confine(ROOTFS, keep_capabilities=(*FILE_CAPABILITIES, "CAP_SYS_ADMIN"))
    return found


def is_left(message: RootfsMessage) -> bool:
    """Say whether nobody has a container's root any more, in a mount namespace of this process's own.

    Its processes have ended, and its mounts with them, but what they had open they may have passed on, to
    somebody who goes on writing. overlayfs knows: with an index it takes no upper directory that another of
    its mounts has. Mounts end in the background, so it is asked more than once.
    """
    os.chdir(message["base"])
    options = [("lowerdir", ROOTFS), ("upperdir", message["upper"]), ("workdir", message["work"])]
    for pause_ms in PAUSES_MS:
        select.poll().poll(pause_ms)
        try:
            os.close(mounts.make_mount("overlay", [*options, ("index", "on")], read_only=False))
        except OSError as error:
            if error.errno != errno.EBUSY:
                return False
        else:
            for name in INDEX_XATTRS:
                with suppress(OSError):
                    os.removexattr(message["upper"], name)
            return True
    return False


def layers_of(message: RootfsMessage) -> Layers:
    """Open a container's layers, in a mount namespace of this process's own."""
    os.chdir(message["base"])
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    if "path" in message:
        copied_ns = os.stat(os.path.dirname(message["path"])).st_mtime_ns
        found = Layers(os.open(message["path"], flags), os.open(message["below"], flags), copied_ns)
    else:
        own = os.open(message["upper"], flags)
        rootfs.mount_lower(message["lower"])
        found = Layers(own, os.open(ROOTFS, flags), None)
        mounts.umount2(ROOTFS, mounts.MNT_DETACH)
    return found
