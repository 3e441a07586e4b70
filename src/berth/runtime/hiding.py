"""What a container must not see or change: masked and read-only paths, and parameters of the kernel."""

from __future__ import annotations

import os
import stat

from berth.errors import InvalidArgument
from berth.kernel import mounts
from berth.kernel.mounts import MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY, mount
from berth.runtime import places

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.oci.runtime_spec import Spec

NULL_DEVICE = os.makedev(1, 3)


def hide_in_proc(spec: Spec) -> None:
    """Mask and protect what is in /proc. Nothing of the host is ever mounted below it."""
    linux = spec.get("linux", {})
    mask(of_proc(linux.get("maskedPaths", []), wanted=True))
    make_read_only(of_proc(linux.get("readonlyPaths", []), wanted=True))


def of_proc(paths: list[str], *, wanted: bool) -> list[str]:
    """Return the paths in /proc, or the others."""
    return [path for path in paths if path.startswith("/proc/") == wanted]


def mask(paths: list[str]) -> None:
    """Hide each path that exists: an empty read-only tmpfs over directories, /dev/null over files."""
    if not paths:
        return
    null = _open_null()
    for path in paths:
        fd = places.open_final(path)
        if fd is None:
            continue
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            os.chdir(fd)
            mount("tmpfs", ".", "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)
            os.chdir("/")
        else:
            tree = mounts.open_tree("", dir_fd=null)
            mounts.move_mount(tree, "", dir_fd=fd)
            os.close(tree)
        os.close(fd)
    os.close(null)


def _open_null() -> int:
    """Open /dev/null, which is not what it should be when /dev is a volume's (CVE-2025-31133)."""
    null = os.open("/dev/null", os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW)
    status = os.fstat(null)
    if not stat.S_ISCHR(status.st_mode) or status.st_rdev != NULL_DEVICE:
        raise InvalidArgument("mask paths: /dev/null of the container is not the null device")
    return null


def make_read_only(paths: list[str]) -> None:
    """Bind each path that exists over itself, read-only."""
    for path in paths:
        fd = places.open_final(path)
        if fd is None:
            continue
        tree = mounts.open_tree("", dir_fd=fd)
        mounts.mount_setattr(tree, attr_set=mounts.MOUNT_ATTR_RDONLY, recursive=True)
        mounts.move_mount(tree, "", dir_fd=fd)
        os.close(tree)
        os.close(fd)


def open_sysctls() -> int:
    """Open /proc/sys before it becomes read-only."""
    return os.open("/proc/sys", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def set_sysctls(folder: int, values: dict[str, str]) -> None:
    """Set kernel parameters of this process's namespaces, below a descriptor of /proc/sys, and close it."""
    for name, value in values.items():
        path = name.replace(".", "/").lstrip("/")
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC, dir_fd=folder)
            try:
                os.write(fd, value.encode())
            finally:
                os.close(fd)
        except OSError as error:
            error.filename = f"/proc/sys/{path}"
            raise
    os.close(folder)
