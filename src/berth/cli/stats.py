"""`berth stats`: what containers use, once or live."""

from __future__ import annotations

import select
import sys

from berth.cli import tables, units
from berth.cli.listing import SHORT_ID, documents_of
from berth.client import documents
from berth.client.connection import quote
from berth.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.cli.call import Call
    from berth.cli.commands import Verb
    from berth.cli.options import Flag
    from berth.client.connection import Connection
    from berth.client.documents import Document

FLAGS: tuple[Flag, ...] = (
    ("all", "a", "bool", "Show all containers (default shows just running)"),
    ("format", "", "string", "Format output: 'table', 'table TEMPLATE', 'json' or a Go template"),
    ("no-stream", "", "bool", "Disable streaming stats and only pull the first result"),
    ("no-trunc", "", "bool", "Do not truncate output"),
)
COLUMNS = (
    ("ID", "CONTAINER ID"),
    ("Name", "NAME"),
    ("CPUPerc", "CPU %"),
    ("MemUsage", "MEM USAGE / LIMIT"),
    ("MemPerc", "MEM %"),
    ("NetIO", "NET I/O"),
    ("BlockIO", "BLOCK I/O"),
    ("PIDs", "PIDS"),
)
PERIOD_MS = 1000
HOME_AND_CLEAR = "\x1b[H\x1b[J"


def stats(call: Call) -> int:
    """Print a table, and print it again every second unless told otherwise."""
    options = call.options
    form = options.text("format")
    while True:
        rows = [
            row(sample, whole=options.on("no-trunc"))
            for name in _names(call)
            if (sample := _sample(call.engine, name)) is not None
        ]
        text = tables.show(rows, COLUMNS, form=form)
        live = not options.on("no-stream")
        head = HOME_AND_CLEAR if live and not form and sys.stdout.isatty() else ""
        print(f"{head}{text}", flush=True)
        if not live:
            return 0
        select.select([], [], [], PERIOD_MS / 1000)


def _names(call: Call) -> list[str]:
    if call.arguments:
        return call.arguments
    query = {"all": "1" if call.options.on("all") else ""}
    found = documents_of(call, "/containers/json", query)
    return [documents.text(item, "Id") for item in found]


def _sample(engine: Connection, name: str) -> object:
    """Return one sample with the one before it; None when the container went away meanwhile."""
    try:
        path = f"/containers/{quote(name)}/stats"
        return engine.request("GET", path, {"stream": "0"}).document()
    except NotFound:
        if len(name) < 64:
            raise
        return None


def row(sample: object, *, whole: bool) -> Document:
    """Return the columns of one sample."""
    id_ = documents.text(sample, "id")
    used = memory_used(sample)
    limit = documents.number(sample, "memory_stats", "limit")
    networks = documents.mapping(documents.field(sample, "networks")).values()
    received = sum(documents.number(item, "rx_bytes") for item in networks)
    sent = sum(documents.number(item, "tx_bytes") for item in networks)
    name = documents.text(sample, "name").lstrip("/")
    return {
        "BlockIO": f"{_io(sample, 'read')} / {_io(sample, 'write')}",
        "CPUPerc": f"{cpu_percent(sample):.2f}%",
        "Container": name,
        "ID": id_ if whole else id_[:SHORT_ID],
        "MemPerc": f"{100 * used / limit if limit else 0:.2f}%",
        "MemUsage": f"{units.human_size(used, binary=True)} / {units.human_size(limit, binary=True)}",
        "Name": name,
        "NetIO": f"{units.human_size(received)} / {units.human_size(sent)}",
        "PIDs": str(documents.number(sample, "pids_stats", "current")),
    }


def memory_used(sample: object) -> int:
    """Return the memory in use without the page cache that could go (named by cgroup v1, v2)."""
    usage = documents.number(sample, "memory_stats", "usage")
    details = documents.mapping(documents.field(sample, "memory_stats", "stats"))
    for key in ("total_inactive_file", "inactive_file"):
        cache = documents.number(details, key)
        if key in details and cache < usage:
            return usage - cache
    return usage


def cpu_percent(sample: object) -> float:
    """Return the share of one CPU used since the sample before, in per cent."""
    now, before = documents.field(sample, "cpu_stats"), documents.field(sample, "precpu_stats")
    used = documents.number(now, "cpu_usage", "total_usage") - documents.number(
        before, "cpu_usage", "total_usage"
    )
    passed = documents.number(now, "system_cpu_usage") - documents.number(
        before, "system_cpu_usage"
    )
    count = documents.number(now, "online_cpus") or len(
        documents.items(now, "cpu_usage", "percpu_usage")
    )
    return 100.0 * count * used / passed if passed > 0 and used > 0 else 0.0


def _io(sample: object, operation: str) -> str:
    entries = documents.items(sample, "blkio_stats", "io_service_bytes_recursive")
    total = sum(
        documents.number(entry, "value")
        for entry in entries
        if documents.text(entry, "op").lower() == operation
    )
    return units.human_size(total)


VERBS: dict[str, Verb] = {"stats": (FLAGS, stats)}
