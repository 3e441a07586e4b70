"""Namespaces: clone3(2), unshare(2), setns(2), and the host and domain names inside one."""

from __future__ import annotations

import os

from berth.kernel import c
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
CLONE_FS = 0x00000200
CLONE_PIDFD = 0x00001000
CLONE_PARENT = 0x00008000
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_INTO_CGROUP = 0x200000000

SIGCHLD = 17
NS_GET_NSTYPE = 0xB703  # ioctl_ns(2)

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


def flag_of(file: str) -> int:
    """Return the clone flag for a file of /proc/PID/ns."""
    return next(flag for flag, name in NAMESPACES.values() if name == file)


class _CloneArgs(c.Structure):
    _fields_ = (
        ("flags", c.c_uint64),
        ("pidfd", c.c_uint64),
        ("child_tid", c.c_uint64),
        ("parent_tid", c.c_uint64),
        ("exit_signal", c.c_uint64),
        ("stack", c.c_uint64),
        ("stack_size", c.c_uint64),
        ("tls", c.c_uint64),
        ("set_tid", c.c_uint64),
        ("set_tid_size", c.c_uint64),
        ("cgroup", c.c_uint64),
    )


_CLONE3, _RECORD_BYTES = c.c_long(SYS_CLONE3), c.c_long(c.sizeof(_CloneArgs))


class Clone:
    """clone3(2) as a fork, ready to be made any number of times by a single-threaded process.

    What a fork has written before the next one is copied twice, so the arguments are made beforehand and the
    call itself does next to nothing. The interpreter is not told: its locks are held by the one thread that
    there is, before and after, and nothing is registered to run at a fork.
    """

    __slots__ = ("_arguments", "_call", "_pidfd", "_record")

    def __init__(self, flags: int = 0, *, cgroup_fd: int | None = None) -> None:
        """Take ``flags`` (new namespaces, CLONE_PIDFD) and the version 2 group to be born in."""
        self._pidfd = c.c_int(-1)
        self._record = _CloneArgs(
            flags=flags | (CLONE_INTO_CGROUP if cgroup_fd is not None else 0),
            pidfd=c.addressof(self._pidfd),
            # A child of the caller's parent takes the caller's, and is refused one of its own.
            exit_signal=0 if flags & CLONE_PARENT else SIGCHLD,
            cgroup=cgroup_fd or 0,
        )
        self._arguments = (_CLONE3, c.byref(self._record), _RECORD_BYTES)
        self._call = libc_held.syscall

    def make(self) -> int:
        """Fork; return the new process's id, 0 in itself, what is negative when there is none (``check``)."""
        pid: int = self._call(*self._arguments)
        return pid

    def check(self, pid: int) -> int:
        """Raise why :meth:`make` returned no ``pid``, or return the pidfd if one was asked for."""
        check(pid, f"clone3 {self._record.flags:#x}")
        return self._pidfd.value


def new_user(uids: str, gids: str) -> int:
    """Return a user namespace that has these maps (user_namespaces(7)); who is made for it ends at once."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    fork = Clone(CLONE_NEWUSER)
    pid = fork.make()
    if pid == 0:
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    try:
        fork.check(pid)
        for name, text in (("uid_map", uids), ("gid_map", gids)):
            fd = os.open(f"/proc/{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, text.encode())
            finally:
                os.close(fd)
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(writer)
        os.close(reader)
        if pid > 0:
            os.waitpid(pid, 0)


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
