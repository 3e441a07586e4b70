"""Device rules: version 1's control files, version 2's program that the kernel asks (bpf(2)).

Later rules win over earlier ones. On version 2 what no rule names is refused.
"""

from __future__ import annotations

import os

from berth.errors import InvalidArgument
from berth.kernel import bpf
from berth.kernel.cgroup_files import DIRECTORY, write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from berth.oci.runtime_spec import DeviceRule

ANY = -1
EVERYTHING = "a *:* rwm"
EVERY_ACCESS = 7
# What struct bpf_cgroup_dev_ctx says.
ACCESS = {"m": 1, "r": 2, "w": 4}
KINDS = {"b": 1, "c": 2}
# Registers: the context comes in 1, the verdict goes out in 0.
VERDICT, CONTEXT, KIND, GRANT, MAJOR, MINOR, REST = 0, 1, 2, 3, 4, 5, 6


def allow(fd: int, path: str, rules: Sequence[DeviceRule]) -> None:
    """Write version 1's device rules in order."""
    for rule in rules:
        name = "devices.allow" if rule.get("allow") else "devices.deny"
        write(fd, f"{path}/{name}", line(rule))


def line(rule: DeviceRule) -> str:
    """Return a rule as version 1's files take it: "c 1:3 rwm", "a *:* rwm" for everything."""
    kind, major, minor, access = _parts(rule)
    if kind == "a":
        return EVERYTHING
    numbers = ":".join("*" if number == ANY else str(number) for number in (major, minor))
    return f"{kind} {numbers} {access}"


def attach(fd: int, path: str, rules: Sequence[DeviceRule]) -> None:
    """Give version 2's group the rules, in place of any it had."""
    group = os.open(path, DIRECTORY, dir_fd=fd)
    try:
        loaded = bpf.load_device_program(program(rules))
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
    kind, major, minor, access = _parts(rule)
    tests: list[tuple[int, int, int, bytes]] = []
    if kind != "a":
        tests.append((bpf.JUMP_NOT_EQUAL, KIND, KINDS[kind], b""))
    if major != ANY:
        tests.append((bpf.JUMP_NOT_EQUAL, MAJOR, major, b""))
    if minor != ANY:
        tests.append((bpf.JUMP_NOT_EQUAL, MINOR, minor, b""))
    bits = sum(ACCESS[letter] for letter in set(access))
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


def _parts(rule: DeviceRule) -> tuple[str, int, int, str]:
    """Return kind, major, minor and access of a rule with what it leaves out filled in."""
    kind, access = rule.get("type") or "a", rule.get("access") or "rwm"
    if kind not in ("a", *KINDS) or not set(access) <= set(ACCESS):
        raise InvalidArgument(f"invalid device rule: type {kind!r}, access {access!r}")
    major, minor = rule.get("major"), rule.get("minor")
    numbers = [ANY if number is None or number < 0 else number for number in (major, minor)]
    return kind, numbers[0], numbers[1], access


def _verdict(value: int) -> bytes:
    return bpf.instruction(bpf.MOVE, VERDICT, value=value) + bpf.instruction(bpf.EXIT)
