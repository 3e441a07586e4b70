"""`berth ps`, `berth top` and `berth port`."""

from __future__ import annotations

from berth.cli import tables, units
from berth.client import documents
from berth.client.connection import quote
from berth.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from berth.cli.call import Call
    from berth.cli.commands import Verb
    from berth.cli.options import Flag
    from berth.client.documents import Document

FLAGS: tuple[Flag, ...] = (
    ("all", "a", "bool", "Show all containers (default shows just running)"),
    ("filter", "f", "filter", "Filter output based on conditions provided"),
    ("format", "", "string", "Format output: 'table', 'table TEMPLATE', 'json' or a Go template"),
    ("last", "n", "int", "Show n last created containers (includes all states)"),
    ("latest", "l", "bool", "Show the latest created container (includes all states)"),
    ("no-trunc", "", "bool", "Don't truncate output"),
    ("quiet", "q", "bool", "Only display container IDs"),
    ("size", "s", "bool", "Display total file sizes"),
)
COLUMNS = (
    ("ID", "CONTAINER ID"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("RunningFor", "CREATED"),
    ("Status", "STATUS"),
    ("Ports", "PORTS"),
    ("Names", "NAMES"),
)
HEADS = {
    "CreatedAt": "CREATED AT",
    "State": "STATE",
    "Size": "SIZE",
    "Labels": "LABELS",
    "Mounts": "MOUNTS",
    "Networks": "NETWORKS",
    "LocalVolumes": "LOCAL VOLUMES",
}
SHORT_ID, COMMAND_WIDTH = 12, 20
TOP_MIN_WIDTH = 20


def filters(texts: Sequence[str]) -> str:
    """Return --filter values as the API takes them."""
    found: dict[str, list[str]] = {}
    for text in texts:
        key, _, value = text.partition("=")
        found.setdefault(key.strip().lower(), []).append(value.strip())
    return tables.json_text(found) if found else ""


def containers(call: Call) -> int:
    """List containers."""
    options = call.options
    last = 1 if options.on("latest") else options.number("last")
    sized = options.on("size") or ".Size" in options.text("format")
    query = {
        "all": "1" if options.on("all") or last else "",
        "limit": str(last) if last > 0 else "",
        "size": "1" if sized else "",
        "filters": filters(options.all("filter")),
    }
    found = documents_of(call, "/containers/json", query)
    whole = options.on("no-trunc")
    if options.on("quiet") and not options.given("format"):
        for item in found:
            print(documents.text(item, "Id")[: None if whole else SHORT_ID])
        return 0
    columns = (*COLUMNS, ("Size", "SIZE")) if options.on("size") else COLUMNS
    rows = [row_of(item, whole=whole) for item in found]
    if text := tables.show(rows, columns, form=options.text("format"), heads=HEADS):
        print(text)
    return 0


def documents_of(call: Call, path: str, query: dict[str, str] | None = None) -> list[object]:
    """Return the list a GET answers with."""
    return documents.items({"found": call.engine.request("GET", path, query).document()}, "found")


def row_of(item: object, *, whole: bool) -> Document:
    """Return the columns of a container."""
    command = documents.text(item, "Command")
    if not whole and len(command) > COMMAND_WIDTH:
        command = command[: COMMAND_WIDTH - 1] + "…"
    created = documents.number(item, "Created")
    image = documents.text(item, "Image")
    networks = documents.mapping(documents.field(item, "NetworkSettings", "Networks"))
    mounts = [
        documents.text(mount, "Name") or documents.text(mount, "Source")
        for mount in documents.items(item, "Mounts")
    ]
    return {
        "Command": f'"{command}"',
        "CreatedAt": units.local_time(created),
        "ID": documents.text(item, "Id")[: None if whole else SHORT_ID],
        "Image": image.removeprefix("sha256:")[:SHORT_ID] if image.startswith("sha256:") else image,
        "Labels": tables.pairs(documents.field(item, "Labels")),
        "LocalVolumes": str(
            sum(documents.text(m, "Driver") == "local" for m in documents.items(item, "Mounts"))
        ),
        "Mounts": ",".join(mounts),
        "Names": ",".join(name.lstrip("/") for name in documents.strings(item, "Names")),
        "Networks": ",".join(networks),
        "Platform": None,
        "Ports": ports(documents.items(item, "Ports")),
        "RunningFor": units.ago(created),
        "Size": _size(item),
        "State": documents.text(item, "State"),
        "Status": documents.text(item, "Status"),
    }


def _size(item: object) -> str:
    root = documents.number(item, "SizeRootFs")
    virtual = f" (virtual {units.human_size(root)})" if root else ""
    return units.human_size(documents.number(item, "SizeRw")) + virtual


def ports(found: Sequence[object]) -> str:
    """Return "9000/tcp, 0.0.0.0:80-81->80-81/tcp, 0.0.0.0:8080->90/tcp": neighbours as one range."""
    entries = sorted(
        (
            documents.number(item, "PrivatePort"),
            documents.text(item, "IP"),
            documents.number(item, "PublicPort"),
            documents.text(item, "Type"),
        )
        for item in found
    )
    moved, done = [], []
    ranges: dict[tuple[str, str], tuple[int, int]] = {}
    for private, ip, public, kind in entries:
        if ip and public != private:
            moved.append(f"{_host(ip)}:{public}->{private}/{kind}")
            continue
        first, last = ranges.get((ip, kind), (private, private - 1))
        if last + 1 != private and private != last:
            done.append(_range(ip, kind, first, last))
            first = private
        ranges[ip, kind] = (first, private)
    done += [_range(ip, kind, first, last) for (ip, kind), (first, last) in ranges.items()]
    return ", ".join([*done, *moved])


def _host(ip: str) -> str:
    return f"[{ip}]" if ":" in ip else ip


def _range(ip: str, kind: str, first: int, last: int) -> str:
    text = str(first) if first == last else f"{first}-{last}"
    return f"{_host(ip)}:{text}->{text}/{kind}" if ip else f"{text}/{kind}"


def top(call: Call) -> int:
    """Print the processes of a container."""
    container, *arguments = call.arguments
    query = {"ps_args": " ".join(arguments)}
    answer = call.engine.request("GET", f"/containers/{quote(container)}/top", query).document()
    rows = [
        [str(cell) for cell in row]
        for row in documents.items(answer, "Processes")
        if isinstance(row, list)
    ]
    print(tables.table(documents.strings(answer, "Titles"), rows, min_width=TOP_MIN_WIDTH))
    return 0


def _by_number(text: str) -> tuple[int, str]:
    number, _, kind = text.partition("/")
    return int(number) if number.isdigit() else 0, kind


def port(call: Call) -> int:
    """Print where ports of a container are published."""
    container, *wanted = call.arguments
    inspected = call.engine.request("GET", f"/containers/{quote(container)}/json").document()
    bound = documents.mapping(documents.field(inspected, "NetworkSettings", "Ports"))
    asked = ""
    if wanted:
        asked = wanted[0] if "/" in wanted[0] else f"{wanted[0]}/tcp"
    lines = []
    for private in sorted(bound, key=_by_number):
        for binding in documents.items(bound, private):
            ip = documents.text(binding, "HostIp")
            where = f"{_host(ip)}:{documents.text(binding, 'HostPort')}"
            if not asked:
                lines.append(f"{private} -> {where}")
            elif private == asked:
                lines.append(where)
    if asked and not lines:
        raise NotFound(f"No public port '{wanted[0]}' published for {container}")
    if lines:
        print("\n".join(lines))
    return 0


VERBS: dict[str, Verb] = {"ps": (FLAGS, containers), "top": ((), top), "port": ((), port)}
