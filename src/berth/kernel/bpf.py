"""bpf(2), as far as device programs of cgroups go: assemble, load, attach in place of an earlier one."""

from __future__ import annotations

import os
import struct

from berth.kernel import c
from berth.kernel.libc import SYS_BPF, check, libc

PROG_LOAD = 5
PROG_ATTACH = 8
PROG_DETACH = 9
PROG_GET_FD_BY_ID = 13
PROG_QUERY = 16

PROG_TYPE_CGROUP_DEVICE = 15
CGROUP_DEVICE = 6
ALLOW_MULTI = 2
REPLACE = 4

LICENSE = b"Apache-2.0"
INSTRUCTION_BYTES = 8
MAX_PROGRAMS = 64  # of one kind on one group (BPF_CGROUP_MAX_PROGS)

# Instructions: class, operation and source together (docs.kernel.org/bpf/standardization).
LOAD_WORD = 0x61
AND = 0x57
MOVE = 0xB7
MOVE_REGISTER = 0xBF
SHIFT_RIGHT = 0x77
JUMP_EQUAL = 0x15
JUMP_NOT_EQUAL = 0x55
EXIT = 0x95


def instruction(
    code: int, destination: int = 0, *, source: int = 0, offset: int = 0, value: int = 0
) -> bytes:
    """Return struct bpf_insn."""
    return struct.pack("<BBhi", code, source << 4 | destination, offset, value)


def load_device_program(program: bytes) -> int:
    """Load a program that decides about devices; return its descriptor."""
    code = c.create_string_buffer(program, len(program))
    license_ = c.create_string_buffer(LICENSE)
    count = len(program) // INSTRUCTION_BYTES
    attributes = struct.pack(
        "<IIQQIIQII",
        *(PROG_TYPE_CGROUP_DEVICE, count, c.addressof(code), c.addressof(license_)),
        *(0, 0, 0, 0, 0),
    )
    return _call(PROG_LOAD, attributes, "bpf PROG_LOAD")


def attach_device_program(group_fd: int, program_fd: int) -> None:
    """Attach a program to the group open at ``group_fd``; it takes the place of one attached before.

    At no moment is the group without one. Programs of groups below it are asked as well.
    """
    old = [_open_program(id_) for id_ in _attached(group_fd)]
    try:
        flags, replaced = (ALLOW_MULTI | REPLACE, old[0]) if old else (ALLOW_MULTI, 0)
        attributes = struct.pack("<IIIII", group_fd, program_fd, CGROUP_DEVICE, flags, replaced)
        _call(PROG_ATTACH, attributes, "bpf PROG_ATTACH")
        for fd in old[1:]:
            attributes = struct.pack("<IIII", group_fd, fd, CGROUP_DEVICE, 0)
            _call(PROG_DETACH, attributes, "bpf PROG_DETACH")
    finally:
        for fd in old:
            os.close(fd)


def _attached(group_fd: int) -> list[int]:
    """Return the ids of the device programs attached to the group itself."""
    ids = (c.c_uint32 * MAX_PROGRAMS)()
    attributes = struct.pack(
        "<IIIIQI", group_fd, CGROUP_DEVICE, 0, 0, c.addressof(ids), MAX_PROGRAMS
    )
    buffer = c.create_string_buffer(attributes, 64)
    _call_buffer(PROG_QUERY, buffer, "bpf PROG_QUERY")
    (count,) = struct.unpack_from("<I", buffer.raw, 24)
    return list(ids[:count])


def _open_program(id_: int) -> int:
    return _call(PROG_GET_FD_BY_ID, struct.pack("<III", id_, 0, 0), "bpf PROG_GET_FD_BY_ID")


def _call(command: int, attributes: bytes, name: str) -> int:
    return _call_buffer(command, c.create_string_buffer(attributes, len(attributes)), name)


def _call_buffer(command: int, buffer: c.Array[c.c_char], name: str) -> int:
    result: int = libc.syscall(c.c_long(SYS_BPF), c.c_long(command), buffer, c.c_long(len(buffer)))
    return check(result, name)
