"""`state`, `list`, `ps`: what there is."""

from __future__ import annotations

import json
import pwd

from berth.bundle import records, status
from berth.errors import Corrupt, InvalidArgument, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.bundle.records import Folder
    from berth.oci_cli.invocation import Invocation

ON_THE_RIGHT = ("PID", "PPID", "%CPU", "%MEM", "VSZ", "RSS")
HEADINGS = ("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER")


def do_state(call: Invocation) -> int:
    """Print a container's state."""
    folder, record = call.look()
    print(json.dumps(status.description(folder, record), indent=2))
    return 0


def do_list(call: Invocation) -> int:
    """Print all containers."""
    form = call.options.text("format", "table")
    if form not in ("table", "json"):
        raise InvalidArgument(f"invalid format option {form!r}")
    found = []
    for id_ in records.ids(call.root):
        try:
            folder, record = records.peek(call.root, id_)
            found.append({**status.description(folder, record), "owner": _owner(folder)})
        except NotFound:  # it went meanwhile
            continue
        except Corrupt as error:
            call.log.warning(f"container {id_}: {error.message}")
    if call.options.on("quiet"):
        for document in found:
            print(document["id"])
    elif form == "json":
        print(json.dumps(found, separators=(",", ":")) if found else "null")
    else:
        keys = ("id", "pid", "status", "bundle", "created", "owner")
        _print_table([HEADINGS, *(tuple(str(d[key]) for key in keys) for d in found)])
    return 0


def _owner(folder: Folder) -> str:
    """Return the name of who made a container, or the number of one who has none."""
    uid = folder.owner()
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"


def _print_table(rows: list[tuple[str, ...]]) -> None:
    widths = [max(12, *(len(row[i]) + 3 for row in rows)) for i in range(len(rows[0]))]
    for row in rows:
        print("".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def do_ps(call: Invocation) -> int:
    """Print the processes of a container."""
    _, record = call.look()
    form = call.options.text("format", "table")
    if form not in ("table", "json"):
        raise InvalidArgument(f"invalid format option {form!r}")
    groups = status.group(record)
    pids = sorted(groups.pids()) if groups is not None else []
    if form == "json":
        print(json.dumps(pids, separators=(",", ":")))
        return 0
    from berth.runtime import top

    arguments = call.arguments[1:] or ["-ef"]
    shown = top.document(pids, " ".join(arguments))
    titles, rows = shown["Titles"], shown["Processes"]
    assert isinstance(titles, list)
    assert isinstance(rows, list)
    numbers = [title in ON_THE_RIGHT for title in titles]
    width = max(
        (len(row[place]) for row in rows for place in range(len(titles)) if numbers[place]),
        default=5,
    )
    aligned = [
        tuple(
            text.rjust(max(width, 7)) if number else text
            for text, number in zip(row, numbers, strict=True)
        )
        for row in [titles, *rows]
    ]
    _print_table(aligned)
    return 0
