"""`berth logs`."""

from __future__ import annotations

import time

from berth.cli import session, units
from berth.client import documents
from berth.client.connection import quote
from berth.client.streams import STDERR, STDOUT, Demultiplexer
from berth.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.cli.call import Call
    from berth.cli.commands import Verb
    from berth.cli.options import Flag

FLAGS: tuple[Flag, ...] = (
    ("clear", "", "bool", "Forget what was logged so far, and show nothing"),
    ("details", "", "bool", "Show extra details provided to logs"),
    ("follow", "f", "bool", "Follow log output"),
    (
        "since",
        "",
        "string",
        'Show logs since a time ("2013-01-02T13:23:37Z") or for a time ("42m")',
    ),
    ("tail", "n", "string", 'Number of lines to show from the end of the logs (default "all")'),
    ("timestamps", "t", "bool", "Show timestamps"),
    ("until", "", "string", 'Show logs before a time ("2013-01-02T13:23:37Z") or age ("42m")'),
)


def logs(call: Call) -> int:
    """Print what a container wrote, stdout to stdout and stderr to stderr."""
    options = call.options
    path = f"/containers/{quote(call.arguments[0])}"
    if options.on("clear"):
        call.engine.request("DELETE", f"{path}/logs")
        return 0
    query = {"stdout": "1", "stderr": "1", "tail": options.text("tail", "all")}
    query |= {flag: "1" for flag in ("details", "follow", "timestamps") if options.on(flag)}
    for flag in ("since", "until"):
        if options.given(flag):
            query[flag] = moment(flag, options.text(flag))
    inspected = call.engine.request("GET", f"{path}/json").document()
    tty = documents.field(inspected, "Config", "Tty") is True
    demultiplexer = Demultiplexer()
    for chunk in call.engine.request("GET", f"{path}/logs", query).chunks():
        if tty:
            session.write(STDOUT, chunk)
            continue
        for stream, payload in demultiplexer.feed(chunk):
            session.write(STDERR if stream == STDERR else STDOUT, payload)
    return 0


def moment(flag: str, text: str) -> str:
    """Return the Unix time of a time, or of a duration before now."""
    try:
        return units.log_time(text, time.time_ns())
    except ValueError as error:
        raise InvalidArgument(f'invalid value for "{flag}": {error}') from None


VERBS: dict[str, Verb] = {"logs": (FLAGS, logs)}
