"""A sealed copy of the interpreter: what enters a container must not be the machine's.

The container could write to that through /proc/PID/exe (CVE-2019-5736).
"""

from __future__ import annotations

import posix
from fcntl import F_ADD_SEALS, F_SEAL_GROW, F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_WRITE, fcntl

NAME = "berth"
PROGRAM = "/proc/self/exe"
CHUNK_BYTES = 1 << 24


def is_sealed() -> bool:
    """Say whether this process runs one."""
    return posix.readlink(PROGRAM).startswith(f"/memfd:{NAME}")


def sealed_interpreter() -> int:
    """Return a sealed memfd with a copy of the running interpreter's program file."""
    program = posix.open(PROGRAM, posix.O_RDONLY | posix.O_CLOEXEC)
    memory = posix.memfd_create(NAME, posix.MFD_CLOEXEC | posix.MFD_ALLOW_SEALING)
    while posix.sendfile(memory, program, None, CHUNK_BYTES):
        pass
    posix.close(program)
    fcntl(memory, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)
    return memory
