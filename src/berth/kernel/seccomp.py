"""seccomp(2): load a filter into the calling thread."""

from __future__ import annotations

import ctypes

from berth.kernel.libc import SYS_SECCOMP, check, libc

SET_MODE_FILTER = 1
FLAG_TSYNC = 1
FLAG_LOG = 2
FLAG_SPEC_ALLOW = 4

INSTRUCTION_BYTES = 8


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def load(program: bytes, flags: int = 0) -> None:
    """Load ``program`` (struct sock_filter[]). Needs CAP_SYS_ADMIN or no_new_privs."""
    argument = _Program(len(program) // INSTRUCTION_BYTES, program)
    result = libc.syscall(
        ctypes.c_long(SYS_SECCOMP),
        ctypes.c_long(SET_MODE_FILTER),
        ctypes.c_long(flags),
        ctypes.byref(argument),
    )
    check(result, "seccomp SET_MODE_FILTER")
