"""Pull an image and show the engine's progress messages."""

from __future__ import annotations

from berth.cli import credentials
from berth.client import documents
from berth.errors import Failed, InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TextIO

    from berth.client.connection import Connection


def split(reference: str) -> tuple[str, str]:
    """Return a reference's name and its tag or digest, "latest" if there is none."""
    name, at, digest = reference.partition("@")
    if at:
        return name, digest
    head, colon, tag = reference.rpartition(":")
    if colon and "/" not in tag:
        return head, tag
    return reference, "latest"


def canonical(name: str) -> str:
    """Return a name with the registry that it is of, as the docker CLI ends a pull with."""
    first, slash, _ = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return name
    return f"docker.io/{name}" if slash else f"docker.io/library/{name}"


def pull(
    engine: Connection,
    reference: str,
    more: Mapping[str, str],
    *,
    output: TextIO | None = None,
) -> str:
    """Pull; return the name that was pulled. ``more`` is the query's, progress goes to ``output``."""
    name, tag = split(reference)
    if not name:
        raise InvalidArgument("invalid reference format")
    query = {"fromImage": name, "tag": tag, **more}
    answer = engine.request("POST", "/images/create", query, headers=credentials.headers(name))
    progress(answer.lines(), output)
    return canonical(f"{name}@{tag}" if ":" in tag else f"{name}:{tag}")


def progress(messages: object, output: TextIO | None) -> None:
    """Show messages as they come: in place on a terminal, else each change of status as a line."""
    places: list[str] = []
    said: dict[str, str] = {}
    moving = output is not None and output.isatty()
    assert hasattr(messages, "__iter__")
    for message in messages:
        if error := documents.text(message, "error"):
            raise Failed(error)
        if output is None:
            continue
        item, status = documents.text(message, "id"), documents.text(message, "status")
        text = status or documents.text(message, "stream").rstrip("\n")
        bar = documents.text(message, "progress")
        if not item:
            print(text, file=output, flush=True)
        elif moving:
            _in_place(places, item, f"{item}: {status} {bar}".rstrip(), output)
        elif not bar and said.get(item) != status:
            said[item] = status
            print(f"{item}: {status}", file=output, flush=True)


def _in_place(places: list[str], item: str, line: str, output: TextIO) -> None:
    """Rewrite the item's line; a new item gets a new line at the end."""
    if item not in places:
        places.append(item)
        print(line, file=output, flush=True)
        return
    up = len(places) - places.index(item)
    print(f"\x1b[{up}A\x1b[2K\r{line}\x1b[{up}B\r", end="", file=output, flush=True)
