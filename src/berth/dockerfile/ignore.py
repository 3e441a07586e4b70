"""The patterns of .dockerignore: Docker's rules, which are Go's filepath.Match and ``**``. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from berth.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterable

NAME = ".dockerignore"


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
    *parts, last = _parts(pattern)
    text = "".join(f"(?>{part.lead}{part.settled()})" for part in parts)
    return re.compile(text + last.lead + last.ending(), re.DOTALL)


@dataclass(slots=True)
class _Part:
    """What is between two ``**``: pieces of an expression with ``*`` between them."""

    lead: str = ""  # how far from the part before it may be
    pieces: list[str] = field(default_factory=lambda: [""])

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


def _parts(pattern: str) -> list[_Part]:
    parts, at = [_Part()], 0
    while at < len(pattern):
        letter = pattern[at]
        if pattern.startswith("**", at):
            at += 2
            ends_at_slash = pattern.startswith("/", at)
            at += ends_at_slash
            parts.append(_Part("(?:.*?/)??" if ends_at_slash else ".*?"))
            continue
        at += 1
        pieces = parts[-1].pieces
        if letter == "*":
            pieces.append("")
        elif letter == "?":
            pieces[-1] += "[^/]"
        elif letter == "\\":
            if at == len(pattern):
                raise InvalidArgument(f"syntax error in pattern: {pattern}")
            pieces[-1] += re.escape(pattern[at])
            at += 1
        elif letter == "[":
            found, at = _class(pattern, at)
            pieces[-1] += found
        else:
            pieces[-1] += re.escape(letter)
    return parts


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
