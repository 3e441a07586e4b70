"""Go's templates on the command line: what ``json`` shows of documents and of lines of lists."""

from __future__ import annotations

from berth import templates
from berth.client import documents
from berth.templates import shown

__all__ = ["Named", "Row", "render", "shown"]


class Named(dict[str, object]):
    """A document by the names that templates use, with what ``json`` shows of it: often other names."""

    def __init__(self, names: dict[str, object], document: dict[str, object]) -> None:
        super().__init__(names)
        self.document = document


class Row(dict[str, object]):
    """A line of a list: as JSON its names are sorted, and what HTML gives a meaning is escaped."""


def render(template: str, data: object) -> str:
    """Return the template with the data put in; InvalidArgument when it is malformed."""
    return templates.render(template, data, {"json": _json})


def _json(value: object) -> str:
    if isinstance(value, Row):
        text = documents.readable(dict(sorted(value.items())))
        return text.translate({ord(letter): f"\\u{ord(letter):04x}" for letter in "<>&"})
    return documents.readable(value.document if isinstance(value, Named) else value)
