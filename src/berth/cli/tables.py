"""Tables with a head, and --format over rows of named columns."""

from __future__ import annotations

from berth.client import documents

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from berth.client.documents import Document

GAP = 3  # spaces between columns, as in Docker's tables
MIN_WIDTH = 10  # of a column with its gap


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, min_width: int = MIN_WIDTH) -> str:
    """Return the lines of a table; every column but the last is as wide as its widest cell."""
    lines = [list(head), *[list(row) for row in rows]]
    widths = [
        max(min_width, *(len(line[index]) + GAP for line in lines))
        for index in range(len(head) - 1)
    ]
    return "\n".join(
        "".join(cell.ljust(width) for cell, width in zip(line, [*widths, 0], strict=True))
        for line in lines
    )


def show(
    rows: Sequence[Document],
    columns: Sequence[tuple[str, str]],
    *,
    form: str = "",
    heads: dict[str, str] | None = None,
) -> str:
    """Return rows as ``--format`` wants them: a table, JSON lines, or a template for each row.

    ``columns`` are (field, title) of the plain table; ``heads`` are titles of further fields.
    """
    if form in ("", "table"):
        cells = [[str(row.get(field, "")) for field, _ in columns] for row in rows]
        return table([title for _, title in columns], cells)
    from berth.cli import templates

    if form == "json":
        form = "{{json .}}"
    if form.startswith("table "):
        titles: Document = {**(heads or {}), **dict(columns)}
        template = form.removeprefix("table ").replace("\\t", "\t")
        lines = [templates.render(template, line).split("\t") for line in (titles, *rows)]
        return table(lines[0], lines[1:])
    form = form.replace("\\t", "\t").replace("\\n", "\n")
    return "\n".join(templates.render(form, templates.Row(row)) for row in rows)


def pairs(value: object) -> str:
    """Return labels as "name=value,other=value"."""
    return ",".join(f"{key}={text}" for key, text in sorted(documents.mapping(value).items()))


def json_text(value: object) -> str:
    """Return compact JSON as text."""
    return documents.encode(value).decode()
