"""The C library through ctypes: the one place where calls are made and failures become exceptions.

A failure is the `OSError` subclass of its errno, with the call in its text. Two handles: ``libc`` gives
up the GIL during a call; ``libc_held`` keeps it, which a call that forks must.
"""

from __future__ import annotations

import os

from berth.kernel import c

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

libc = c.Library(None, use_errno=True)
libc_held = c.LibraryHeld(None, use_errno=True)
libc.syscall.restype = c.c_long
libc_held.syscall.restype = c.c_long

MACHINE = os.uname().machine

# Numbers of calls that glibc 2.31 has no function for. From 424 on they are the same everywhere.
SYS_OPEN_TREE = 428
SYS_MOVE_MOUNT = 429
SYS_FSOPEN = 430
SYS_FSCONFIG = 431
SYS_FSMOUNT = 432
SYS_PIDFD_SEND_SIGNAL = 424
SYS_CLONE3 = 435
SYS_CLOSE_RANGE = 436
SYS_OPENAT2 = 437
SYS_MOUNT_SETATTR = 442
SYS_QUOTACTL_FD = 443
SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}.get(MACHINE, 155)
SYS_SECCOMP = {"x86_64": 317, "aarch64": 277}.get(MACHINE, 317)
SYS_BPF = {"x86_64": 321, "aarch64": 280}.get(MACHINE, 321)
SYS_CAPSET = {"x86_64": 126, "aarch64": 91}.get(MACHINE, 126)
SYS_RT_SIGACTION = {"x86_64": 13, "aarch64": 134}.get(MACHINE, 134)
SYS_SETHOSTNAME = {"x86_64": 170, "aarch64": 161}.get(MACHINE, 170)
SYS_SETDOMAINNAME = {"x86_64": 171, "aarch64": 162}.get(MACHINE, 171)
SYS_GETCWD = {"x86_64": 79, "aarch64": 17}.get(MACHINE, 17)
SYS_KEYCTL = {"x86_64": 250, "aarch64": 219}.get(MACHINE, 250)


def fail(call: str, path: str | None = None) -> NoReturn:
    """Raise the `OSError` for the errno of the call that just failed."""
    number = c.get_errno()
    raise OSError(number, f"{call}: {os.strerror(number)}", path)


def check(result: int, call: str, path: str | None = None) -> int:
    """Return ``result`` unless it is negative, which raises what :func:`fail` does."""
    if result < 0:
        fail(call, path)
    return result


def syscall(number: int, *arguments: int | bytes | c.Array[c.c_char] | None) -> int:
    """Make a raw system call; integers are passed as longs. Returns its result, negative on failure."""
    converted = [c.c_long(a) if isinstance(a, int) else a for a in arguments]
    result: int = libc.syscall(c.c_long(number), *converted)
    return result
