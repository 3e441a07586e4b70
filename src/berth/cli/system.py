"""`berth info` and `berth version`."""

from __future__ import annotations

import sys

from berth import __version__
from berth.cli import templates, units
from berth.cli.call import report
from berth.cli.inspect import FORMAT
from berth.client import documents
from berth.client.connection import API
from berth.errors import BerthError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.cli.call import Call
    from berth.cli.commands import Verb
    from berth.client.documents import Document

VERSION_LINES = (
    ("Version", "Version"),
    ("ApiVersion", "API version"),
    ("MinAPIVersion", "Minimum API version"),
    ("KernelVersion", "Kernel"),
    ("Os", "OS"),
    ("Arch", "Architecture"),
)
INFO_LINES = (
    ("Containers", "Containers"),
    ("ContainersRunning", " Running"),
    ("ContainersPaused", " Paused"),
    ("ContainersStopped", " Stopped"),
    ("Images", "Images"),
    ("ServerVersion", "Server version"),
    ("Driver", "Storage driver"),
    ("LoggingDriver", "Logging driver"),
    ("CgroupDriver", "Cgroup driver"),
    ("CgroupVersion", "Cgroup version"),
    ("KernelVersion", "Kernel version"),
    ("OperatingSystem", "Operating system"),
    ("OSType", "OS type"),
    ("Architecture", "Architecture"),
    ("NCPU", "CPUs"),
    ("MemTotal", "Total memory"),
    ("Name", "Name"),
    ("ID", "ID"),
    ("DockerRootDir", "Data root"),
)


def version(call: Call) -> int:
    """Print the version of the client and of the engine; 1 when the engine is not reachable."""
    client: Document = {
        "Version": __version__,
        "ApiVersion": API.removeprefix("/v"),
        "Python": sys.version.split(" ")[0],
    }
    server: object = None
    failure: BerthError | None = None
    try:
        server = call.engine.request("GET", "/version").document()
    except BerthError as error:
        failure = error
    if form := call.options.text("format"):
        template = "{{json .}}" if form == "json" else form
        print(templates.render(template, {"Client": client, "Server": server}))
    else:
        print("Client:")
        _lines(
            client, (("Version", "Version"), ("ApiVersion", "API version"), ("Python", "Python"))
        )
        if server is not None:
            print("\nServer:")
            _lines(documents.mapping(server), VERSION_LINES)
    if failure is not None:
        report(failure)
        return 1
    return 0


def _lines(document: Document, rows: tuple[tuple[str, str], ...]) -> None:
    column = max(len(title) for _, title in rows) + 2
    for key, title in rows:
        if key in document:
            print(f" {f'{title}:'.ljust(column)} {document[key]}")


def info(call: Call) -> int:
    """Print what the engine says of itself and its machine."""
    found = documents.mapping(call.engine.request("GET", "/info").document())
    if form := call.options.text("format"):
        print(templates.render("{{json .}}" if form == "json" else form, found))
        return 0
    shown = {
        **found,
        "MemTotal": units.human_size(documents.number(found, "MemTotal"), binary=True),
    }
    for key, title in INFO_LINES:
        if key in shown:
            print(f"{title}: {shown[key]}")
    for warning in documents.strings(found, "Warnings"):
        print(warning, file=sys.stderr)
    return 0


VERBS: dict[str, Verb] = {"info": ((FORMAT,), info), "version": ((FORMAT,), version)}
