"""Ids in a user namespace and on the host, by the maps of a spec."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from berth.oci.runtime_spec import IdMapping


def id_map(table: Sequence[IdMapping]) -> str:
    """Return a map as /proc/PID/uid_map takes it."""
    return "\n".join(f"{row['containerID']} {row['hostID']} {row['size']}" for row in table)


def on_host(id_: int, table: Sequence[IdMapping]) -> int:
    """Return what the host calls an id; one that the map lacks is left as it is, and is nobody's inside."""
    for row in table:
        first = row["containerID"]
        if first <= id_ < first + row["size"]:
            return row["hostID"] + id_ - first
    return id_
