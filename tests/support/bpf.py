"""An interpreter of classic BPF, as far as seccomp filters go."""

from __future__ import annotations

import struct

WORD = 0xFFFFFFFF


def seccomp_data(number: int, audit: int, arguments: tuple[int, ...] = ()) -> bytes:
    """Return struct seccomp_data for a call."""
    padded = (*arguments, *(0,) * (6 - len(arguments)))
    return struct.pack("<IIQ6Q", number & WORD, audit, 0, *padded)


def run(program: bytes, data: bytes) -> int:
    """Return what ``program`` returns for ``data``."""
    instructions = list(struct.iter_unpack("<HBBI", program))
    accumulator = at = 0
    while True:
        code, yes, no, value = instructions[at]
        at += 1
        if code == 0x06:
            return value
        if code == 0x20:
            assert value % 4 == 0
            (accumulator,) = struct.unpack_from("<I", data, value)
        elif code == 0x54:
            accumulator &= value
        elif code == 0x05:
            at += value
        else:
            holds = {
                0x15: accumulator == value,
                0x25: accumulator > value,
                0x35: accumulator >= value,
                0x45: bool(accumulator & value),
            }[code]
            at += yes if holds else no
