"""Which lines of a Dockerfile an error or a warning is of, as BuildKit tells its clients."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import msgspec

from berth.dockerfile import suggestions
from berth.dockerfile.instructions import READERS
from berth.dockerfile.syntax import Fault, SyntaxFault
from berth.errors import BerthError, Failed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Lines = tuple[int, int]

SOURCE = "github.com/moby/buildkit/errdefs.Source+json"
LANGUAGE = "Dockerfile"
UNKNOWN = "unknown instruction: "
MAX_WHOLE_BYTES = 16 << 10  # of larger ones only what clients show is sent, the rest as empty lines
MAX_BYTES = 256 << 10
AROUND = 8  # lines
MAX_ROWS = 4096  # of an instruction that are shown, or told of


@dataclass(frozen=True, kw_only=True)
class Dockerfile:
    """A Dockerfile and what it is called."""

    name: str
    text: str

    @cached_property
    def rows(self) -> Sequence[str]:
        """Its lines."""
        return self.text.split("\n")

    def excerpt(self, lines: Lines) -> str | None:
        """Return it, all but what clients do not show where it is long; None: it is too long even so."""
        if len(self.text) <= MAX_WHOLE_BYTES:
            return self.text
        first, last = max(lines[0] - AROUND, 0), lines[1] + AROUND
        if last - first > MAX_ROWS:
            return None
        rows = self.rows[first:last]
        shown = "\n".join(["", *rows] if first else rows)
        text = "\n" * (first - 1) + shown if first else shown
        return text if len(text) <= MAX_BYTES else None

    def info(self, lines: Lines) -> dict[str, object] | None:
        """Return it as BuildKit's SourceInfo, for what is said of some lines."""
        text = self.excerpt(lines)
        if text is None:
            return None
        return {"filename": self.name, "data": text.encode(), "language": LANGUAGE}


def ranges_of(lines: Lines) -> list[dict[str, dict[str, int]]]:
    """Return lines as BuildKit has them: a range each."""
    last = min(lines[1], lines[0] + MAX_ROWS)
    return [{"start": {"line": at}, "end": {"line": at}} for at in range(lines[0], last + 1)]


class Located(Failed):
    """An error of some lines; ``details`` are what gRPC carries of that."""

    lines: Lines = (0, 0)
    details: tuple[tuple[str, bytes], ...] = ()

    @classmethod
    def of(cls, error: BerthError, dockerfile: Dockerfile, lines: Lines) -> Located:
        """Return an error with the lines that it is of; zeros for none."""
        self = cls(error.message, hint=error.hint)
        self.lines = lines
        info = dockerfile.info(lines)
        if info is not None and lines[0]:
            data = info["data"]
            assert isinstance(data, bytes)
            document: Mapping[str, object] = {
                "info": {**info, "data": base64.b64encode(data).decode()},
                "ranges": ranges_of(lines),
            }
            self.details = ((SOURCE, msgspec.json.encode(document)),)
        return self


def lines_of(error: BerthError) -> Lines | None:
    """Return the lines that an error is of; None when it does not say."""
    return error.lines if isinstance(error, Fault | Located) else None


def in_words(error: BerthError) -> BerthError:
    """Return what is wrong with a Dockerfile in BuildKit's words, where Docker has others."""
    if not isinstance(error, SyntaxFault):
        return error
    why = error.why
    if why.startswith(UNKNOWN):
        near = suggestions.nearest(why.removeprefix(UNKNOWN), READERS)
        why += f" (did you mean {near}?)" if near else ""
    return Failed(f"dockerfile parse error on line {error.lines[0]}: {why}")
