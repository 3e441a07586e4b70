"""Assembler of classic BPF for seccomp: a program is written from its end to its beginning.

So every jump's target is there already when the jump is written, and a distance is a subtraction. A
*label* is the number of instructions from the end of the program to the one it names, that one included.
https://docs.kernel.org/networking/filter.html and seccomp_filter.html
"""

from __future__ import annotations

from struct import pack

LOAD = 0x20  # A = word at offset k of struct seccomp_data
AND = 0x54  # A &= k
JUMP = 0x05
JUMP_EQUAL = 0x15
JUMP_GREATER = 0x25
JUMP_AT_LEAST = 0x35
RETURN = 0x06

NUMBER = 0  # offsets in struct seccomp_data
ARCHITECTURE = 4
ARGUMENTS = 16

# Conditional jumps reach 255 instructions; the rest is left for jumps written to bridge longer ways.
REACH = 250
MAX_INSTRUCTIONS = 4096


class Assembler:
    """Instructions written backwards."""

    __slots__ = ("_known", "_returns", "_words")

    def __init__(self) -> None:
        self._words: list[bytes] = []
        self._returns: dict[int, int] = {}
        self._known: dict[tuple[int, int, int, int], int] = {}

    def __len__(self) -> int:
        return len(self._words)

    def program(self) -> bytes:
        """Return struct sock_filter[]: the last thing written comes first."""
        return b"".join(reversed(self._words))

    def finish(self, value: int) -> int:
        """Return the label of an instruction that returns ``value``: one that is near, or a new one."""
        label = self._returns.get(value)
        if label is None or self._distance(label) > REACH - 2:
            label = self._returns[value] = self._write(RETURN, value)
        return label

    def load(self, offset: int, label: int) -> int:
        """Load a word of the data, then go on at ``label``."""
        return self._then(LOAD, offset, label)

    def mask(self, bits: int, label: int) -> int:
        """Keep ``bits`` of the accumulator, then go on at ``label``."""
        return self._then(AND, bits, label)

    def branch(self, code: int, value: int, *, yes: int, no: int) -> int:
        """Go to ``yes`` when comparing the accumulator with ``value`` holds, else to ``no``."""
        if yes == no:
            return yes
        known = self._known.get((code, value, yes, no))
        if known is not None:
            return known
        near_yes = self._near(yes)
        near_no = self._near(no)
        label = self._write(code, value, self._distance(near_yes), self._distance(near_no))
        self._known[code, value, yes, no] = label
        return label

    def _then(self, code: int, value: int, label: int) -> int:
        if label != len(self._words):
            self._write(JUMP, self._distance(label))
        return self._write(code, value)

    def _near(self, label: int) -> int:
        """Return a label within reach that leads to ``label``."""
        if self._distance(label) <= REACH:
            return label
        return self._write(JUMP, self._distance(label))

    def _distance(self, label: int) -> int:
        """Return how far it is to ``label`` from the instruction written next."""
        return len(self._words) - label

    def _write(self, code: int, value: int, yes: int = 0, no: int = 0) -> int:
        self._words.append(pack("<HBBI", code, yes, no, value))
        return len(self._words)
