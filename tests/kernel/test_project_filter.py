"""A container with a size stays in the project that has the quota: its root may not change a file's."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
from typing import TYPE_CHECKING

import pytest

from berth.engine import seccomp
from berth.kernel import quotas
from berth.kernel import seccomp as kernel
from support.forks import in_child

if TYPE_CHECKING:
    from pathlib import Path

FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_IOC32_SETFLAGS = 0x80086601, 0x40086602, 0x40046602
IOCTL, FILE_SETATTR = 16, 469
pytestmark = pytest.mark.skipif(os.uname().machine != "x86_64", reason="its numbers of calls")
CUSTOM = json.dumps(
    {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"name": "ioctl", "action": "SCMP_ACT_ALLOW"}]}
)


def refusals(path: Path, profile: str, *, has_quota: bool) -> list[int]:
    """Try everything that moves a file to another project; return how each failed."""
    program = seccomp.filter_for(profile, ["CAP_SYS_ADMIN"], has_quota=has_quota)
    assert program is not None
    kernel.load(program)
    fd = os.open(path, os.O_RDONLY)
    found = []
    for request in (quotas.FS_IOC_FSSETXATTR, FS_IOC_SETFLAGS, FS_IOC32_SETFLAGS):
        for more in (0, 1 << 32):  # a register is wider than the kernel's argument
            libc = ctypes.CDLL(None, use_errno=True)
            argument = ctypes.create_string_buffer(28)
            number = ctypes.c_ulong(request + more)
            failed = libc.syscall(IOCTL, ctypes.c_ulong(fd), number, argument)
            found.append(ctypes.get_errno() if failed else 0)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall(ctypes.c_long(FILE_SETATTR), 0, 0, 0, 0, 0)
    found.append(ctypes.get_errno())
    fcntl.ioctl(fd, FS_IOC_GETFLAGS, bytearray(8))
    return found


@pytest.mark.parametrize("profile", ["", CUSTOM])
def test_nobody_leaves_a_project_with_a_quota(tmp_path: Path, profile: str) -> None:
    refused = in_child(lambda: refusals(tmp_path, profile, has_quota=True))
    assert set(refused) == {errno.EOPNOTSUPP}
    others = in_child(lambda: refusals(tmp_path, profile, has_quota=False))
    assert errno.EOPNOTSUPP not in others
