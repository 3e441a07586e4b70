"""bpf(2): assemble and load programs, keep maps for them, attach device programs of cgroups."""

from __future__ import annotations

import os
import struct

from berth.kernel import c
from berth.kernel.libc import SYS_BPF, check, libc

MAP_CREATE = 0
MAP_UPDATE_ELEM = 2
MAP_DELETE_ELEM = 3
PROG_LOAD = 5
PROG_ATTACH = 8
PROG_DETACH = 9
PROG_GET_FD_BY_ID = 13
PROG_QUERY = 16

MAP_TYPE_HASH = 1
NO_PREALLOC = 1
PROG_TYPE_SCHED_CLS = 3
PROG_TYPE_CGROUP_DEVICE = 15
CGROUP_DEVICE = 6
ALLOW_MULTI = 2
REPLACE = 4

LICENSE = b"Apache-2.0"
INSTRUCTION_BYTES = 8
MAX_PROGRAMS = 64  # of one kind on one group (BPF_CGROUP_MAX_PROGS)

# Instructions: class, operation and source together (docs.kernel.org/bpf/standardization).
LOAD_WIDE = 0x18
LOAD_WORD = 0x61
LOAD_HALF = 0x69
STORE_WORD = 0x63
ADD = 0x07
AND = 0x57
MOVE = 0xB7
MOVE_REGISTER = 0xBF
SHIFT_RIGHT = 0x77
JUMP_EQUAL = 0x15
JUMP_NOT_EQUAL = 0x55
JUMP_NOT_EQUAL_REGISTER = 0x5D
JUMP_GREATER_REGISTER = 0x2D
CALL = 0x85
EXIT = 0x95
MAP_BY_DESCRIPTOR = 1  # as the source of LOAD_WIDE
FRAME = 10  # the register that points at the end of the stack


def instruction(
    code: int, destination: int = 0, *, source: int = 0, offset: int = 0, value: int = 0
) -> bytes:
    """Return struct bpf_insn."""
    return struct.pack("<BBhi", code, source << 4 | destination, offset, value)


def load_map(register: int, map_fd: int) -> bytes:
    """Return the two instructions that put a map into a register."""
    wide = instruction(LOAD_WIDE, register, source=MAP_BY_DESCRIPTOR, value=map_fd)
    return wide + instruction(0)


def create_map(*, key_bytes: int, value_bytes: int, most: int) -> int:
    """Make a hash table of at most so many entries; return its descriptor."""
    attributes = struct.pack("<5I", MAP_TYPE_HASH, key_bytes, value_bytes, most, NO_PREALLOC)
    return _call(MAP_CREATE, attributes, "bpf MAP_CREATE")


def update_map(map_fd: int, key: bytes, value: bytes) -> None:
    """Set an entry."""
    kept = c.create_string_buffer(key, len(key)), c.create_string_buffer(value, len(value))
    attributes = struct.pack("<IIQQQ", map_fd, 0, *map(c.addressof, kept), 0)
    _call(MAP_UPDATE_ELEM, attributes, "bpf MAP_UPDATE_ELEM")


def delete_from_map(map_fd: int, key: bytes) -> None:
    """Delete an entry; nothing when there is none."""
    kept = c.create_string_buffer(key, len(key))
    try:
        attributes = struct.pack("<IIQ", map_fd, 0, c.addressof(kept))
        _call(MAP_DELETE_ELEM, attributes, "bpf MAP_DELETE_ELEM")
    except FileNotFoundError:
        return


def load_program(kind: int, program: bytes) -> int:
    """Load a program (``PROG_TYPE_…``); return its descriptor."""
    code = c.create_string_buffer(program, len(program))
    license_ = c.create_string_buffer(LICENSE)
    count = len(program) // INSTRUCTION_BYTES
    attributes = struct.pack(
        "<IIQQIIQII",
        *(kind, count, c.addressof(code), c.addressof(license_)),
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
