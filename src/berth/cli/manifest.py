"""`berth manifest`: images for several platforms, put together in a registry.

What is being put together is kept in ``berth-manifests.json`` beside the command line's configuration.
"""

from __future__ import annotations

import binascii
import json
import os

from berth.cli import credentials, tables, units
from berth.client import documents
from berth.client.connection import quote
from berth.errors import InvalidArgument, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.cli.call import Call
    from berth.cli.commands import Verb
    from berth.cli.options import Flag
    from berth.client.documents import Document

    Lists = dict[str, dict[str, dict[str, str]]]  # by name, by part: what was said of its platform

AMEND: Flag = ("amend", "a", "bool", "Amend an existing manifest list")
PURGE: Flag = ("purge", "p", "bool", "Remove the local manifest list after push")
VERBOSE: Flag = ("verbose", "v", "bool", "Output additional info including the descriptor")
ANNOTATIONS: tuple[Flag, ...] = (
    ("arch", "", "string", "Set architecture"),
    ("os", "", "string", "Set operating system"),
    ("variant", "", "string", "Set architecture variant"),
)
REFERRERS: tuple[Flag, ...] = (
    ("artifact-type", "", "string", "Only artifacts of this type"),
    ("format", "", "string", "Format output: 'table', 'table TEMPLATE', 'json' or a Go template"),
)
INSECURE: Flag = (
    "insecure",
    "",
    "bool",
    "Taken for docker's sake: the engine knows who is insecure",
)


def _path() -> str:
    return os.path.join(os.path.dirname(credentials.path()), "berth-manifests.json")


def _read() -> Lists:
    try:
        with open(_path(), encoding="utf-8") as file:
            found: Lists = json.load(file)
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise InvalidArgument(f"read {_path()}: {error}") from None
    return found


def _write(lists: Lists) -> None:
    os.makedirs(os.path.dirname(_path()), mode=0o700, exist_ok=True)
    partial = f"{_path()}.{os.getpid()}.part"
    with open(partial, "x", encoding="utf-8") as file:
        json.dump(lists, file, indent="\t")
    os.rename(partial, _path())


def _list(lists: Lists, name: str) -> dict[str, dict[str, str]]:
    if name not in lists:
        raise NotFound(f"No such manifest: {name}")
    return lists[name]


def inspect(call: Call) -> int:
    """Print a manifest or index as a registry has it."""
    name = call.arguments[-1]
    answer = call.engine.request(
        "GET", f"/distribution/{quote(name)}/raw", headers=credentials.headers(name)
    ).document()
    data = binascii.a2b_base64(documents.text(answer, "Manifest"))
    shown = json.loads(data)
    if call.options.on("verbose"):
        shown = {
            "Ref": name,
            "Descriptor": documents.field(answer, "Descriptor"),
            "Manifest": shown,
        }
    print(json.dumps(shown, indent=3, ensure_ascii=False))
    return 0


def referrers(call: Call) -> int:
    """List what refers to an image in its registry: its type, digest and size."""
    (name,) = call.arguments
    answer = call.engine.request(
        "GET",
        f"/distribution/{quote(name)}/referrers",
        {"artifactType": call.options.text("artifact-type")},
        headers=credentials.headers(name),
    ).document()
    rows: list[Document] = [
        {
            "Type": documents.text(item, "artifactType"),
            "Digest": documents.text(item, "digest"),
            "Size": units.human_size(documents.number(item, "size")),
            "Annotations": documents.field(item, "annotations") or {},
        }
        for item in documents.items(answer, "Referrers")
    ]
    columns = (("Type", "ARTIFACT TYPE"), ("Digest", "DIGEST"), ("Size", "SIZE"))
    if text := tables.show(rows, columns, form=call.options.text("format")):
        print(text)
    return 0


def create(call: Call) -> int:
    """Begin a list, or add to one; nothing is sent."""
    name, *parts = call.arguments
    lists = _read()
    if name in lists and not call.options.on("amend"):
        raise InvalidArgument("refusing to amend an existing manifest list with no --amend flag")
    known = lists.setdefault(name, {})
    for part in parts:
        known.setdefault(part, {})
    _write(lists)
    print(f"Created manifest list {name}")
    return 0


def annotate(call: Call) -> int:
    """Say for which platform a part is."""
    name, part = call.arguments
    lists = _read()
    entry = _list(lists, name).get(part)
    if entry is None:
        raise NotFound(f"manifest for image {part} does not exist in {name}")
    for key, field in (("arch", "architecture"), ("os", "os"), ("variant", "variant")):
        if text := call.options.text(key):
            entry[field] = text
    _write(lists)
    return 0


def push(call: Call) -> int:
    """Make the list a name in its registry; print the digest."""
    (name,) = call.arguments
    lists = _read()
    manifests = [
        {"Ref": part, "Platform": platform or None} for part, platform in _list(lists, name).items()
    ]
    answer = call.engine.request(
        "POST",
        f"/distribution/{quote(name)}/index",
        body={"Manifests": manifests},
        headers=credentials.headers(name),
    ).document()
    print(documents.text(answer, "Digest"))
    if call.options.on("purge"):
        del lists[name]
        _write(lists)
    return 0


def remove(call: Call) -> int:
    """Forget lists; what was pushed stays."""

    def act(name: str) -> str:
        lists = _read()
        _list(lists, name)
        del lists[name]
        _write(lists)
        return ""

    return call.each(act)


VERBS: dict[str, Verb] = {
    "manifest inspect": ((VERBOSE, INSECURE), inspect),
    "manifest referrers": (REFERRERS, referrers),
    "manifest create": ((AMEND, INSECURE), create),
    "manifest annotate": (ANNOTATIONS, annotate),
    "manifest push": ((PURGE, INSECURE), push),
    "manifest rm": ((), remove),
}
