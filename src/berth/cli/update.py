"""`berth update`."""

from __future__ import annotations

from berth.cli import container_flags, container_request
from berth.cli.container_request import RESOURCES
from berth.client import documents
from berth.client.connection import quote
from berth.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.cli.call import Call
    from berth.cli.commands import Verb
    from berth.cli.options import Flag
    from berth.client.documents import Document

TEXTS = (("cpuset-cpus", "CpusetCpus"), ("cpuset-mems", "CpusetMems"))
NAMES = (*(flag for flag, _ in RESOURCES), *(flag for flag, _ in TEXTS), "restart")
FLAGS: tuple[Flag, ...] = tuple(flag for flag in container_flags.CREATE if flag[0] in NAMES)


def update(call: Call) -> int:
    """Change limits and the restart policy of containers."""
    options = call.options
    if not any(options.given(name) for name in NAMES):
        raise InvalidArgument("you must provide one or more flags when using this command")
    body: Document = {name: options.number(flag) for flag, name in RESOURCES if options.given(flag)}
    body |= {name: options.text(flag) for flag, name in TEXTS if options.given(flag)}
    container_request.restart(options, body)
    warnings: list[str] = []

    def act(container: str) -> str:
        path = f"/containers/{quote(container)}/update"
        answer = call.engine.request("POST", path, body=body).document()
        warnings.extend(documents.strings(answer, "Warnings"))
        return container

    status = call.each(act)
    if warnings:
        print("\n".join(warnings))
    return status


VERBS: dict[str, Verb] = {"update": (FLAGS, update)}
