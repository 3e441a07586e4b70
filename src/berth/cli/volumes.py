"""`berth volume ls`, `create`, `rm` and `inspect`."""

from __future__ import annotations

from berth.cli import inspect, tables
from berth.cli.listing import filters
from berth.client import documents
from berth.client.connection import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.cli.call import Call
    from berth.cli.commands import Verb
    from berth.cli.options import Flag
    from berth.client.documents import Document

LIST_FLAGS: tuple[Flag, ...] = (
    ("filter", "f", "filter", 'Provide filter values (e.g. "dangling=true")'),
    ("format", "", "string", "Format output: 'table', 'table TEMPLATE', 'json' or a Go template"),
    ("quiet", "q", "bool", "Only display volume names"),
)
CREATE_FLAGS: tuple[Flag, ...] = (
    ("driver", "d", "string", 'Specify volume driver name (default "local")'),
    ("label", "", "list", "Set metadata for a volume"),
    ("name", "", "string", ""),
    ("opt", "o", "map", "Set driver specific options"),
)
REMOVE_FLAGS: tuple[Flag, ...] = (
    ("force", "f", "bool", "Force the removal of one or more volumes"),
)
NONE = "N/A"  # of clusters, or what only `system df` tells
COLUMNS = (("Driver", "DRIVER"), ("Name", "VOLUME NAME"))


def volumes(call: Call) -> int:
    """List volumes."""
    options = call.options
    query = {"filters": filters(options.all("filter"))}
    answer = call.engine.request("GET", "/volumes", query).document()
    found = documents.items(answer, "Volumes")
    found.sort(key=lambda item: documents.text(item, "Name"))
    if options.on("quiet"):
        for item in found:
            print(documents.text(item, "Name"))
        return 0
    rows: list[Document] = [
        {
            "Availability": NONE,
            "Driver": documents.text(item, "Driver"),
            "Group": NONE,
            "Labels": tables.pairs(documents.field(item, "Labels")),
            "Links": NONE,
            "Mountpoint": documents.text(item, "Mountpoint"),
            "Name": documents.text(item, "Name"),
            "Scope": documents.text(item, "Scope"),
            "Size": NONE,
            "Status": NONE,
        }
        for item in found
    ]
    if text := tables.show(rows, COLUMNS, form=options.text("format")):
        print(text)
    return 0


def create(call: Call) -> int:
    """Make a volume and print its name."""
    options = call.options
    body: Document = {
        "Name": (call.arguments or [options.text("name")])[0],
        "Driver": options.text("driver", "local"),
        "DriverOpts": options.pairs("opt"),
        "Labels": options.pairs("label"),
    }
    print(
        documents.text(call.engine.request("POST", "/volumes/create", body=body).document(), "Name")
    )
    return 0


def remove(call: Call) -> int:
    """Remove volumes."""
    query = {"force": "1" if call.options.on("force") else ""}

    def act(name: str) -> str:
        call.engine.request("DELETE", f"/volumes/{quote(name)}", query).read()
        return name

    return call.each(act)


VERBS: dict[str, Verb] = {
    "volume ls": (LIST_FLAGS, volumes),
    "volume create": (CREATE_FLAGS, create),
    "volume rm": (REMOVE_FLAGS, remove),
    "volume inspect": ((inspect.FORMAT,), inspect.of("volume")),
}
