"""Conditions on a system call's arguments, as jumps.

Arguments are 64 bits wide in the data that a filter sees, in two little-endian words. The 32-bit
architectures, x32 too, are compared by the lower word, as libseccomp does.
"""

from __future__ import annotations

from berth.errors import InvalidArgument
from berth.runtime.seccomp import assembler

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.oci.runtime_spec import SeccompArg
    from berth.runtime.seccomp.assembler import Assembler

ARGUMENTS = 6
WORD = 0xFFFFFFFF
MAX_VALUE = 0xFFFFFFFFFFFFFFFF
MASKED = "SCMP_CMP_MASKED_EQ"
# Orders as (the jump that settles it, whether jumping means that the condition holds).
ORDERS = {
    "SCMP_CMP_GT": (assembler.JUMP_GREATER, True),
    "SCMP_CMP_GE": (assembler.JUMP_AT_LEAST, True),
    "SCMP_CMP_LT": (assembler.JUMP_AT_LEAST, False),
    "SCMP_CMP_LE": (assembler.JUMP_GREATER, False),
}
OPERATORS = (*ORDERS, "SCMP_CMP_EQ", "SCMP_CMP_NE", MASKED)


def check(condition: SeccompArg) -> None:
    """Raise InvalidArgument for a condition that the specification does not allow."""
    if not 0 <= condition.get("index", -1) < ARGUMENTS:
        raise InvalidArgument(f"invalid seccomp argument index {condition.get('index')}")
    if condition.get("op") not in OPERATORS:
        raise InvalidArgument(f"invalid seccomp operator {condition.get('op')!r}")
    for value in (condition.get("value", 0), condition.get("valueTwo", 0)):
        if not 0 <= value <= MAX_VALUE:
            raise InvalidArgument(f"invalid seccomp argument value {value}")


def write(program: Assembler, condition: SeccompArg, *, yes: int, no: int, wide: bool) -> int:
    """Write the test of ``condition``; return its label. The accumulator is lost."""
    offset = assembler.ARGUMENTS + 8 * condition["index"]
    operator, value = condition["op"], condition.get("value", 0)
    if operator == MASKED:
        wanted = condition.get("valueTwo", 0)
        label = _masked(program, (offset, value & WORD, wanted & WORD), yes=yes, no=no)
        if not wide:
            return label
        return _masked(program, (offset + 4, value >> 32, wanted >> 32), yes=label, no=no)
    if operator == "SCMP_CMP_NE":
        yes, no = no, yes
    if operator not in ORDERS:
        label = program.branch(assembler.JUMP_EQUAL, value & WORD, yes=yes, no=no)
        label = program.load(offset, label)
        if not wide:
            return label
        label = program.branch(assembler.JUMP_EQUAL, value >> 32, yes=label, no=no)
        return program.load(offset + 4, label)
    return _order(program, condition, yes=yes, no=no, wide=wide)


def _masked(program: Assembler, test: tuple[int, int, int], *, yes: int, no: int) -> int:
    """Write ``word at offset & mask == wanted``."""
    offset, mask, wanted = test
    if not mask:
        return no if wanted else yes
    label = program.branch(assembler.JUMP_EQUAL, wanted, yes=yes, no=no)
    if mask != WORD:
        label = program.mask(mask, label)
    return program.load(offset, label)


def _order(program: Assembler, condition: SeccompArg, *, yes: int, no: int, wide: bool) -> int:
    """Write an order: the upper words decide unless they are equal."""
    jump, holds = ORDERS[condition["op"]]
    offset, value = assembler.ARGUMENTS + 8 * condition["index"], condition.get("value", 0)
    above, below = (yes, no) if holds else (no, yes)
    label = program.branch(jump, value & WORD, yes=above, no=below)
    label = program.load(offset, label)
    if not wide:
        return label
    upper = value >> 32
    label = program.branch(assembler.JUMP_EQUAL, upper, yes=label, no=below)
    label = program.branch(assembler.JUMP_GREATER, upper, yes=above, no=label)
    return program.load(offset + 4, label)
