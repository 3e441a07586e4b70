"""`berth system check`: whether what the engine has stored is whole."""

from __future__ import annotations

import json

from berth.client import documents

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.cli.call import Call
    from berth.cli.commands import Verb
    from berth.cli.options import Flag

FLAGS: tuple[Flag, ...] = (
    ("format", "", "string", "Format output: 'json'"),
    ("repair", "", "bool", "Remove what is broken, and unpack layers again"),
)


def check(call: Call) -> int:
    """Print every problem; 1 when one is left."""
    query = {"repair": "1"} if call.options.on("repair") else {}
    answer = call.engine.request("POST", "/system/check", query).document()
    problems = documents.items(answer, "Problems")
    left = [found for found in problems if not documents.text(found, "Repair")]
    if call.options.text("format") == "json":
        print(json.dumps(answer))
        return 1 if left else 0
    for found in problems:
        repair = documents.text(found, "Repair")
        text = f"{documents.text(found, 'What')}: {documents.text(found, 'Problem')}"
        print(f"{text}: {repair}" if repair else text)
    counts = [documents.number(answer, key) for key in ("Blobs", "Images", "Layers")]
    outcome = "no problems" if not problems else f"{len(problems)} found, {len(left)} left"
    print("Checked {} blobs, {} images, {} layers: {}".format(*counts, outcome))
    if left and not query:
        print("Run 'berth system check --repair' to remove what is broken")
    return 1 if left else 0


VERBS: dict[str, Verb] = {"system check": (FLAGS, check)}
