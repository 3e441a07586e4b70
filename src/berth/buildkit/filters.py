"""Filters of what builds have left, as BuildKit's clients write them: ``type==regular,id~=ab``. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from berth.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SELECTOR = re.compile(
    r"""([A-Za-z][A-Za-z0-9_]*)(?:(==|!=|~=)("(?:[^"\\]|\\.)*"|[^\s,"]+))?(?:,|$)"""
)
QUOTED = re.compile(r"\\(.)")
# Without groups and with few repetitions no expression takes long.
REPEATED = re.compile(r"[*+{]")
MAX_REPEATED, MAX_PATTERN, MAX_LETTERS = 2, 256, 256


class Selector(NamedTuple):
    """A field, and what of it is to be so."""

    field: str
    operator: str  # "": it is there
    value: str

    def chooses(self, fields: Mapping[str, str]) -> bool:
        """Say whether it is. What is not in ``fields`` is not there."""
        found = fields.get(self.field)
        match self.operator:
            case "":
                return found is not None
            case "==":
                return found == self.value
            case "!=":
                return (found or "") != self.value
            case _:
                return found is not None and bool(re.search(self.value, found[:MAX_LETTERS]))


class Filter:
    """Several ways to be chosen."""

    def __init__(self, texts: Sequence[str]) -> None:
        """InvalidArgument: one of them is no filter."""
        self._ways = [selectors(text) for text in texts]
        self.chooses_all = not self._ways or not all(self._ways)

    def chooses(self, fields: Mapping[str, str]) -> bool:
        """Say whether one of the ways is fulfilled."""
        return self.chooses_all or any(
            all(selector.chooses(fields) for selector in way) for way in self._ways
        )


def selectors(text: str) -> list[Selector]:
    """Read one filter: what has to be true together."""
    found, at = [], 0
    while at < len(text):
        match = SELECTOR.match(text, at)
        if match is None:
            raise InvalidArgument(f"filters: parse error: [{text}]: unexpected input")
        field, operator, value = match[1], match[2] or "", match[3] or ""
        if value.startswith('"'):
            value = QUOTED.sub(r"\1", value[1:-1])
        if operator == "~=":
            _check_pattern(value)
        found.append(Selector(field, operator, value))
        at = match.end()
    return found


def _check_pattern(pattern: str) -> None:
    is_simple = "(" not in pattern and len(REPEATED.findall(pattern)) <= MAX_REPEATED
    try:
        re.compile(pattern)
    except re.error as error:
        raise InvalidArgument(f"error parsing regexp: {pattern}: {error}") from error
    if not is_simple or len(pattern) > MAX_PATTERN:
        raise InvalidArgument(
            f"the pattern {pattern} of a filter has groups, or repeats more than {MAX_REPEATED} times"
        )
