"""Version 2's device rules: a program that the kernel asks (bpf(2))."""

from __future__ import annotations

import os

from berth.kernel import bpf
from berth.kernel.cgroup_devices import ANY, parts
from berth.kernel.cgroup_files import DIRECTORY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from berth.oci.runtime_spec import DeviceRule

EVERY_ACCESS = 7
# What struct bpf_cgroup_dev_ctx says.
ACCESS_BITS = {"m": 1, "r": 2, "w": 4}
KIND_NUMBERS = {"b": 1, "c": 2}
# Registers: the context comes in 1, the verdict goes out in 0.
VERDICT, CONTEXT, KIND, GRANT, MAJOR, MINOR, REST = 0, 1, 2, 3, 4, 5, 6


def attach(fd: int, path: str, rules: Sequence[DeviceRule]) -> None:
    """Give version 2's group the rules, in place of any it had."""
    group = os.open(path, DIRECTORY, dir_fd=fd)
    try:
        loaded = bpf.load_program(bpf.PROG_TYPE_CGROUP_DEVICE, program(rules))
        try:
            bpf.attach_device_program(group, loaded)
        finally:
            os.close(loaded)
    finally:
        os.close(group)


def program(rules: Sequence[DeviceRule]) -> bytes:
    """Return a BPF_PROG_TYPE_CGROUP_DEVICE program: the last rule that fits decides, so it comes first."""
    parts = [
        bpf.instruction(bpf.LOAD_WORD, KIND, source=CONTEXT, offset=0),
        bpf.instruction(bpf.MOVE_REGISTER, GRANT, source=KIND),
        bpf.instruction(bpf.AND, KIND, value=0xFFFF),
        bpf.instruction(bpf.SHIFT_RIGHT, GRANT, value=16),
        bpf.instruction(bpf.LOAD_WORD, MAJOR, source=CONTEXT, offset=4),
        bpf.instruction(bpf.LOAD_WORD, MINOR, source=CONTEXT, offset=8),
    ]
    for rule in reversed(rules):
        parts.append(_tested(rule))
        if not _tests(rule):
            return b"".join(parts)  # it fits everything; what came before it does not count
    parts.append(_verdict(0))
    return b"".join(parts)


def _tested(rule: DeviceRule) -> bytes:
    """Return the instructions of one rule: leave it when a test fails, else give its verdict."""
    tests = _tests(rule)
    verdict = _verdict(int(rule.get("allow", False)))
    body = b""
    for code, register, value, before in reversed(tests):
        over = (len(body) + len(verdict)) // bpf.INSTRUCTION_BYTES
        body = before + bpf.instruction(code, register, offset=over, value=value) + body
    return body + verdict


def _tests(rule: DeviceRule) -> list[tuple[int, int, int, bytes]]:
    """Return (jump, register, value, what to do before) for each thing that leaves the rule."""
    kind, major, minor, access = parts(rule)
    tests: list[tuple[int, int, int, bytes]] = []
    if kind != "a":
        tests.append((bpf.JUMP_NOT_EQUAL, KIND, KIND_NUMBERS[kind], b""))
    if major != ANY:
        tests.append((bpf.JUMP_NOT_EQUAL, MAJOR, major, b""))
    if minor != ANY:
        tests.append((bpf.JUMP_NOT_EQUAL, MINOR, minor, b""))
    bits = sum(ACCESS_BITS[letter] for letter in set(access))
    if bits != EVERY_ACCESS:
        copy = bpf.instruction(bpf.MOVE_REGISTER, REST, source=GRANT)
        # Allowed is what the rule covers whole, denied what it touches.
        if rule.get("allow"):
            before = copy + bpf.instruction(bpf.AND, REST, value=~bits & EVERY_ACCESS)
            tests.append((bpf.JUMP_NOT_EQUAL, REST, 0, before))
        else:
            before = copy + bpf.instruction(bpf.AND, REST, value=bits)
            tests.append((bpf.JUMP_EQUAL, REST, 0, before))
    return tests


def _verdict(value: int) -> bytes:
    return bpf.instruction(bpf.MOVE, VERDICT, value=value) + bpf.instruction(bpf.EXIT)
