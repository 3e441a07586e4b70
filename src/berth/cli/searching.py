"""`berth search`."""

from __future__ import annotations

from berth.cli import credentials, tables
from berth.cli.listing import filters
from berth.client import documents

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.cli.call import Call
    from berth.cli.commands import Verb
    from berth.cli.options import Flag
    from berth.client.documents import Document

FLAGS: tuple[Flag, ...] = (
    ("filter", "f", "filter", "Filter output based on conditions provided"),
    ("format", "", "string", "Pretty-print search using a Go template"),
    ("limit", "", "int", "Max number of search results"),
    ("no-trunc", "", "bool", "Don't truncate output"),
)
DESCRIPTION_CHARS = 45
COLUMNS = (
    ("Name", "NAME"),
    ("Description", "DESCRIPTION"),
    ("StarCount", "STARS"),
    ("IsOfficial", "OFFICIAL"),
)


def search(call: Call) -> int:
    """Search a registry for images."""
    options, (term,) = call.options, call.arguments
    answer = call.engine.request(
        "GET",
        "/images/search",
        {
            "term": term,
            "limit": str(options.number("limit") or ""),
            "filters": filters(options.all("filter")),
        },
        headers=credentials.headers(term),
    ).document()
    rows: list[Document] = [
        _row(one, whole=options.on("no-trunc")) for one in documents.items(answer)
    ]
    if text := tables.show(rows, COLUMNS, form=options.text("format")):
        print(text)
    return 0


def _row(found: object, *, whole: bool) -> Document:
    text = documents.text(found, "description").replace("\n", " ").replace("\r", " ")
    if not whole and len(text) > DESCRIPTION_CHARS:
        text = text[: DESCRIPTION_CHARS - 1] + "…"
    return {
        "Name": documents.text(found, "name"),
        "Description": text,
        "StarCount": str(documents.number(found, "star_count")),
        "IsOfficial": "[OK]" if documents.field(found, "is_official") else "",
    }


VERBS: dict[str, Verb] = {"search": (FLAGS, search)}
