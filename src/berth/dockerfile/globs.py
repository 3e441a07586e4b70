"""The shell patterns of ``${name#pattern}`` and its kin, in time that is linear in the value. Pure."""

from __future__ import annotations

import fnmatch
import re
from typing import TYPE_CHECKING

from berth.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_PATTERN = 1024
UNIT = re.compile(r"\[!?\]?[^\]]*\]|.", re.DOTALL)


def trimmed(value: str, pattern: str, side: str, *, longest: bool) -> str:
    """Return a value without what matches a pattern at its beginning ("#") or end ("%")."""
    parts = _parts(pattern)
    if side == "#":
        found = _expression(parts, longest=longest).match(value)
        return value[found.end() :] if found else value
    mirrored = [part[::-1] for part in reversed(parts)]
    found = _expression(mirrored, longest=longest).match(value[::-1])
    return value[: len(value) - found.end()] if found else value


def replaced(value: str, pattern: str, put_in: Callable[[], str], *, everywhere: bool) -> str:
    """Return a value with what matches a pattern, the longest first, replaced by what ``put_in`` says."""
    parts = _parts(pattern)
    head, whole = _expression(parts[:1], longest=True), _expression(parts, longest=True)
    pieces: list[str] = []
    at = 0
    while begin := head.search(value, at):
        found = whole.match(value, begin.start())
        if found is None:  # nor will it further on: what follows the head is not there
            break
        pieces += [value[at : found.start()], put_in()]
        at = found.end()
        if not everywhere or at == len(value):
            break
        if not found[0]:
            pieces.append(value[at])
            at += 1
    return "".join([*pieces, value[at:]])


def _parts(pattern: str) -> list[list[str]]:
    """Return what is between the stars, each as expressions of one letter."""
    if len(pattern) > MAX_PATTERN:
        raise InvalidArgument(f"a pattern in a substitution is longer than {MAX_PATTERN} letters")
    parts: list[list[str]] = [[]]
    for letter in UNIT.findall(pattern):
        if letter == "*":
            parts.append([])
        else:
            parts[-1].append(fnmatch.translate(letter).removesuffix(r"\Z").removesuffix(r"\z"))
    return parts


def _expression(parts: list[list[str]], *, longest: bool) -> re.Pattern[str]:
    """Return an expression that is never tried twice: the first place for each part, or the last place."""
    first, *others = ("".join(part) for part in parts)
    middle = "".join(f"(?>.*?{part})" for part in others[:-1])
    last = f"{'.*' if longest else '.*?'}{others[-1]}" if others else ""
    return re.compile(first + middle + last, re.DOTALL)
