"""What a container's /dev has: device nodes, and links. Made by descriptors, inside the root."""

from __future__ import annotations

import os
import stat

from berth.runtime import places

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.oci.runtime_spec import Device

DEVICE_TYPES = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}
DEV_LINKS = (
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("pts/ptmx", "ptmx"),
)


def make_devices(devices: list[Device]) -> None:
    """Make the device nodes and the links that /dev has everywhere."""
    previous = os.umask(0)
    folders: dict[str, int] = {}
    for device in devices:
        parent, _, name = device["path"].rpartition("/")
        if parent not in folders:
            folders[parent] = places.open_parent(device["path"])
        _make_device(folders[parent], name, device)
    for folder in folders.values():
        os.close(folder)
    os.umask(previous)
    make_links()


def _make_device(folder: int, name: str, device: Device) -> None:
    mode = DEVICE_TYPES[device.get("type", "c")] | device.get("fileMode", 0o666)
    number = os.makedev(device.get("major", 0), device.get("minor", 0))
    owner, group = device.get("uid", 0), device.get("gid", 0)
    try:
        os.mknod(name, mode, number, dir_fd=folder)
    except FileExistsError:
        os.unlink(name, dir_fd=folder)
        os.mknod(name, mode, number, dir_fd=folder)
    if owner or group:
        os.chown(name, owner, group, dir_fd=folder)


def make_links() -> None:
    """Make the links that /dev has everywhere."""
    folder = places.open_parent("/dev/fd")
    for source, name in DEV_LINKS:
        try:
            os.symlink(source, name, dir_fd=folder)
        except FileExistsError:
            continue
    os.close(folder)
