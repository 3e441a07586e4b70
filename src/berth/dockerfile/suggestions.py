"""What may have been meant by a name that there is not. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

FARTHEST = 2  # changes of one letter
MAX_NAMES = 1000  # that are looked at
MAX_LENGTH = 64


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the name that is most like another, "" when none is, or when it is one of them."""
    found, least = "", FARTHEST + 1
    for count, other in enumerate(known):
        if other == name:
            return ""
        if count < MAX_NAMES and (far := distance(name, other)) < least:
            found, least = other, far
    return found


def distance(one: str, other: str) -> int:
    """Return how many letters are to be put in, left out or changed; some large number for many."""
    if abs(len(one) - len(other)) > FARTHEST or max(len(one), len(other)) > MAX_LENGTH:
        return MAX_LENGTH
    row = list(range(len(other) + 1))
    for at, letter in enumerate(one, 1):
        before, row[0] = row[0], at
        for place, against in enumerate(other, 1):
            least = min(row[place] + 1, row[place - 1] + 1, before + (letter != against))
            before, row[place] = row[place], least
    return row[-1]
