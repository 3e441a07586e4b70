"""``--chmod``: octal digits, or the symbols of chmod(1). Pure."""

from __future__ import annotations

import re
import stat
from typing import NamedTuple

from berth.errors import InvalidArgument

CLAUSE = re.compile(r"([ugoa]*)((?:[-+=](?:[ugo]|[rwxXst]*))+)")
CHANGE = re.compile(r"([-+=])([ugo]|[rwxXst]*)")
NUMERIC = re.compile(r"[0-9]+")
SHIFTS = {"u": 6, "g": 3, "o": 0}
BITS = {"r": 4, "w": 2, "x": 1}
ANY_EXECUTE = 0o111
MAX_MODE = 0o7777


class Change(NamedTuple):
    """One of the changes: for whom, ``+``, ``-`` or ``=``, and what."""

    who: str
    operator: str
    what: str


class Mode:
    """What files are to get."""

    def __init__(self, text: str) -> None:
        """Read it; InvalidArgument in BuildKit's words."""
        self._changes: list[Change] = []
        self._fixed: int | None = None
        if NUMERIC.fullmatch(text):
            number = int(text, 8) if re.fullmatch("[0-7]+", text) else -1
            if not 0 <= number <= MAX_MODE:
                raise InvalidArgument(
                    f"invalid chmod parameter: '{text}'. it should be octal string and between 0 and"
                    " 07777"
                )
            self._fixed = number
            return
        for clause in text.split(","):
            found = CLAUSE.fullmatch(clause)
            if found is None:
                raise InvalidArgument(f"invalid chmod parameter: '{text}'")
            self._changes += [
                Change(found[1].replace("a", "ugo") or "ugo", operator, what)
                for operator, what in CHANGE.findall(found[2])
            ]

    def of(self, mode: int) -> int:
        """Return the permissions for what has ``mode`` now, its kind included."""
        if self._fixed is not None:
            return self._fixed
        found, is_folder = stat.S_IMODE(mode), stat.S_ISDIR(mode)
        for change in self._changes:
            found = _changed(found, change, is_folder=is_folder)
        return found


def _changed(mode: int, change: Change, *, is_folder: bool) -> int:
    bits, mask = 0, 0
    for who in change.who:
        bits |= _bits(mode, change.what, is_folder=is_folder) << SHIFTS[who]
        mask |= 7 << SHIFTS[who]
        mask |= {"u": stat.S_ISUID, "g": stat.S_ISGID, "o": 0}[who]
    special = stat.S_ISVTX if "t" in change.what else 0
    if "s" in change.what:
        special |= stat.S_ISUID if "u" in change.who else 0
        special |= stat.S_ISGID if "g" in change.who else 0
    bits |= special
    if change.operator == "+":
        return mode | bits
    if change.operator == "-":
        return mode & ~bits
    return mode & ~mask | bits


def _bits(mode: int, what: str, *, is_folder: bool) -> int:
    """Return the three bits that letters mean."""
    if what in SHIFTS:
        return mode >> SHIFTS[what] & 7
    bits = 0
    for letter in what:
        if letter == "X":
            bits |= 1 if is_folder or mode & ANY_EXECUTE else 0
        else:
            bits |= BITS.get(letter, 0)
    return bits
