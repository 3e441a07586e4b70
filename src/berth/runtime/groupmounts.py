"""A container's own groups, as it sees them."""

from __future__ import annotations

import os

from berth.kernel import mounts
from berth.kernel.mounts import (
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_RDONLY,
    MS_REMOUNT,
    mount,
)

SAFE_FLAGS = MS_NOSUID | MS_NODEV | MS_NOEXEC
SAFE_ATTRIBUTES = mounts.MOUNT_ATTR_NOSUID | mounts.MOUNT_ATTR_NODEV | mounts.MOUNT_ATTR_NOEXEC


def mount_groups(
    target: str, flags: int, controllers: list[str], groups: dict[str, str] | None = None
) -> None:
    """Show the container its own groups: one cgroup2 mount, or a tmpfs with one v1 mount each.

    ``groups``: their paths by controllers, for who sees the host's cgroup namespace.
    """
    safe = SAFE_FLAGS
    if controllers == ["cgroup2"]:
        mount("cgroup", target, "cgroup2", flags | safe)
        return
    mount("tmpfs", target, "tmpfs", safe, "mode=755,size=64k")
    for controller in controllers:
        directory = f"{target}/{controller.removeprefix('name=')}"
        os.mkdir(directory, 0o755)
        mount("cgroup", directory, "cgroup", flags | safe, controller)
        if groups:
            own = mounts.open_tree(directory + groups[controller], recursive=False)
            mounts.umount2(directory)
            mounts.move_mount(own, directory)
            os.close(own)
    if flags & MS_RDONLY:
        mount("", target, flags=MS_REMOUNT | MS_BIND | MS_RDONLY | safe)
