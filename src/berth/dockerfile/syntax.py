"""Dockerfiles as lines: parser directives, comments, continuations and here-documents. Pure.

What the words of an instruction mean is of :mod:`berth.dockerfile.instructions`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from berth.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from berth.errors import BerthError

DIRECTIVE = re.compile(r"#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+)")
DIRECTIVES = ("escape", "syntax", "check")
ESCAPES = ("\\", "`")
# A word may not contain what ends a redirection; quotes say that nothing is substituted inside.
_NAME = r"""([^<>'"\s/.][^<>'"\s/]*)"""
HEREDOC = re.compile(rf"""(\d*)<<(-?)(?:'{_NAME}'|"{_NAME}"|{_NAME})""")
WITH_HEREDOCS = ("ADD", "COPY", "RUN")
BLANK = " \t\v\f\r"
MAX_LINE_BYTES = 65535 * 16


class Fault(InvalidArgument):
    """What is wrong with an instruction, and with which."""

    why = ""
    lines = (0, 0)  # the first and the last of the instruction

    @classmethod
    def of(cls, error: BerthError, line: Line) -> Fault:
        """Return an error with the place where it was found."""
        self = cls(error.message, hint=error.hint)
        self.why, self.lines = error.message, (line.number, line.last)
        return self


class SyntaxFault(Fault):
    """A Dockerfile that cannot be read, in Docker's words and with the line."""

    @classmethod
    def at(cls, line: int, why: str, last: int = 0) -> SyntaxFault:
        """Return it for an instruction that begins with a line."""
        self = cls(f"dockerfile parse error line {line}: {why}")
        self.why, self.lines = why, (line, max(line, last))
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Heredoc:
    """A here-document; ``expands``: variables in it are substituted."""

    name: str
    content: str
    expands: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One instruction, its lines joined."""

    number: int  # of its first line
    last: int  # and of its last
    written: str  # its name as it was written
    name: str  # in capitals
    flags: tuple[str, ...]  # --name or --name=value
    rest: str
    text: str  # as it was written
    heredocs: tuple[Heredoc, ...] = ()
    escape: str = ESCAPES[0]
    comments: tuple[str, ...] = ()  # right before it
    empty_at: int = 0  # where its last row is, when one of those between is empty


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A Dockerfile as its lines."""

    escape: str
    lines: tuple[Line, ...]


def parse(text: str) -> Source:
    """Take a Dockerfile apart; SyntaxFault in Docker's words."""
    rows = text.removeprefix("\ufeff").removesuffix("\n").split("\n")
    escape, count = directives(rows)
    reader = _Reader(rows, escape, count)
    lines = tuple(reader.lines())
    if not lines:
        raise InvalidArgument("file with no instructions")
    return Source(escape=escape, lines=lines)


def directives(rows: Sequence[str]) -> tuple[str, int]:
    """Return the escape character that the directives at the top say, and how many rows those are."""
    escape, seen = ESCAPES[0], set()
    for row in rows:
        found = DIRECTIVE.fullmatch(row.strip())
        if found is None or found[1].lower() not in DIRECTIVES:
            break
        name = found[1].lower()
        if name in seen:
            raise InvalidArgument(f"only one {name} parser directive can be used")
        seen.add(name)
        if name == "escape":
            if found[2] not in ESCAPES:
                raise InvalidArgument(f"invalid ESCAPE '{found[2]}'. Must be ` or \\")
            escape = found[2]
    return escape, len(seen)


def directive(text: str, name: str) -> str:
    """Return what one of the directives at the top says, "" for nothing."""
    for row in text.removeprefix("\ufeff").split("\n"):
        found = DIRECTIVE.fullmatch(row.strip())
        if found is None or found[1].lower() not in DIRECTIVES:
            break
        if found[1].lower() == name:
            return found[2].strip()
    return ""


class _Reader:
    """Joins rows to instructions."""

    def __init__(self, rows: Sequence[str], escape: str, begin: int) -> None:
        self._rows = rows
        self._escape = escape
        self._at = begin
        self._comments: list[str] = []
        self._empty_at = 0
        quoted = re.escape(escape)
        self._continued = re.compile(rf"(?:^|[^{quoted}])({quoted})[ \t\r]*$")

    def lines(self) -> Iterator[Line]:
        """Yield every instruction."""
        while self._at < len(self._rows):
            number = self._at + 1
            row = self._take().lstrip(BLANK)
            if row.startswith("#"):
                self._note(row)
                continue
            text = self._joined(row)
            if not text.strip():
                continue
            if len(text) > MAX_LINE_BYTES:
                raise SyntaxFault.at(number, "dockerfile line greater than maximum allowed size")
            yield self._line(number, text.strip(BLANK))
            self._comments.clear()

    def _note(self, row: str) -> None:
        """Take note of a comment; an empty one parts those before it from what follows."""
        if comment := row[1:].strip():
            self._comments.append(comment)
        else:
            self._comments.clear()

    def _take(self) -> str:
        row = self._rows[self._at]
        self._at += 1
        return row.removesuffix("\r")

    def _cut(self, row: str) -> tuple[str, bool]:
        """Return a row without the character that continues it, and whether there was one."""
        found = self._continued.search(row)
        return (row[: found.start(1)], True) if found else (row, False)

    def _joined(self, row: str) -> str:
        text, goes_on = self._cut(row)
        pieces, has_empty = [text], False
        while goes_on and self._at < len(self._rows):
            row = self._take()
            has_empty = has_empty or not row.strip()
            if row.lstrip(BLANK).startswith("#") or not row.strip():
                continue
            more, goes_on = self._cut(row)
            pieces.append(more)
        self._empty_at = self._at if has_empty else 0
        return "".join(pieces)

    def _line(self, number: int, text: str) -> Line:
        name, _, rest = _first_word(text)
        flags, rest = take_flags(rest, self._escape)
        heredocs: tuple[Heredoc, ...] = ()
        if name.upper() in WITH_HEREDOCS or name.upper() == "ONBUILD":
            heredocs = tuple(self._heredocs(number, name.upper(), rest))
        return Line(
            number=number,
            last=self._at,
            written=name,
            name=name.upper(),
            flags=flags,
            rest=rest,
            text=text,
            heredocs=heredocs,
            escape=self._escape,
            comments=tuple(self._comments),
            empty_at=self._empty_at,
        )

    def _heredocs(self, number: int, name: str, rest: str) -> Iterator[Heredoc]:
        if name == "ONBUILD" and _first_word(rest)[0].upper() not in WITH_HEREDOCS:
            return
        if rest.lstrip().startswith("["):
            return
        for dash, word, expands in heredoc_names(rest):
            content = []
            while True:
                if self._at >= len(self._rows):
                    raise SyntaxFault.at(number, f"unterminated heredoc {word}", self._at)
                row = self._take()
                row = row.lstrip("\t") if dash else row
                if row == word:
                    break
                content.append(row + "\n")
            yield Heredoc(name=word, content="".join(content), expands=expands)


def heredoc_names(text: str) -> list[tuple[str, str, bool]]:
    """Return the here-documents that a line begins: the dash, the name, whether it expands."""
    found = []
    for word in split_words(text, ""):
        match = HEREDOC.fullmatch(word)
        if match is not None:
            name = match[3] or match[4] or match[5]
            found.append((match[2], name, match[5] is not None))
    return found


def split_words(text: str, escape: str) -> list[str]:
    """Return words, which quotes hold together; quotes and escapes are still in them."""
    words: list[str] = []
    word: list[str] = []
    quote, at = "", 0
    while at < len(text):
        letter = text[at]
        if letter == escape and at + 1 < len(text) and quote != "'":
            word += [letter, text[at + 1]]
            at += 2
            continue
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter.isspace():
            words += ["".join(word)] if word else []
            word = []
            at += 1
            continue
        word.append(letter)
        at += 1
    return [*words, "".join(word)] if word else words


def _first_word(text: str) -> tuple[str, str, str]:
    found = re.match(r"([^\s]+)(\s*)([\s\S]*)", text)
    return (found[1], found[2], found[3].strip(BLANK)) if found else ("", "", "")


def take_flags(rest: str, escape: str) -> tuple[tuple[str, ...], str]:
    """Return the flags that instructions begin with, and what follows them."""
    flags: list[str] = []
    at = 0
    while rest.startswith("--", at):
        word, quote = [], ""
        while at < len(rest) and (quote or rest[at] not in BLANK):
            letter = rest[at]
            if letter == escape and at + 1 < len(rest):
                at += 1
                letter = rest[at]
            elif letter == quote:
                quote, letter = "", ""
            elif not quote and letter in "'\"":
                quote, letter = letter, ""
            word.append(letter)
            at += 1
        while at < len(rest) and rest[at] in BLANK:
            at += 1
        flag = "".join(word)
        if flag == "--":
            break
        flags.append(flag)
    return tuple(flags), rest[at:]
