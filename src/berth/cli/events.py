"""`berth events`."""

from __future__ import annotations

import time

from berth.cli import listing, templates, units
from berth.client import documents
from berth.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.cli.call import Call
    from berth.cli.commands import Verb
    from berth.cli.options import Flag

FLAGS: tuple[Flag, ...] = (
    ("filter", "f", "filter", "Filter output based on conditions provided"),
    ("format", "", "string", "Format output: 'json' or a Go template"),
    ("since", "", "string", "Show all events created since timestamp"),
    ("until", "", "string", "Stream events until this timestamp"),
)
# JSON's names in the order in which Docker's clients write them, with the names of templates.
NAMES = (
    ("status", "Status"),
    ("id", "ID"),
    ("from", "From"),
    ("Type", "Type"),
    ("Action", "Action"),
    ("Actor", "Actor"),
    ("scope", "Scope"),
    ("time", "Time"),
    ("timeNano", "TimeNano"),
)


def events(call: Call) -> int:
    """Print events as they happen, first those since a moment in the past."""
    options = call.options
    query = {"filters": listing.filters(options.all("filter"))}
    for flag in ("since", "until"):
        if options.given(flag):
            query[flag] = moment(options.text(flag))
    form = options.text("format")
    template = "{{json .}}" if form == "json" else form
    for event in call.engine.request("GET", "/events", query).lines():
        print(templates.render(template, named(event)) if template else line(event), flush=True)
    return 0


def moment(text: str) -> str:
    """Return the Unix time of a time, or of a duration before now."""
    try:
        return units.log_time(text, time.time_ns())
    except ValueError as error:
        raise InvalidArgument(str(error)) from None


def named(event: object) -> templates.Named:
    """Return an event as templates see it."""
    found = documents.mapping(event)
    return templates.Named(
        {name: found.get(key, "") for key, name in NAMES},
        {key: found[key] for key, _ in NAMES if key in found},
    )


def line(event: object) -> str:
    """Return "2024-01-02T15:04:05.000000006+01:00 container start ID (image=busybox, name=one)"."""
    nanoseconds = documents.number(event, "timeNano")
    local = time.localtime(nanoseconds // 1_000_000_000)
    zone = time.strftime("%z", local)
    shown = "Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}"
    moment = f"{time.strftime('%Y-%m-%dT%H:%M:%S', local)}.{nanoseconds % 1_000_000_000:09}{shown}"
    attributes = documents.mapping(documents.field(event, "Actor", "Attributes"))
    told = ", ".join(f"{key}={value}" for key, value in sorted(attributes.items()))
    words = [moment, documents.text(event, "Type"), documents.text(event, "Action")]
    words.append(documents.text(event, "Actor", "ID"))
    return " ".join(words) + (f" ({told})" if told else "")


VERBS: dict[str, Verb] = {"events": (FLAGS, events)}
