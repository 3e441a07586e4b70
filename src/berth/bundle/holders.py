"""What holds a container's lock and does not let go is ended, for one that removes the container by force.

A command holds it as long as its hooks run, which may be for ever. What is half done then is removed as what
a killed command left.
"""

from __future__ import annotations

import _signal
import fcntl
import os

from berth.errors import Failed
from berth.kernel import processes
from berth.kernel.cgroup_files import wait_until

PATIENCE_S = 2  # with a command that is about to end by itself
END_PATIENCE_S = 10  # with one that was killed


def take(lock_fd: int) -> None:
    """Take the lock, as soon as it is free; first end whoever keeps it longer than a command has to."""
    if _try_take(lock_fd, PATIENCE_S):
        return
    for pid in _holders(lock_fd):
        _end(pid, lock_fd)
    if not _try_take(lock_fd, END_PATIENCE_S):
        raise Failed("another command that changes the container does not end")


def _try_take(lock_fd: int, patience_s: int) -> bool:
    def try_take() -> bool:
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    return any(wait_until(try_take) for _ in range(patience_s))


def _holders(lock_fd: int) -> list[int]:
    """Return who may hold it, by the inode only: file systems differ in what they call their device."""
    inode, found = str(os.fstat(lock_fd).st_ino), []
    with open("/proc/locks") as file:
        for line in file:
            words = line.split()  # one that only waits has an arrow for its second word
            if words[1] == "FLOCK" and words[5].rpartition(":")[2] == inode:
                found.append(int(words[4]))
    return found


def _end(pid: int, lock_fd: int) -> None:
    """Kill a process that has the lock's file open, and its children: hooks, what enters the container."""
    try:
        pidfd = os.pidfd_open(pid)
    except (OSError, ValueError):
        return
    try:
        if not _has_open(pid, lock_fd):
            return
        # Or it would have another child meanwhile.
        processes.pidfd_send_signal(pidfd, _signal.SIGSTOP)
        try:
            wait_until(lambda: processes.is_stopped(pid) or processes.is_exiting(pid))
            for child in _children(pid):
                _kill_group(child)
        finally:
            processes.pidfd_send_signal(pidfd, _signal.SIGKILL)
    except ProcessLookupError:
        return
    finally:
        os.close(pidfd)


def _has_open(pid: int, lock_fd: int) -> bool:
    wanted = os.fstat(lock_fd)
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except OSError:  # it has ended, or is somebody else's
        return False
    for name in names:
        try:
            if os.path.samestat(os.stat(f"/proc/{pid}/fd/{name}"), wanted):
                return True
        except OSError:
            continue
    return False


def _children(pid: int) -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        try:
            if name.isdecimal() and processes.parent_of(int(name)) == pid:
                found.append(int(name))
        except OSError:  # it has ended
            continue
    return found


def _kill_group(pid: int) -> None:
    """Kill a process, and those of its group if it leads one, as hooks do: but no hook that has called us."""
    try:
        if os.getpgid(pid) == os.getpgrp():
            return
    except ProcessLookupError:
        return
    for kill in (os.killpg, os.kill):
        try:
            kill(pid, _signal.SIGKILL)
        except ProcessLookupError:
            continue
