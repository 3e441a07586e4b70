"""Variables and quotes in the words of a Dockerfile, by the rules of BuildKit's little shell. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from berth.dockerfile import globs
from berth.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping

SPECIAL = "@*#?-$!0"
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9]+")
PLAIN = re.compile(r"[^'\"$\\`/}]*")  # what means nothing anywhere
BLANKS = re.compile(r"\s+")
MAX_PUT_IN = 1 << 20
MAX_DEPTH = 32
PATTERN_COST = 16  # to make one of a letter, beside to look at one


class Expansion:
    """Puts variables into the words of an instruction, and takes quotes away.

    What it puts in, or looks at, is bounded: each variable may be twice the one before.
    """

    def __init__(self, variables: Mapping[str, str], escape: str = "\\") -> None:
        self.variables = variables
        self.escape = escape
        self.asked: set[str] = set()  # the names of variables that a word has had
        self._left = MAX_PUT_IN

    def __call__(self, text: str) -> str:
        """Return the text with variables put in and quotes taken away."""
        return _Word(text, self).whole()

    def words(self, text: str) -> list[str]:
        """Do the same, and split at blanks that no quotes protect, also those that variables bring."""
        word = _Word(text, self)
        word.whole()
        return word.words()

    def document(self, text: str) -> str:
        """Put variables into a here-document: quotes are plain characters in it."""
        return _Word(text, self, quotes=False).whole()

    @property
    def spent(self) -> int:
        """How many letters were put in, or looked at."""
        return MAX_PUT_IN - self._left

    def spend(self, letters: int) -> None:
        """Count what is put in; InvalidArgument when it is too much."""
        self._left -= letters
        if self._left < 0:
            raise InvalidArgument(
                f"an instruction becomes more than {MAX_PUT_IN >> 20} MiB, its variables put in"
            )


class _Word:
    """One pass over a text."""

    def __init__(self, text: str, expansion: Expansion, *, quotes: bool = True) -> None:
        self._text = text
        self._expansion = expansion
        self._escape = expansion.escape
        self._quotes = quotes
        self._at = 0
        self._depth = 0
        self._words: list[str] = []
        self._word: list[str] = []  # pieces of the word under way

    def whole(self) -> str:
        """Return the result as one text."""
        return self._until("")

    def words(self) -> list[str]:
        """Return the words of the result."""
        self._end_word()
        return self._words

    def _add(self, text: str, *, splits: bool = False) -> str:
        if not splits:
            self._word.append(text)
            return text
        for index, piece in enumerate(BLANKS.split(text)):
            if index:
                self._end_word()
            if piece:
                self._word.append(piece)
        return text

    def _end_word(self) -> None:
        if self._word:
            self._words.append("".join(self._word))
            self._word = []

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _next(self) -> str:
        letter = self._peek()
        self._at += 1
        return letter

    def _plain(self) -> str:
        """Take a letter and those after it that mean nothing."""
        begin = self._at
        found = PLAIN.match(self._text, begin + 1)
        assert found is not None
        self._at = found.end()
        return self._text[begin : self._at]

    def _until(self, end: str) -> str:
        """Process up to a character that is not consumed; "" is the end of the text."""
        pieces = []
        while (letter := self._peek()) and letter != end:
            if letter == "'" and self._quotes:
                pieces.append(self._single_quoted())
            elif letter == '"' and self._quotes:
                pieces.append(self._double_quoted())
            elif letter == "$":
                pieces.append(self._add(self._dollar(), splits=True))
            elif letter == self._escape:
                pieces.append(self._escaped())
            else:
                pieces.append(self._add(self._plain(), splits=True))
        return "".join(pieces)

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
        pieces = [self._add("")]
        while (letter := self._peek()) != '"':
            if not letter:
                raise InvalidArgument(
                    "unexpected end of statement while looking for matching double-quote"
                )
            if letter == "$":
                found = self._dollar()
            elif letter == self._escape and self._is_escaping():
                self._at += 1
                found = self._next()
            else:
                found = self._plain()
            pieces.append(self._add(found))
        self._at += 1
        return "".join(pieces)

    def _is_escaping(self) -> bool:
        """Say whether an escape character in double quotes is one."""
        return self._text[self._at + 1 : self._at + 2] in ('"', "$", self._escape)

    def _name(self) -> str:
        found = NAME.match(self._text, self._at)
        if found:
            self._at = found.end()
            return found[0]
        return self._next() if self._peek() and self._peek() in SPECIAL else ""

    def _value(self, name: str) -> str | None:
        found = self._expansion.variables.get(name)
        self._expansion.asked.add(name)
        self._expansion.spend(len(found or ""))
        return found

    def _dollar(self) -> str:
        self._at += 1
        if self._peek() != "{":
            name = self._name()
            return self._value(name) or "" if name else "$"
        self._at += 1
        if self._peek() in ("{", ":", "}", ""):
            raise InvalidArgument(f"bad substitution: {self._text!r}")
        name = self._name()
        value = self._value(name)
        operator = self._next()
        if operator == "}":
            return value or ""
        return self._modified(name, value, operator)

    def _modified(self, name: str, value: str | None, operator: str) -> str:
        """Process what follows the name in ``${name…}``."""
        unset = value is None
        if operator == ":":
            operator, unset = self._next(), not value
            if operator not in ("-", "+", "?"):
                raise InvalidArgument(f"unsupported modifier (:{operator}) in substitution")
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
            pattern = self._pattern("}")
            return globs.trimmed(value or "", pattern, operator, longest=longest)
        if operator == "/":
            everywhere = self._peek() == "/"
            self._at += everywhere
            pattern, other = self._pattern("/"), self._argument("}")

            def put_in() -> str:
                self._expansion.spend(len(other))
                return other

            return globs.replaced(value or "", pattern, put_in, everywhere=everywhere)
        raise InvalidArgument(f"unsupported modifier ({operator}) in substitution")

    def _argument(self, end: str) -> str:
        """Process a part of a modifier up to ``end``, which is consumed; it makes no words."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise InvalidArgument(f"substitutions are nested more than {MAX_DEPTH} deep")
        kept = self._words, self._word
        self._words, self._word = [], []
        found = self._until(end)
        self._words, self._word = kept
        if self._next() != end:
            raise InvalidArgument("syntax error: missing '}' in substitution")
        self._depth -= 1
        return found

    def _pattern(self, end: str) -> str:
        found = self._argument(end)
        self._expansion.spend(PATTERN_COST * len(found))
        return found


def expand(text: str, variables: Mapping[str, str], escape: str = "\\") -> str:
    """Return one text with variables put in and quotes taken away."""
    return Expansion(variables, escape)(text)
