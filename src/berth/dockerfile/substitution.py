"""Variables and quotes in the words of a Dockerfile, by the rules of BuildKit's little shell. Pure."""

from __future__ import annotations

import fnmatch
import re
from typing import TYPE_CHECKING

from berth.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping

SPECIAL = "@*#?-$!0"
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9]+")


def expand(text: str, variables: Mapping[str, str], escape: str = "\\") -> str:
    """Return the text with variables put in and quotes taken away."""
    return _Word(text, variables, escape).whole()


def expand_words(text: str, variables: Mapping[str, str], escape: str = "\\") -> list[str]:
    """Do the same, and split at blanks that no quotes protect, also those that variables bring."""
    word = _Word(text, variables, escape)
    word.whole()
    return word.words()


def expand_document(text: str, variables: Mapping[str, str], escape: str = "\\") -> str:
    """Put variables into a here-document: quotes are plain characters in it."""
    return _Word(text, variables, escape, quotes=False).whole()


class _Word:
    """One pass over a text."""

    def __init__(
        self, text: str, variables: Mapping[str, str], escape: str, *, quotes: bool = True
    ) -> None:
        self._text = text
        self._variables = variables
        self._escape = escape
        self._quotes = quotes
        self._at = 0
        self._words: list[str] = []
        self._word: str | None = None

    def whole(self) -> str:
        """Return the result as one text."""
        return self._until("")

    def words(self) -> list[str]:
        """Return the words of the result."""
        return self._words if self._word is None else [*self._words, self._word]

    def _add(self, text: str, *, splits: bool = False) -> str:
        for letter in text if splits else (text,):
            if splits and letter.isspace():
                self._end_word()
            else:
                self._word = (self._word or "") + letter
        return text

    def _end_word(self) -> None:
        if self._word is not None:
            self._words.append(self._word)
            self._word = None

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _next(self) -> str:
        letter = self._peek()
        self._at += 1
        return letter

    def _until(self, end: str) -> str:
        """Process up to a character that is not consumed; "" is the end of the text."""
        result = ""
        while (letter := self._peek()) and letter != end:
            if letter == "'" and self._quotes:
                result += self._single_quoted()
            elif letter == '"' and self._quotes:
                result += self._double_quoted()
            elif letter == "$":
                result += self._add(self._dollar(), splits=True)
            elif letter == self._escape:
                result += self._escaped()
            else:
                result += self._add(self._next(), splits=True)
        return result

    def _escaped(self) -> str:
        """Process an escape character: what follows it is plain, the end of the text nothing."""
        self._at += 1
        letter = self._next()
        if not self._quotes and letter not in ("$", self._escape):
            letter = self._escape + letter
        return self._add(letter)

    def _single_quoted(self) -> str:
        end = self._text.find("'", self._at + 1)
        if end < 0:
            raise InvalidArgument(
                "unexpected end of statement while looking for matching single-quote"
            )
        found = self._text[self._at + 1 : end]
        self._at = end + 1
        return self._add(found)

    def _double_quoted(self) -> str:
        self._at += 1
        result = self._add("")
        while (letter := self._next()) != '"':
            if not letter:
                raise InvalidArgument(
                    "unexpected end of statement while looking for matching double-quote"
                )
            if letter == "$":
                self._at -= 1
                letter = self._dollar()
            elif letter == self._escape and self._peek() in ('"', "$", self._escape):
                letter = self._next()
            result += self._add(letter)
        return result

    def _name(self) -> str:
        found = NAME.match(self._text, self._at)
        if found:
            self._at = found.end()
            return found[0]
        return self._next() if self._peek() and self._peek() in SPECIAL else ""

    def _dollar(self) -> str:
        self._at += 1
        if self._peek() != "{":
            name = self._name()
            return self._variables.get(name, "") if name else "$"
        self._at += 1
        if self._peek() in ("{", ":", "}", ""):
            raise InvalidArgument(f"bad substitution: {self._text!r}")
        name = self._name()
        value = self._variables.get(name)
        operator = self._next()
        if operator == "}":
            return value or ""
        return self._modified(name, value, operator)

    def _modified(self, name: str, value: str | None, operator: str) -> str:
        """Process what follows the name in ``${name…}``."""
        unset = value is None
        if operator == ":":
            operator, unset = self._next(), not value
        if operator in ("-", "+", "?"):
            word = self._argument("}")
            if operator == "-":
                return word if unset else value or ""
            if operator == "+":
                return "" if unset else word
            if unset:
                raise InvalidArgument(f"{name}: {word or 'not allowed to be unset'}")
            return value or ""
        if operator in ("#", "%"):
            longest = self._peek() == operator
            self._at += longest
            return trimmed(value or "", self._argument("}"), operator, longest=longest)
        if operator == "/":
            everywhere = self._peek() == "/"
            self._at += everywhere
            pattern = self._argument("/")
            return replaced(value or "", pattern, self._argument("}"), everywhere=everywhere)
        raise InvalidArgument(f"unsupported modifier ({operator}) in substitution")

    def _argument(self, end: str) -> str:
        """Process a part of a modifier up to ``end``, which is consumed; it makes no words."""
        kept = self._words, self._word
        self._words = []
        found = self._until(end)
        self._words, self._word = kept
        if self._next() != end:
            raise InvalidArgument("syntax error: missing '}' in substitution")
        return found


def trimmed(value: str, pattern: str, side: str, *, longest: bool) -> str:
    """Return a value without what matches a pattern at its beginning ("#") or end ("%")."""
    lengths = range(len(value) + 1)
    for length in reversed(lengths) if longest else lengths:
        part = value[:length] if side == "#" else value[len(value) - length :]
        if fnmatch.fnmatchcase(part, pattern):
            return value[length:] if side == "#" else value[: len(value) - length]
    return value


def replaced(value: str, pattern: str, other: str, *, everywhere: bool) -> str:
    """Return a value with what matches a pattern, the longest first, replaced."""
    expression = fnmatch.translate(pattern).removesuffix(r"\Z").removesuffix(r"\z")
    return re.sub(expression, lambda _: other, value, count=0 if everywhere else 1)
