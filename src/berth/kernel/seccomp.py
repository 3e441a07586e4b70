"""seccomp(2): load a filter into the calling thread."""

from __future__ import annotations

from berth.kernel import c
from berth.kernel.libc import SYS_SECCOMP, check, libc

SET_MODE_FILTER = 1
FLAG_TSYNC = 1
FLAG_LOG = 2
FLAG_SPEC_ALLOW = 4
FLAG_NEW_LISTENER = 8
FLAG_WAIT_KILLABLE_RECV = 32

INSTRUCTION_BYTES = 8


class _Program(c.Structure):
    _fields_ = (("length", c.c_ushort), ("filter", c.c_char_p))


def load(program: bytes, flags: int = 0) -> int:
    """Load ``program`` (struct sock_filter[]). Needs CAP_SYS_ADMIN or no_new_privs.

    With FLAG_NEW_LISTENER returns the descriptor on which calls are notified, else 0.
    """
    argument = _Program(len(program) // INSTRUCTION_BYTES, program)
    result = libc.syscall(
        c.c_long(SYS_SECCOMP),
        c.c_long(SET_MODE_FILTER),
        c.c_long(flags),
        c.byref(argument),
    )
    return check(result, "seccomp SET_MODE_FILTER")
