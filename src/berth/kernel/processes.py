"""Processes: pidfds, prctl(2), descriptors, keyrings, the heap."""

from __future__ import annotations

import _signal
import os

from berth.kernel import c
from berth.kernel.libc import (
    SYS_CLOSE_RANGE,
    SYS_GETCWD,
    SYS_KEYCTL,
    SYS_PIDFD_SEND_SIGNAL,
    SYS_RT_SIGACTION,
    check,
    libc,
    syscall,
)

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_NAME = 15
PR_SET_NO_NEW_PRIVS = 38

CLOSE_RANGE_CLOEXEC = 4
_STATE, _PARENT, _FLAGS, _ARG_START = 0, 1, 6, 45  # fields of proc(5), counted from the state
_PF_EXITING = 4
KEYCTL_JOIN_SESSION_KEYRING = 1

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3

_PATH_BYTES = 4096
_HIDDEN_SIGNALS = (32, 33)
_WORD_BYTES = 8


def prctl(option: int, argument: int = 0) -> None:
    """prctl(2) with one argument."""
    result = libc.prctl(option, c.c_ulong(argument), 0, 0, 0)
    check(result, f"prctl {option} {argument}")


def set_name(name: bytes) -> None:
    """Set the name that ps shows (at most 15 bytes)."""
    check(libc.prctl(PR_SET_NAME, name, 0, 0, 0), "prctl PR_SET_NAME")


def set_title(arguments: list[str]) -> None:
    """Write other arguments over those that the process was started with, as far as there is room."""
    fields = _stat("self")
    start, end = int(fields[_ARG_START]), int(fields[_ARG_START + 1])
    text = b"".join(os.fsencode(argument) + b"\0" for argument in arguments)
    room = end - start
    (c.c_char * room).from_address(start).raw = text[: room - 1].ljust(room, b"\0")


def _stat(pid: int | str) -> list[bytes]:
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()


def parent_of(pid: int) -> int:
    """Return the parent of a process, whatever that calls itself."""
    return int(_stat(pid)[_PARENT])


def is_stopped(pid: int) -> bool:
    """Say whether a process is there and somebody has stopped it."""
    try:
        return _stat(pid)[_STATE] in b"Tt"
    except OSError:
        return False


def is_exiting(pid: int) -> bool:
    """Say whether a process is gone, or on its way: what it has open may still be so."""
    try:
        return int(_stat(pid)[_FLAGS]) & _PF_EXITING != 0
    except OSError:
        return True


def set_file_owner(uid: int, gid: int) -> None:
    """Be these for file systems (setfsuid(2)), which makes capabilities over files ineffective."""
    libc.setfsgid(gid)
    libc.setfsuid(uid)


def pidfd_send_signal(pidfd: int, number: int) -> None:
    """pidfd_send_signal(2): ESRCH, as ProcessLookupError, when it has ended."""
    result = syscall(SYS_PIDFD_SEND_SIGNAL, pidfd, number, 0, 0)
    check(result, f"pidfd_send_signal {number}")


def open_file(pid: int, name: str, pidfd: int) -> int:
    """Open what proc(5) has of a process; ProcessLookupError when it is gone: others may have its id."""
    fd = os.open(f"/proc/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        pidfd_send_signal(pidfd, 0)
    except OSError:
        os.close(fd)
        raise
    return fd


def heed_ignored_signals() -> None:
    """Give signals that whoever started this process had ignored (nohup, a shell's &) their default action.

    But for the two that the interpreter itself ignores.
    """
    for number in _signal.valid_signals() - {_signal.SIGPIPE, _signal.SIGXFSZ}:
        if _signal.getsignal(number) == _signal.SIG_IGN:
            _signal.signal(number, _signal.SIG_DFL)


def reset_hidden_signals() -> None:
    """Give the two signals that the C library keeps for itself their default action (rt_sigaction(2)).

    Its posix_spawn(3) leaves them ignored, and its own functions refuse to touch them.
    """
    default = bytes(4 * _WORD_BYTES)  # handler, flags, restorer, mask
    for number in _HIDDEN_SIGNALS:
        result = syscall(SYS_RT_SIGACTION, number, default, None, _WORD_BYTES)
        check(result, f"rt_sigaction {number}")


def raise_descriptor_limit() -> int:
    """Let this process open as many files as it may let itself; return the limit that it had."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return soft


def lower_descriptor_limit(soft: int) -> None:
    """Give this process and what comes out of it such a limit again."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def keep_freed_memory(size_bytes: int) -> None:
    """Let the heap keep so much that was freed instead of giving it back at once (mallopt(3)).

    Each page given back is a page fault when it is wanted again. C libraries without that call decide alone.
    """
    try:
        mallopt = libc.mallopt
    except AttributeError:
        return
    for parameter in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD):
        mallopt(parameter, size_bytes)


def wipe(*texts: bytes) -> None:
    """Overwrite what nobody reads any more: a fork has the heap as it is, what was freed there too."""
    for data in texts:
        first = id(data) + bytes.__basicsize__ - 1  # a zero byte follows the last one
        libc.memset(c.c_ulong(first), 0, c.c_ulong(len(data)))


def is_inside_root() -> bool:
    """Say whether the working directory is below the root (getcwd(2); the C library's hides it)."""
    buffer = c.create_string_buffer(_PATH_BYTES)
    check(syscall(SYS_GETCWD, buffer, _PATH_BYTES), "getcwd")
    return buffer.raw[:1] == b"/"


def close_from(first: int) -> None:
    """Close every descriptor from ``first`` on (close_range(2))."""
    check(syscall(SYS_CLOSE_RANGE, first, 0xFFFFFFFF, 0), f"close_range {first}")


def close_between(first: int, last: int) -> None:
    """Close the descriptors from ``first`` to ``last``, both too (close_range(2))."""
    check(syscall(SYS_CLOSE_RANGE, first, last, 0), f"close_range {first} {last}")


def cloexec_from(first: int) -> None:
    """Mark every descriptor from ``first`` on close-on-exec."""
    result = syscall(SYS_CLOSE_RANGE, first, 0xFFFFFFFF, CLOSE_RANGE_CLOEXEC)
    check(result, f"close_range {first}")


def join_session_keyring() -> None:
    """Give the process a new, anonymous session keyring (keyctl(2)); kernels without keys are fine."""
    syscall(SYS_KEYCTL, KEYCTL_JOIN_SESSION_KEYRING, None, 0, 0, 0)
