"""`berth diff`, `export` and `commit`: what a container has become."""

from __future__ import annotations

import os

from berth.cli import pulling, session
from berth.client import documents
from berth.client.connection import quote
from berth.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.cli.call import Call
    from berth.cli.commands import Verb
    from berth.cli.options import Flag

EXPORT_FLAGS: tuple[Flag, ...] = (("output", "o", "string", "Write to a file, instead of STDOUT"),)
COMMIT_FLAGS: tuple[Flag, ...] = (
    ("author", "a", "string", 'Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")'),
    ("change", "c", "list", "Apply Dockerfile instruction to the created image"),
    ("message", "m", "string", "Commit message"),
    ("pause", "p", "true", "Pause container during commit"),
)
KINDS = "CAD"  # changed, added, deleted: the API counts them


def diff(call: Call) -> int:
    """Print what a container has changed."""
    path = f"/containers/{quote(call.arguments[0])}/changes"
    answer = call.engine.request("GET", path).document()
    for change in documents.items({"found": answer}, "found"):
        kind = documents.number(change, "Kind")
        print(f"{KINDS[kind]} {documents.text(change, 'Path')}")
    return 0


def export(call: Call) -> int:
    """Write a container's root file system as a tar archive."""
    target = call.options.text("output")
    if not target and os.isatty(1):
        raise InvalidArgument(
            "cowardly refusing to save to a terminal. Use the -o flag or redirect"
        )
    session.check_output(target, "export container")
    path = f"/containers/{quote(call.arguments[0])}/export"
    session.write_out(target, call.engine.request("GET", path).chunks())
    return 0


def commit(call: Call) -> int:
    """Make an image of a container and print its id."""
    options = call.options
    reference = call.arguments[1] if len(call.arguments) > 1 else ""
    repository, tag = pulling.split(reference) if reference else ("", "")
    query = [
        ("container", call.arguments[0]),
        ("repo", repository),
        ("tag", tag),
        ("author", options.text("author")),
        ("comment", options.text("message")),
        ("pause", "1" if options.on("pause", default=True) else "0"),
        *(("changes", change) for change in options.all("change")),
    ]
    answer = call.engine.request("POST", "/commit", query, body={}).document()
    print(documents.text(answer, "Id"))
    return 0


VERBS: dict[str, Verb] = {
    "diff": ((), diff),
    "export": (EXPORT_FLAGS, export),
    "commit": (COMMIT_FLAGS, commit),
}
