"""The copy of an image's directory into a new volume, in a worker that sees nothing but the image.

The image's layers are mounted read-only in a mount namespace of the worker's own and become its root
before any path of the image is opened, so no link leads out.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from berth.kernel import mounts, namespaces
from berth.runtime import rootfs
from berth.runtime.treecopy import TreeCopy
from berth.runtime.worker import FILE_CAPABILITIES, confine

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def copy_up(
    argument: dict[str, object],
    fds: list[int],
    report: Callable[[Mapping[str, object]], None],
) -> Mapping[str, object]:
    """Copy the directory ``path`` of the image ``lower`` below ``base`` into ``fds[0]``, if it is one."""
    del report
    lower = argument["lower"]
    assert isinstance(lower, list)
    target = fds[0]
    confine(_open_image(str(argument["base"]), lower), keep_capabilities=FILE_CAPABILITIES)
    try:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        source = os.open(str(argument["path"]), flags)
    except (FileNotFoundError, NotADirectoryError):
        return {"copied": False}
    TreeCopy(source, target).whole()
    os.fsync(target)
    return {"copied": True}


def _open_image(base: str, lower: list[str]) -> int:
    """Return the image's root as a directory descriptor."""
    os.chdir(base)
    if len(lower) == 1:  # overlayfs wants two
        return os.open(lower[0], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    namespaces.unshare(namespaces.CLONE_NEWNS)
    mounts.mount("", "/", flags=mounts.MS_REC | mounts.MS_PRIVATE)
    rootfs.mount_overlay(lower, target=base)
    return os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
