"""`berth images`, `berth rmi` and `berth tag`."""

from __future__ import annotations

from berth.cli import pulling, tables, units
from berth.cli.listing import SHORT_ID, documents_of, filters
from berth.client import documents
from berth.client.connection import quote
from berth.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.cli.call import Call
    from berth.cli.commands import Verb
    from berth.cli.options import Flag
    from berth.client.documents import Document

FLAGS: tuple[Flag, ...] = (
    ("all", "a", "bool", "Show all images (default hides intermediate images)"),
    ("digests", "", "bool", "Show digests"),
    ("filter", "f", "filter", "Filter output based on conditions provided"),
    ("format", "", "string", "Format output: 'table', 'table TEMPLATE', 'json' or a Go template"),
    ("no-trunc", "", "bool", "Don't truncate output"),
    ("quiet", "q", "bool", "Only show image IDs"),
    ("tree", "", "bool", "List images as a tree: the platforms below each name"),
)
REMOVE_FLAGS: tuple[Flag, ...] = (
    ("force", "f", "bool", "Force removal of the image"),
    ("no-prune", "", "bool", "Do not delete untagged parents"),
    ("platform", "", "strings", "Remove only the given platform variant (os[/arch[/variant]])"),
)
COLUMNS = (
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("ID", "IMAGE ID"),
    ("CreatedSince", "CREATED"),
    ("Size", "SIZE"),
)
HEADS = {"Digest": "DIGEST", "CreatedAt": "CREATED AT"}
NONE = "<none>"


def images(call: Call) -> int:
    """List images, one row for every name."""
    options = call.options
    wanted = [f"reference={name}" for name in call.arguments]
    query = {
        "all": "1" if options.on("all") else "",
        "digests": "1" if options.on("digests") else "",
        "filters": filters(options.all("filter") + wanted),
        "manifests": "1" if options.on("tree") else "",
    }
    found = documents_of(call, "/images/json", query)
    found.sort(key=lambda item: -documents.number(item, "Created"))
    if options.on("tree"):
        print(tree(found))
        return 0
    whole = options.on("no-trunc")
    rows = [row for item in found for row in rows_of(item, whole=whole)]
    if options.on("quiet") and not options.given("format"):
        for row in rows:
            print(row["ID"])
        return 0
    columns = list(COLUMNS)
    if options.on("digests"):
        columns.insert(2, ("Digest", "DIGEST"))
    if text := tables.show(rows, columns, form=options.text("format"), heads=HEADS):
        print(text)
    return 0


def tree(found: list[object]) -> str:
    """Return a table of names, below each the images that it stands for on their platforms."""
    rows: list[Document] = []
    for item in found:
        below = [_platform_row(entry) for entry in documents.items(item, "Manifests")]
        ends = ["├─ "] * (len(below) - 1) + ["└─ "]
        for name in documents.strings(item, "RepoTags") or ["<untagged>"]:
            id_ = documents.text(item, "Id").removeprefix("sha256:")[:SHORT_ID]
            size = units.human_size(documents.number(item, "Size"))
            rows.append({"Image": name, "ID": id_, "Size": size, "Used": ""})
            rows += [
                {**row, "Image": f"{end}{row['Image']}"}
                for end, row in zip(ends, below, strict=True)
            ]
    columns = (("Image", "IMAGE"), ("ID", "ID"), ("Size", "DISK USAGE"), ("Used", "IN USE"))
    return tables.show(rows, columns, form="")


def _platform_row(entry: object) -> Document:
    data = documents.field(entry, "ImageData")
    platform = documents.field(data, "Platform")
    parts = (documents.text(platform, key) for key in ("os", "architecture", "variant"))
    return {
        "Image": "/".join(part for part in parts if part),
        "ID": documents.text(entry, "ID").removeprefix("sha256:")[:SHORT_ID],
        "Size": units.human_size(documents.number(documents.field(data, "Size"), "Unpacked")),
        "Used": "yes" if documents.strings(data, "Containers") else "",
    }


def rows_of(item: object, *, whole: bool) -> list[Document]:
    """Return the rows of an image, one for every name."""
    id_ = documents.text(item, "Id")
    created = documents.number(item, "Created")
    parted = (name.partition("@") for name in documents.strings(item, "RepoDigests"))
    digests = {repository: digest for repository, _, digest in parted}
    names = [name for name in documents.strings(item, "RepoTags") if name != "<none>:<none>"]
    pairs = [pulling.split(name) for name in names]
    pairs = pairs or [(name, NONE) for name in digests] or [(NONE, NONE)]
    return [
        {
            "Containers": "N/A",
            "CreatedAt": units.local_time(created),
            "CreatedSince": units.ago(created),
            "Digest": digests.get(repository, NONE),
            "ID": id_ if whole else id_.removeprefix("sha256:")[:SHORT_ID],
            "Repository": repository,
            "SharedSize": "N/A",
            "Size": units.human_size(documents.number(item, "Size")),
            "Tag": tag,
            "UniqueSize": "N/A",
            "VirtualSize": units.human_size(documents.number(item, "Size"), digits=4),
        }
        for repository, tag in pairs
    ]


def remove(call: Call) -> int:
    """Remove images or names of images."""
    options = call.options
    query = [
        ("force", "1" if options.on("force") else ""),
        ("noprune", "1" if options.on("no-prune") else ""),
        *(("platforms", platform) for platform in options.all("platform")),
    ]

    def act(name: str) -> str:
        answer = call.engine.request("DELETE", f"/images/{quote(name)}", query).document()
        return "\n".join(
            f"{verb}: {text}"
            for item in documents.items({"found": answer}, "found")
            for verb in ("Untagged", "Deleted")
            if (text := documents.text(item, verb))
        )

    return call.each(act, force=options.on("force"))


def tag(call: Call) -> int:
    """Give an image another name."""
    source, target = call.arguments
    name, label = pulling.split(target)
    query = {"repo": name, "tag": label}
    try:
        call.engine.request("POST", f"/images/{quote(source)}/tag", query).read()
    except InvalidArgument as error:
        what = f'Error parsing reference: "{target}" is not a valid repository/tag'
        raise InvalidArgument(f"{what}: {error}") from None
    return 0


VERBS: dict[str, Verb] = {
    "images": (FLAGS, images),
    "rmi": (REMOVE_FLAGS, remove),
    "tag": ((), tag),
}
