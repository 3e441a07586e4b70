"""Requests for GPUs (``--gpus``), as the devices of the Container Device Interface that they stand for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from berth.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Collection

    from berth.engine.models import DeviceRequest

# The first of these kinds that is described counts: its drivers' names, and what they are asked for.
KINDS = (
    (
        "nvidia.com/gpu",
        ("nvidia", "nvidia.cdi"),
        {"gpu", "nvidia", "compute", "compat32", "graphics", "utility", "video", "display"},
    ),
    ("amd.com/gpu", ("amd",), {"gpu", "amd"}),
)
ALL = "all"
MAX_COUNT = 1024  # of devices that are named one by one


def kind_for(request: DeviceRequest, described: Collection[str]) -> str | None:
    """Return the kind of device that a request is for; None when no driver is there for it."""
    for kind, drivers, abilities in KINDS:
        if kind not in described:
            continue
        if request.driver:
            return kind if request.driver in drivers else None
        wanted = request.capabilities or []
        return kind if any(abilities.issuperset(words) for words in wanted) else None
    return None


def names(request: DeviceRequest, kind: str) -> list[str]:
    """Return the full names of the devices that are asked for."""
    ids = request.device_ids or []
    if request.count and ids:
        raise InvalidArgument("cannot set both Count and DeviceIDs on device request")
    if request.count < 0:
        ids = [ALL]
    elif request.count > 0:
        ids = [str(number) for number in range(min(request.count, MAX_COUNT))]
    return [name if "=" in name else f"{kind}={name}" for name in ids]
