"""Mounts: mount(2), umount2(2), pivot_root(2) and the mount API of Linux 5.2 and later."""

from __future__ import annotations

import os

from berth.kernel import c
from berth.kernel.libc import (
    SYS_FSCONFIG,
    SYS_FSMOUNT,
    SYS_FSOPEN,
    SYS_MOUNT_SETATTR,
    SYS_MOVE_MOUNT,
    SYS_OPEN_TREE,
    SYS_OPENAT2,
    SYS_PIVOT_ROOT,
    check,
    libc,
    syscall,
)

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_SYNCHRONOUS = 16
MS_REMOUNT = 32
MS_MANDLOCK = 64
MS_DIRSYNC = 128
MS_NOSYMFOLLOW = 256
MS_NOATIME = 1024
MS_NODIRATIME = 2048
MS_BIND = 4096
MS_MOVE = 8192
MS_REC = 16384
MS_SILENT = 32768
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MS_RELATIME = 1 << 21
MS_STRICTATIME = 1 << 24
FLAG_NAMES = {
    MS_RDONLY: "RDONLY",
    MS_NOSUID: "NOSUID",
    MS_NODEV: "NODEV",
    MS_NOEXEC: "NOEXEC",
    MS_REMOUNT: "REMOUNT",
    MS_NOATIME: "NOATIME",
    MS_BIND: "BIND",
    MS_MOVE: "MOVE",
    MS_REC: "REC",
    MS_PRIVATE: "PRIVATE",
    MS_SLAVE: "SLAVE",
    MS_SHARED: "SHARED",
    MS_RELATIME: "RELATIME",
}

MNT_DETACH = 2
PROC_MAGIC = 0x9FA0
TMPFS_MAGIC = 0x01021994

DATA_BYTES = 4096  # a page: what mount(2) takes of options, with the zero at their end
FSOPEN_CLOEXEC = FSMOUNT_CLOEXEC = 1
FSCONFIG_SET_FLAG, FSCONFIG_SET_STRING, FSCONFIG_CMD_CREATE = 0, 1, 6
OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
MOVE_MOUNT_F_EMPTY_PATH = 4
MOVE_MOUNT_T_EMPTY_PATH = 0x40

MOUNT_ATTR_RDONLY = 1
MOUNT_ATTR_NOSUID = 2
MOUNT_ATTR_NODEV = 4
MOUNT_ATTR_NOEXEC = 8
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_ATIME = 0x70  # all bits that say how access times are kept; none of them is relatime
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_IDMAP = 0x100000
MOUNT_ATTR_NOSYMFOLLOW = 0x200000


RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

libc.mount.argtypes = (
    c.c_char_p,
    c.c_char_p,
    c.c_char_p,
    c.c_ulong,
    c.c_char_p,
)
_STATFS_BYTES = 120  # struct statfs, which begins with the type
libc.umount2.argtypes = (c.c_char_p, c.c_int)


def flag_names(flags: int) -> str:
    """Return the flags by name for a message."""
    return "|".join(name for flag, name in FLAG_NAMES.items() if flags & flag) or "0"


def mount(source: str, target: str, fstype: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2). An empty ``fstype`` or ``data`` is passed as NULL."""
    result = libc.mount(
        os.fsencode(source) or None,
        os.fsencode(target),
        os.fsencode(fstype) or None,
        flags,
        os.fsencode(data) or None,
    )
    if result < 0:
        what = f"mount {fstype or 'bind'} from {source!r} ({flag_names(flags)}, {data[:200]})"
        check(result, what, target)


def umount2(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    check(libc.umount2(os.fsencode(target), flags), "umount", target)


def filesystem_type(fd: int) -> int:
    """Return the magic number of the file system that ``fd`` is in (fstatfs(2))."""
    buffer = c.create_string_buffer(_STATFS_BYTES)
    check(libc.fstatfs(fd, buffer), "fstatfs")
    return c.c_long.from_buffer(buffer).value


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2): ``put_old`` may be the same as ``new_root`` when both are '.'."""
    result = syscall(SYS_PIVOT_ROOT, os.fsencode(new_root), os.fsencode(put_old))
    check(result, "pivot_root", new_root)


def open_tree(path: str, *, dir_fd: int = AT_FDCWD, recursive: bool = True) -> int:
    """open_tree(2): a detached copy of the mounts at ``path``, as a CLOEXEC descriptor.

    With an empty ``path``, of ``dir_fd`` itself.
    """
    flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (AT_RECURSIVE if recursive else 0)
    if not path:
        flags |= AT_EMPTY_PATH
    return check(syscall(SYS_OPEN_TREE, dir_fd, os.fsencode(path), flags), "open_tree", path)


