"""Names for containers whose creator gave none."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container

QUALITIES = [
    "able",
    "amber",
    "brisk",
    "calm",
    "clear",
    "deft",
    "eager",
    "early",
    "fair",
    "fleet",
    "fresh",
    "gentle",
    "glad",
    "keen",
    "kind",
    "light",
    "lively",
    "lucid",
    "merry",
    "mild",
    "neat",
    "nimble",
    "noble",
    "prime",
    "proud",
    "quick",
    "quiet",
    "ready",
    "sharp",
    "sleek",
    "snug",
    "solid",
    "sound",
    "spry",
    "stout",
    "sunny",
    "swift",
    "tidy",
    "trim",
    "trusty",
    "warm",
    "wise",
]
THINGS = [
    "anchor",
    "ballast",
    "barge",
    "beacon",
    "bollard",
    "buoy",
    "capstan",
    "cargo",
    "clipper",
    "cutter",
    "deck",
    "dinghy",
    "dock",
    "ferry",
    "fender",
    "frigate",
    "galley",
    "halyard",
    "harbor",
    "hatch",
    "hawser",
    "helm",
    "hull",
    "jetty",
    "keel",
    "ketch",
    "lantern",
    "mast",
    "mooring",
    "oar",
    "pier",
    "pilot",
    "port",
    "quay",
    "rigging",
    "rudder",
    "sail",
    "schooner",
    "sextant",
    "skiff",
    "sloop",
    "spar",
    "tide",
    "tiller",
    "tug",
    "wharf",
    "winch",
    "yawl",
]


def random_name(taken: Container[str]) -> str:
    """Return a name that is not taken."""
    while True:
        name = f"{random.choice(QUALITIES)}_{random.choice(THINGS)}"  # noqa: S311 - no secret
        if name in taken:
            name += str(random.randrange(10_000))  # noqa: S311
        if name not in taken:
            return name
