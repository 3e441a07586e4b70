"""`berth history`."""

from __future__ import annotations

import time

from berth.cli import listing, tables, units
from berth.client import documents
from berth.client.connection import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.cli.call import Call
    from berth.cli.commands import Verb
    from berth.cli.options import Flag
    from berth.client.documents import Document

FLAGS: tuple[Flag, ...] = (
    ("format", "", "string", "Format output: 'table', 'table TEMPLATE', 'json' or a Go template"),
    ("human", "H", "true", "Print sizes and dates in human readable format"),
    ("no-trunc", "", "bool", "Don't truncate output"),
    ("platform", "", "string", "Show history for the given platform (os[/arch[/variant]])"),
    ("quiet", "q", "bool", "Only show image IDs"),
)
HEADS = {"CreatedAt": "CREATED AT", "CreatedSince": "CREATED"}
COMMAND_WIDTH = 45


def history(call: Call) -> int:
    """Print how an image came about, the last step first."""
    options = call.options
    human, whole = options.on("human", default=True), options.on("no-trunc")
    query = {"platform": options.text("platform")}
    steps = listing.documents_of(call, f"/images/{quote(call.arguments[0])}/history", query)
    rows = [_row(step, human=human, whole=whole) for step in steps]
    form = options.text("format")
    if options.on("quiet"):
        form = "{{.ID}}" if form in ("", "table") else form
    created = "CreatedSince" if human else "CreatedAt"
    columns = (
        *(("ID", "IMAGE"), (created, HEADS[created]), ("CreatedBy", "CREATED BY")),
        *(("Size", "SIZE"), ("Comment", "COMMENT")),
    )
    if text := tables.show(rows, columns, form=form, heads=HEADS):
        print(text)
    return 0


def _row(step: object, *, human: bool, whole: bool) -> Document:
    created, size = documents.number(step, "Created"), documents.number(step, "Size")
    at = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(created)) + zone(created)
    since = units.ago(created) if created > 0 else "N/A"
    made_by = documents.text(step, "CreatedBy").replace("\t", " ")
    if not whole and len(made_by) > COMMAND_WIDTH:
        made_by = made_by[: COMMAND_WIDTH - 1] + "…"
    id_ = documents.text(step, "Id")
    return {
        "Comment": documents.text(step, "Comment"),
        "CreatedAt": at,
        "CreatedBy": made_by,
        "CreatedSince": since if human else at,
        "ID": id_ if whole else id_.removeprefix("sha256:")[: listing.SHORT_ID],
        "Size": units.human_size(size) if human else str(size),
    }


def zone(moment_s: float) -> str:
    """Return this machine's offset from UTC at a time, as RFC 3339 writes it."""
    offset = time.strftime("%z", time.localtime(moment_s))
    return "Z" if offset == "+0000" else f"{offset[:3]}:{offset[3:]}"


VERBS: dict[str, Verb] = {"history": (FLAGS, history)}