def move_mount(tree_fd: int, target: str, *, dir_fd: int = AT_FDCWD) -> None:
    """move_mount(2): attach the detached mount ``tree_fd`` at ``target``.

    With an empty ``target``, at ``dir_fd`` itself.
    """
    flags = MOVE_MOUNT_F_EMPTY_PATH | (0 if target else MOVE_MOUNT_T_EMPTY_PATH)
    result = syscall(SYS_MOVE_MOUNT, tree_fd, b"", dir_fd, os.fsencode(target), flags)
    check(result, "move_mount", target)


def make_mount(
    fstype: str, options: list[tuple[str, str]], *, read_only: bool, attr: int = 0
) -> int:
    """fsopen(2), fsconfig(2) and fsmount(2): a detached mount, as a CLOEXEC descriptor.

    There may be any number of options. One that may be repeated has its own name: overlayfs's "lowerdir+" is
    there since Linux 6.7.
    """
    fd = check(syscall(SYS_FSOPEN, os.fsencode(fstype), FSOPEN_CLOEXEC), "fsopen", fstype)
    try:
        for key, value in options:
            _configure(fd, FSCONFIG_SET_STRING, key, value)
        if read_only:
            _configure(fd, FSCONFIG_SET_FLAG, "ro")
        _configure(fd, FSCONFIG_CMD_CREATE)
        return check(syscall(SYS_FSMOUNT, fd, FSMOUNT_CLOEXEC, attr), "fsmount", fstype)
    finally:
        os.close(fd)


def mount_new(fstype: str, target: str, options: list[tuple[str, str]], *, read_only: bool) -> None:
    """Do the same, and attach it at ``target``."""
    made = make_mount(fstype, options, read_only=read_only)
    try:
        move_mount(made, target)
    finally:
        os.close(made)


def _configure(fd: int, command: int, key: str = "", value: str = "") -> None:
    name, text = os.fsencode(key) or None, os.fsencode(value) or None
    check(syscall(SYS_FSCONFIG, fd, command, name, text, 0), "fsconfig", f"{key}={value}")


class _MountAttr(c.Structure):
    _fields_ = (
        ("attr_set", c.c_uint64),
        ("attr_clr", c.c_uint64),
        ("propagation", c.c_uint64),
        ("userns_fd", c.c_uint64),
    )


def mount_setattr(
    fd: int,
    *,
    attr_set: int = 0,
    attr_clr: int = 0,
    propagation: int = 0,
    userns_fd: int = 0,
    recursive: bool = False,
) -> None:
    """mount_setattr(2) on the mount that ``fd`` refers to (Linux 5.12).

    ``userns_fd`` is the user namespace whose id maps the mount gets with MOUNT_ATTR_IDMAP.
    """
    attr = _MountAttr(attr_set, attr_clr, propagation, userns_fd)
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    result = libc.syscall(
        c.c_long(SYS_MOUNT_SETATTR),
        c.c_long(fd),
        b"",
        c.c_long(flags),
        c.byref(attr),
        c.c_long(c.sizeof(attr)),
    )
    check(result, f"mount_setattr set {attr_set:#x} clear {attr_clr:#x}")


class _OpenHow(c.Structure):
    _fields_ = (
        ("flags", c.c_uint64),
        ("mode", c.c_uint64),
        ("resolve", c.c_uint64),
    )


def open_in_root(root_fd: int, path: str, flags: int, mode: int = 0) -> int:
    """openat2(2) with RESOLVE_IN_ROOT: ``path`` as a process chrooted at ``root_fd`` would see it.

    Symbolic links stay inside; magic links are refused. The descriptor is CLOEXEC.
    """
    resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
    return _openat2(root_fd, path, _OpenHow(flags | os.O_CLOEXEC, mode, resolve))


def open_beneath(root_fd: int, path: str, flags: int) -> int:
    """openat2(2) with RESOLVE_BENEATH: EXDEV when ``path`` or a link in it leads out of ``root_fd``."""
    resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS
    return _openat2(root_fd, path, _OpenHow(flags | os.O_CLOEXEC, 0, resolve))


def open_without_links(path: str, flags: int, *, dir_fd: int = AT_FDCWD) -> int:
    """openat2(2) with RESOLVE_NO_SYMLINKS: ELOOP when any part of ``path`` is a link. CLOEXEC."""
    return _openat2(dir_fd, path, _OpenHow(flags | os.O_CLOEXEC, 0, RESOLVE_NO_SYMLINKS))


def _openat2(dir_fd: int, path: str, how: _OpenHow) -> int:
    result = libc.syscall(
        c.c_long(SYS_OPENAT2),
        c.c_long(dir_fd),
        os.fsencode(path or "."),
        c.byref(how),
        c.c_long(c.sizeof(how)),
    )
    return check(result, "openat2", path)
