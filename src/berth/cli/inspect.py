"""`berth inspect`, and the output of every other inspect."""

from __future__ import annotations

import json

from berth.cli import templates
from berth.cli.call import report
from berth.client.connection import quote
from berth.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from berth.cli.call import Call
    from berth.cli.commands import Verb
    from berth.cli.options import Flag

FORMAT: Flag = ("format", "f", "string", "Format output: 'json' or a Go template")
FLAGS: tuple[Flag, ...] = (
    FORMAT,
    ("size", "s", "bool", "Display total file sizes if the type is container"),
    ("type", "", "string", "Only inspect objects of the given type"),
)
PLATFORM: Flag = ("platform", "", "string", "Inspect a specific platform (os[/arch[/variant]])")
PATHS = {
    "container": "/containers/{}/json",
    "image": "/images/{}/json",
    "network": "/networks/{}",
    "volume": "/volumes/{}",
}


def inspect(call: Call) -> int:
    """Print what the engine knows of containers, images, networks or volumes."""
    wanted = call.options.text("type")
    if wanted and wanted not in PATHS:
        kinds = ", ".join(f'"{kind}"' for kind in PATHS)
        raise NotFound(f'unknown type: "{wanted}": must be one of {kinds}')
    query = {"size": "1" if call.options.on("size") else ""}

    def look(name: str) -> object:
        for kind, path in PATHS.items():
            if wanted in ("", kind):
                try:
                    return call.engine.request("GET", path.format(quote(name)), query).document()
                except NotFound:
                    if wanted:
                        raise
        raise NotFound(f"No such object: {name}")

    return show(call, look)


def of(kind: str) -> Callable[[Call], int]:
    """Return the inspect command of one kind of thing."""

    def command(call: Call) -> int:
        size = "1" if call.options.on("size") else ""
        query = {"size": size, "platform": call.options.text("platform")}

        def look(name: str) -> object:
            return call.engine.request("GET", PATHS[kind].format(quote(name)), query).document()

        return show(call, look)

    return command


def show(call: Call, look: Callable[[str], object]) -> int:
    """Print every argument's document: a JSON list, or the template for each."""
    form = call.options.text("format")
    found, missing = [], []
    for name in call.arguments:
        try:
            found.append(look(name))
        except NotFound as error:
            missing.append(error)
    if form:
        template = "{{json .}}" if form == "json" else form
        for document in found:
            print(templates.render(template.replace("\\t", "\t"), document))
    else:
        print(json.dumps(found, indent=4, ensure_ascii=False))
    for failure in missing:
        report(failure)
    return 1 if missing else 0


VERBS: dict[str, Verb] = {
    "inspect": (FLAGS, inspect),
    "container inspect": (FLAGS[:2], of("container")),
    "image inspect": ((FORMAT, PLATFORM), of("image")),
}
