"""Verbs that change containers: stop, restart, kill, pause, unpause, wait, rm, rename."""

from __future__ import annotations

import sys

from berth.cli.call import report
from berth.client import documents
from berth.client.connection import quote
from berth.errors import BerthError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from berth.cli.call import Call
    from berth.cli.commands import Verb
    from berth.cli.options import Flag

STOP_FLAGS: tuple[Flag, ...] = (
    ("signal", "s", "string", "Signal to send to the container"),
    ("timeout", "t", "int", "Seconds to wait before killing the container"),
    ("time", "", "int", ""),
)
KILL_FLAGS: tuple[Flag, ...] = (("signal", "s", "string", "Signal to send to the container"),)
REMOVE_FLAGS: tuple[Flag, ...] = (
    ("force", "f", "bool", "Force the removal of a running container (uses SIGKILL)"),
    ("link", "l", "bool", "Remove the specified link"),
    ("volumes", "v", "bool", "Remove anonymous volumes associated with the container"),
)


def _posting(verb: str) -> Callable[[Call], int]:
    """Return the command that posts a verb for every container and prints its name."""

    def command(call: Call) -> int:
        query = {"signal": call.options.text("signal")}
        for flag in ("time", "timeout"):
            if call.options.given(flag):
                query["t"] = str(call.options.number(flag))

        def act(container: str) -> str:
            call.engine.request("POST", f"/containers/{quote(container)}/{verb}", query).read()
            return container

        return call.each(act)

    return command


def wait(call: Call) -> int:
    """Print the exit code of every container when it has one."""

    def act(container: str) -> str:
        response = call.engine.request("POST", f"/containers/{quote(container)}/wait")
        return str(documents.number(response.document(), "StatusCode"))

    return call.each(act)


def remove(call: Call) -> int:
    """Remove containers."""
    options = call.options
    query = {
        "force": "1" if options.on("force") else "",
        "link": "1" if options.on("link") else "",
        "v": "1" if options.on("volumes") else "",
    }

    def act(container: str) -> str:
        call.engine.request("DELETE", f"/containers/{quote(container.strip('/'))}", query).read()
        return container

    return call.each(act, force=options.on("force"))


def rename(call: Call) -> int:
    """Give a container another name."""
    container, name = call.arguments
    try:
        path = f"/containers/{quote(container)}/rename"
        call.engine.request("POST", path, {"name": name}).read()
    except BerthError as error:
        report(error)
        print(f"Error: failed to rename container named {container}", file=sys.stderr)
        return 1
    return 0


VERBS: dict[str, Verb] = {
    "stop": (STOP_FLAGS, _posting("stop")),
    "restart": (STOP_FLAGS, _posting("restart")),
    "kill": (KILL_FLAGS, _posting("kill")),
    "pause": ((), _posting("pause")),
    "unpause": ((), _posting("unpause")),
    "wait": ((), wait),
    "rm": (REMOVE_FLAGS, remove),
    "rename": ((), rename),
}
