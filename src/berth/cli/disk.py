"""`berth system df`: what images, containers and volumes take."""

from __future__ import annotations

from berth.cli import images, listing, tables, templates, units
from berth.client import documents

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from berth.cli.call import Call
    from berth.cli.commands import Verb
    from berth.cli.options import Flag
    from berth.client.documents import Document

FLAGS: tuple[Flag, ...] = (
    ("format", "", "string", "Format output: 'table', 'table TEMPLATE', 'json' or a Go template"),
    ("verbose", "v", "bool", "Show detailed information on space usage"),
)
COLUMNS = (
    *(("Type", "TYPE"), ("TotalCount", "TOTAL"), ("Active", "ACTIVE")),
    *(("Size", "SIZE"), ("Reclaimable", "RECLAIMABLE")),
)
IMAGE_COLUMNS = (
    *images.COLUMNS,
    ("SharedSize", "SHARED SIZE"),
    ("UniqueSize", "UNIQUE SIZE"),
    ("Containers", "CONTAINERS"),
)
CONTAINER_COLUMNS = (
    *(("ID", "CONTAINER ID"), ("Image", "IMAGE"), ("Command", "COMMAND")),
    *(("LocalVolumes", "LOCAL VOLUMES"), ("Size", "SIZE"), ("RunningFor", "CREATED")),
    *(("Status", "STATUS"), ("Names", "NAMES")),
)
VOLUME_COLUMNS = (("Name", "VOLUME NAME"), ("Links", "LINKS"), ("Size", "SIZE"))
CACHE_COLUMNS = (
    *(("ID", "CACHE ID"), ("CacheType", "CACHE TYPE"), ("Size", "SIZE"), ("CreatedAt", "CREATED")),
    *(("LastUsedAt", "LAST USED"), ("UsageCount", "USAGE"), ("Shared", "SHARED")),
)
ACTIVE = ("running", "paused", "restarting")


def usage(call: Call) -> int:
    """Print a line for every kind of thing, or with --verbose for every thing."""
    answer = call.engine.request("GET", "/system/df").document()
    form = call.options.text("format")
    if call.options.on("verbose"):
        print(_verbose(answer, form))
        return 0
    rows = [_images(answer), _containers(answer), _volumes(answer), _cache(answer)]
    print(tables.show(rows, COLUMNS, form=form))
    return 0


def exact(size: int) -> str:
    """Return a size in four digits, as Docker's totals have it."""
    return units.human_size(size, digits=4)


def _line(kind: str, counts: tuple[int, int], size: int, reclaimable: int) -> Document:
    share = f" ({reclaimable * 100 // size}%)" if size > 0 else ""
    return {
        "Active": str(counts[1]),
        "Reclaimable": exact(reclaimable) + share,
        "Size": exact(size),
        "TotalCount": str(counts[0]),
        "Type": kind,
    }


def _images(answer: object) -> Document:
    found = documents.items(answer, "Images")
    size = documents.number(answer, "LayersSize")
    used = sum(
        documents.number(item, "Size") - documents.number(item, "SharedSize")
        for item in found
        if documents.number(item, "Containers") != 0 and documents.number(item, "SharedSize") >= 0
    )
    active = sum(documents.number(item, "Containers") > 0 for item in found)
    return _line("Images", (len(found), active), size, size - used)


def _containers(answer: object) -> Document:
    found = documents.items(answer, "Containers")
    sizes = [documents.number(item, "SizeRw") for item in found]
    idle = [documents.text(item, "State") not in ACTIVE for item in found]
    reclaimable = sum(size for size, is_idle in zip(sizes, idle, strict=True) if is_idle)
    return _line("Containers", (len(found), idle.count(False)), sum(sizes), reclaimable)


def _volumes(answer: object) -> Document:
    found = documents.items(answer, "Volumes")
    sizes = [max(0, documents.number(item, "UsageData", "Size")) for item in found]
    links = [documents.number(item, "UsageData", "RefCount") for item in found]
    reclaimable = sum(size for size, count in zip(sizes, links, strict=True) if count == 0)
    counts = len(found), sum(count > 0 for count in links)
    return _line("Local Volumes", counts, sum(sizes), reclaimable)


def _cache(answer: object) -> Document:
    found = documents.items(answer, "BuildCache")
    sizes = [documents.number(item, "Size") for item in found]
    used = [documents.field(item, "InUse") is True for item in found]
    idle = sum(size for size, in_use in zip(sizes, used, strict=True) if not in_use)
    return _line("Build Cache", (len(found), sum(used)), sum(sizes), idle)


def _verbose(answer: object, form: str) -> str:
    found = [row for item in documents.items(answer, "Images") for row in _image_rows(item)]
    containers = [
        {**listing.row_of(item, whole=False), "Size": _rw(item)}
        for item in documents.items(answer, "Containers")
    ]
    volumes = [_volume_row(item) for item in documents.items(answer, "Volumes")]
    if form not in ("", "table"):
        every: Document = {
            "Images": list[object](found),
            "Containers": list[object](containers),
            "Volumes": list[object](volumes),
            "BuildCache": [],
        }
        return templates.render("{{json .}}" if form == "json" else form, every)
    parts = (
        _part("Images space usage", found, IMAGE_COLUMNS),
        _part("Containers space usage", containers, CONTAINER_COLUMNS),
        _part("Local Volumes space usage", volumes, VOLUME_COLUMNS),
        _part(f"Build cache usage: {_cache(answer)['Size']}", [], CACHE_COLUMNS, colon=""),
    )
    return "\n".join(parts).rstrip("\n")


def _part(
    title: str, rows: Sequence[Document], columns: Sequence[tuple[str, str]], *, colon: str = ":"
) -> str:
    return f"{title}{colon}\n\n{tables.show(rows, columns)}\n"


def _image_rows(item: object) -> list[Document]:
    size, shared = documents.number(item, "Size"), documents.number(item, "SharedSize")
    containers = documents.number(item, "Containers")
    more: Document = {"Containers": str(containers) if containers >= 0 else "N/A"}
    if shared >= 0:
        more["SharedSize"] = exact(shared)
        more["UniqueSize"] = exact(size - shared)
    return [{**row, **more} for row in images.rows_of(item, whole=False)]


def _rw(item: object) -> str:
    return units.human_size(documents.number(item, "SizeRw"))


def _volume_row(item: object) -> Document:
    size = documents.number(item, "UsageData", "Size")
    return {
        "Links": str(documents.number(item, "UsageData", "RefCount")),
        "Name": documents.text(item, "Name"),
        "Size": exact(size) if size >= 0 else "N/A",
    }


VERBS: dict[str, Verb] = {"system df": (FLAGS, usage)}
