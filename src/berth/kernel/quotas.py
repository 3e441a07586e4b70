"""Quotas of projects: FS_IOC_FSSETXATTR and quotactl_fd(2), for file systems that have them (xfs, ext4)."""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from berth.kernel import c
from berth.kernel.libc import SYS_QUOTACTL_FD, fail, libc

if TYPE_CHECKING:
    from collections.abc import Iterator

FS_IOC_FSGETXATTR, FS_IOC_FSSETXATTR = 0x801C581F, 0x401C5820
FS_XFLAG_PROJINHERIT = 0x200
PRJQUOTA = 2
Q_XGETQUOTA, Q_XSETQLIM, Q_XGETQSTAT = 0x5803, 0x5804, 0x5805
FS_DQUOT_VERSION, FS_PROJ_QUOTA = b"\1", b"\2"
FS_DQ_BSOFT, FS_DQ_BHARD = 4, 8
ENFORCED = 0x10 | 0x20  # FS_QUOTA_PDQ_ACCT, FS_QUOTA_PDQ_ENFD
BLOCK_BYTES = 512
NONE = (errno.ENOENT, errno.ESRCH)  # nobody has used the project yet


class _Attributes(c.Structure):
    """struct fsxattr."""

    _fields_ = (
        ("flags", c.c_uint32),
        ("extent_size", c.c_uint32),
        ("extents", c.c_uint32),
        ("project", c.c_uint32),
        ("copy_extent_size", c.c_uint32),
        ("padding", c.c_char * 8),
    )


class _Quota(c.Structure):
    """struct fs_disk_quota."""

    _fields_ = (
        ("version", c.c_char),
        ("flags", c.c_char),
        ("field_mask", c.c_ushort),
        ("id", c.c_uint32),
        ("hard_blocks", c.c_uint64),
        ("soft_blocks", c.c_uint64),
        ("hard_inodes", c.c_uint64),
        ("soft_inodes", c.c_uint64),
        ("blocks", c.c_uint64),
        ("inodes", c.c_uint64),
        ("rest", c.c_char * 56),
    )


class _State(c.Structure):
    """struct fs_quota_stat."""

    _fields_ = (
        ("version", c.c_char),
        ("flags", c.c_ushort),
        ("rest", c.c_char * 124),
    )


def _control(fd: int, command: int, id_: int, record: c.Structure) -> None:
    result = libc.syscall(
        c.c_long(SYS_QUOTACTL_FD),
        c.c_long(fd),
        c.c_long(command << 8 | PRJQUOTA),
        c.c_long(id_),
        c.byref(record),
    )
    if result < 0:
        fail(f"quotactl_fd {command:#x}")


def enforces_projects(fd: int) -> bool:
    """Say whether the file system that ``fd`` is on keeps projects to their limits."""
    state = _State()
    try:
        _control(fd, Q_XGETQSTAT, 0, state)
    except OSError:
        return False
    return int(state.flags) & ENFORCED == ENFORCED


def is_used(fd: int, project: int) -> bool:
    """Say whether files or a limit of a project are there."""
    quota = _Quota()
    try:
        _control(fd, Q_XGETQUOTA, project, quota)
    except OSError as error:
        if error.errno in NONE:
            return False
        raise
    return any((quota.hard_blocks, quota.soft_blocks, quota.blocks, quota.inodes))


def limit(fd: int, project: int, size_bytes: int) -> None:
    """Limit what the files of a project take; 0 is no limit."""
    blocks = -(-size_bytes // BLOCK_BYTES)
    quota = _Quota(
        version=FS_DQUOT_VERSION,
        flags=FS_PROJ_QUOTA,
        field_mask=FS_DQ_BSOFT | FS_DQ_BHARD,
        id=project,
        hard_blocks=blocks,
        soft_blocks=blocks,
    )
    _control(fd, Q_XSETQLIM, project, quota)


@contextmanager
def open_directory(path: str) -> Iterator[int]:
    """Open a directory for a while."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def project_of(path: str) -> int:
    """Return the project of a directory, 0 for none."""
    with open_directory(path) as fd:
        return int(_attributes(fd).project)


def set_project(path: str, project: int) -> None:
    """Give a directory a project, and with it all that is made below from now on."""
    with open_directory(path) as fd:
        found = _attributes(fd)
        found.project = project
        found.flags |= FS_XFLAG_PROJINHERIT
        fcntl.ioctl(fd, FS_IOC_FSSETXATTR, found)


def _attributes(fd: int) -> _Attributes:
    found = _Attributes()
    fcntl.ioctl(fd, FS_IOC_FSGETXATTR, found)
    return found
