"""The copy of an image's directory into a new volume, in a worker that sees nothing but the image.

The image's layers are mounted read-only in a mount namespace of the worker's own and become its root
before any path of the image is opened, so no link leads out.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from berth.kernel import mounts, namespaces
from berth.runtime import rootfs
from berth.runtime.worker import FILE_CAPABILITIES, confine

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

CHUNK_BYTES = 1 << 20


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
    _Copy().directory(source, target)
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


class _Copy:
    """One copy, which keeps hard links."""

    def __init__(self) -> None:
        self._links: dict[tuple[int, int], tuple[int, str]] = {}

    def directory(self, source: int, target: int) -> None:
        """Copy everything below ``source``, and its own attributes."""
        for name in os.listdir(source):
            status = os.stat(name, dir_fd=source, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                inner = os.open(name, flags, dir_fd=source)
                os.mkdir(name, 0o700, dir_fd=target)
                outer = os.open(name, flags, dir_fd=target)
                self.directory(inner, outer)
                os.close(inner)
                if not self._holds(outer):
                    os.close(outer)
            elif not self._is_linked(name, status, target):
                _entry(name, status, source, target)
        _attributes(os.fstat(source), source, target)

    def _is_linked(self, name: str, status: os.stat_result, target: int) -> bool:
        if status.st_nlink < 2:
            return False
        key = (status.st_dev, status.st_ino)
        if key in self._links:
            folder, first = self._links[key]
            os.link(first, name, src_dir_fd=folder, dst_dir_fd=target, follow_symlinks=False)
            return True
        self._links[key] = (target, name)
        return False

    def _holds(self, fd: int) -> bool:
        return any(folder == fd for folder, _ in self._links.values())


def _entry(name: str, status: os.stat_result, source: int, target: int) -> None:
    """Copy what is not a directory."""
    if stat.S_ISREG(status.st_mode):
        _file(name, source, target)
        return
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
    elif stat.S_ISSOCK(status.st_mode):
        return
    else:
        os.mknod(name, status.st_mode, status.st_rdev, dir_fd=target)
        os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=target)
    os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
    times = (status.st_atime_ns, status.st_mtime_ns)
    os.utime(name, ns=times, dir_fd=target, follow_symlinks=False)


def _file(name: str, source: int, target: int) -> None:
    inner = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    outer = os.open(name, flags, 0o600, dir_fd=target)
    while os.sendfile(outer, inner, None, CHUNK_BYTES):
        pass
    _attributes(os.fstat(inner), inner, outer)
    os.close(inner)
    os.close(outer)


def _attributes(status: os.stat_result, source: int, target: int) -> None:
    """Give ``target`` the owner, extended attributes, mode and times of ``source``, in that order."""
    os.fchown(target, status.st_uid, status.st_gid)
    for name in os.listxattr(source):
        if name.startswith(("security.", "user.")):
            try:
                os.setxattr(target, name, os.getxattr(source, name))
            except OSError:  # the volume's file system has none
                continue
    os.fchmod(target, stat.S_IMODE(status.st_mode))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
