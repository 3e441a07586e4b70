"""Namespaces: clone3(2), unshare(2), setns(2), and the host and domain names inside one."""

from __future__ import annotations

import ctypes
import os

from berth.kernel.libc import (
    SYS_CLONE3,
    SYS_SETDOMAINNAME,
    SYS_SETHOSTNAME,
    check,
    libc,
    libc_held,
    syscall,
)

CLONE_NEWTIME = 0x00000080
CLONE_PIDFD = 0x00001000
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_INTO_CGROUP = 0x200000000

SIGCHLD = 17

# OCI's name of a namespace type → (the clone flag, the file under /proc/PID/ns)
NAMESPACES = {
    "user": (CLONE_NEWUSER, "user"),
    "cgroup": (CLONE_NEWCGROUP, "cgroup"),
    "ipc": (CLONE_NEWIPC, "ipc"),
    "uts": (CLONE_NEWUTS, "uts"),
    "network": (CLONE_NEWNET, "net"),
    "pid": (CLONE_NEWPID, "pid"),
    "mount": (CLONE_NEWNS, "mnt"),
    "time": (CLONE_NEWTIME, "time"),
}


class _CloneArgs(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("pidfd", ctypes.c_uint64),
        ("child_tid", ctypes.c_uint64),
        ("parent_tid", ctypes.c_uint64),
        ("exit_signal", ctypes.c_uint64),
        ("stack", ctypes.c_uint64),
        ("stack_size", ctypes.c_uint64),
        ("tls", ctypes.c_uint64),
        ("set_tid", ctypes.c_uint64),
        ("set_tid_size", ctypes.c_uint64),
        ("cgroup", ctypes.c_uint64),
    )


def clone3(flags: int, *, cgroup_fd: int | None = None) -> tuple[int, int]:
    """clone3(2) as a fork into the namespaces of ``flags``: (pid, pidfd), or (0, -1) in the child.

    Only for a single-threaded process. The interpreter is told before and after, as os.fork() does.
    """
    pidfd = ctypes.c_int(-1)
    arguments = _CloneArgs(
        flags=flags | CLONE_PIDFD | (CLONE_INTO_CGROUP if cgroup_fd is not None else 0),
        pidfd=ctypes.addressof(pidfd),
        exit_signal=SIGCHLD,
        cgroup=cgroup_fd or 0,
    )
    size = ctypes.c_long(ctypes.sizeof(arguments))
    ctypes.pythonapi.PyOS_BeforeFork()
    pid: int = libc_held.syscall(ctypes.c_long(SYS_CLONE3), ctypes.byref(arguments), size)
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
        return 0, -1
    ctypes.pythonapi.PyOS_AfterFork_Parent()
    check(pid, f"clone3 {flags:#x}")
    return pid, pidfd.value


def unshare(flags: int) -> None:
    """unshare(2)."""
    check(libc.unshare(flags), f"unshare {flags:#x}")


def setns(fd: int, flags: int = 0) -> None:
    """setns(2): ``fd`` is a namespace file, or a pidfd with ``flags`` naming the namespaces."""
    check(libc.setns(fd, flags), f"setns {flags:#x}")


def sethostname(name: str) -> None:
    """sethostname(2)."""
    data = os.fsencode(name)
    check(syscall(SYS_SETHOSTNAME, data, len(data)), "sethostname", name)


def setdomainname(name: str) -> None:
    """setdomainname(2)."""
    data = os.fsencode(name)
    check(syscall(SYS_SETDOMAINNAME, data, len(data)), "setdomainname", name)
