"""`berth checkpoint create`, `ls` and `rm`."""

from __future__ import annotations

from berth.cli import tables
from berth.client import documents
from berth.client.connection import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.cli.call import Call
    from berth.cli.commands import Verb
    from berth.cli.options import Flag
    from berth.client.documents import Document

FOLDER: Flag = ("checkpoint-dir", "", "string", "Use a custom checkpoint storage directory")
CREATE_FLAGS: tuple[Flag, ...] = (
    FOLDER,
    ("leave-running", "", "bool", "Leave the container running after checkpoint"),
)
COLUMNS = (("Name", "CHECKPOINT NAME"),)


def create(call: Call) -> int:
    """Make a checkpoint and print its name."""
    container, name = call.arguments
    body: Document = {
        "CheckpointID": name,
        "CheckpointDir": call.options.text(FOLDER[0]),
        "Exit": not call.options.on("leave-running"),
    }
    call.engine.request("POST", _path(container), body=body).read()
    print(name)
    return 0


def checkpoints(call: Call) -> int:
    """List a container's checkpoints."""
    answer = call.engine.request("GET", _path(call.arguments[0]), _query(call)).document()
    rows: list[Document] = [
        {"Name": documents.text(item, "Name")} for item in documents.items(answer)
    ]
    print(tables.show(rows, COLUMNS, form=""))
    return 0


def remove(call: Call) -> int:
    """Remove a checkpoint."""
    container, name = call.arguments
    call.engine.request("DELETE", f"{_path(container)}/{quote(name)}", _query(call)).read()
    return 0


def _path(container: str) -> str:
    return f"/containers/{quote(container)}/checkpoints"


def _query(call: Call) -> dict[str, str]:
    return {"dir": call.options.text(FOLDER[0])}


VERBS: dict[str, Verb] = {
    "checkpoint create": (CREATE_FLAGS, create),
    "checkpoint ls": ((FOLDER,), checkpoints),
    "checkpoint rm": ((FOLDER,), remove),
}
