"""The patterns of .dockerignore: Docker's rules, which are Go's filepath.Match and ``**``. Pure."""

from __future__ import annotations

import re
from copy import deepcopy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from berth.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterable

NAME = ".dockerignore"
STARS = re.compile(r"(?:\*\*/)+|\*\*")
MAX_WAYS = 16  # each ``**/`` inside of a name doubles them


def read(text: str) -> list[str]:
    """Return the patterns of a file: no comments, no blanks around them, relative to the context."""
    found = []
    for line in text.removeprefix("\ufeff").splitlines():
        if line.startswith("#"):
            continue
        pattern = line.strip()
        negated = pattern.startswith("!")
        pattern = clean(pattern[negated:].strip())
        if pattern not in ("", "."):
            found.append("!" * negated + pattern)
    return found


def clean(path: str) -> str:
    """Return a path as Go's filepath.Clean makes it, without the slash it begins with."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == ".." and parts and parts[-1] != "..":
            parts.pop()
        elif (part == ".." and not path.startswith("/")) or part not in ("", ".", ".."):
            parts.append(part)
    return "/".join(parts) or ("" if not path else ".")


class Patterns:
    """Says which paths are left out."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._rules = [
            (pattern.startswith("!"), expression(pattern.removeprefix("!"))) for pattern in patterns
        ]
        self.has_exceptions = any(negated for negated, _ in self._rules)

    def excludes(self, path: str) -> bool:
        """Say whether a path, relative to the context, or a directory above it is left out."""
        parts = path.split("/")
        above = ["/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
        excluded = False
        for negated, rule in self._rules:
            if excluded == negated and any(rule.fullmatch(part) for part in above):
                excluded = not negated
        return excluded


def expression(pattern: str) -> re.Pattern[str]:
    """Return a pattern as a regular expression; InvalidArgument when it is none.

    Where each part is found first it stays: what comes after it is found from there, if it is anywhere. So
    only the last one is looked for in more than one place.
    """
    text = ""
    for *parts, last in _ways(pattern):
        text += "|" if text else ""
        text += "".join(f"(?>{part.lead}{part.settled()})" for part in parts)
        text += last.lead + last.ending()
    return re.compile(text, re.DOTALL)


@dataclass(slots=True)
class _Part:
    """What is between two ``**``: pieces of an expression with ``*`` between them."""

    lead: str = ""  # how far from the part before it may be
    pieces: list[str] = field(default_factory=lambda: [""])

    def add(self, unit: str) -> None:
        """Add an expression, or a ``*``."""
        if unit == "*":
            self.pieces.append("")
        else:
            self.pieces[-1] += unit

    def settled(self) -> str:
        """Return the expression of its first place."""
        first, *others = self.pieces
        return first + "".join(f"(?>[^/]*?{piece})" for piece in others)

    def ending(self) -> str:
        """Return the expression of it at the end of a path."""
        *others, last = self.pieces
        if not others:
            return last
        return f"{_Part(pieces=others).settled()}[^/]*{last}"


def _ways(pattern: str) -> list[list[_Part]]:
    """Return the parts of a pattern; ``**/`` inside of a name is nothing, or ``**`` and a slash."""
    ways, at, begins_name = [[_Part()]], 0, True
    while at < len(pattern):
        if pattern.startswith("**", at):
            found = STARS.match(pattern, at)
            assert found is not None
            at, to_slash = found.end(), found[0].endswith("/")
            if to_slash and not begins_name:
                ways += [[*deepcopy(way), _Part(".*?", ["/"])] for way in ways]
                if len(ways) > MAX_WAYS:
                    raise InvalidArgument(f"too many ** inside of names in pattern: {pattern}")
                continue
            for way in ways:
                way.append(_Part("(?:.*?/)??" if to_slash else ".*?"))
            begins_name = to_slash
            continue
        unit, at = _unit(pattern, at)
        for way in ways:
            way[-1].add(unit)
        begins_name = unit == "/"
    return ways


def _unit(pattern: str, at: int) -> tuple[str, int]:
    """Return the expression of what begins at ``at``, ``*`` for itself, and where it ends."""
    letter = pattern[at]
    at += 1
    if letter == "?":
        return "[^/]", at
    if letter == "[":
        return _class(pattern, at)
    if letter == "\\":
        if at == len(pattern):
            raise InvalidArgument(f"syntax error in pattern: {pattern}")
        return re.escape(pattern[at]), at + 1
    return ("*" if letter == "*" else re.escape(letter)), at


def _class(pattern: str, at: int) -> tuple[str, int]:
    """Return the class of characters that begins before ``at``, and where it ends."""
    negated = pattern.startswith("^", at)
    at += negated
    members: list[str] = []
    while at < len(pattern) and (pattern[at] != "]" or not members):
        letter, at = _member(pattern, at)
        if pattern.startswith("-", at) and at + 1 < len(pattern) and pattern[at + 1] != "]":
            last, at = _member(pattern, at + 1)
            if last < letter:
                raise InvalidArgument(f"syntax error in pattern: {pattern}")
            members.append(f"{re.escape(letter)}-{re.escape(last)}")
        else:
            members.append(re.escape(letter))
    if at >= len(pattern):
        raise InvalidArgument(f"syntax error in pattern: {pattern}")
    inside = "".join(members)
    return f"(?!/)[{'^' * negated}{inside}]", at + 1


def _member(pattern: str, at: int) -> tuple[str, int]:
    if pattern[at] == "\\" and at + 1 < len(pattern):
        at += 1
    return pattern[at], at + 1
