"""The groups that a joining process enters: the container's, or some below them by controller."""

from __future__ import annotations

import os

from berth.bundle.status import group
from berth.errors import Failed, InvalidArgument
from berth.kernel import cgroup_files
from berth.kernel.cgroups import Cgroup, Hierarchies

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.bundle.records import Record
    from berth.kernel.cgroups import Hierarchy

    Places = list[tuple[Hierarchy, str]]


def places(record: Record, below: list[str]) -> Places:
    """Return the path in each hierarchy; ``below`` is "PATH" or "CONTROLLER,...:PATH" any number of times."""
    groups = group(record)
    if groups is None:
        return []
    found = {hierarchy.fd: groups.path for hierarchy in groups.hierarchies.found}
    for text in below:
        controllers, colon, path = text.rpartition(":")
        wanted = _under(groups.path, path)
        if not colon:
            found = dict.fromkeys(found, wanted)
        for controller in controllers.split(",") if colon else ():
            hierarchy = groups.hierarchies.of(controller)
            if hierarchy is None:
                raise InvalidArgument(f"unknown controller {controller} in --cgroup {text}")
            found[hierarchy.fd] = wanted
    return [(hierarchy, found[hierarchy.fd]) for hierarchy in groups.hierarchies.found]


def _under(group_: str, path: str) -> str:
    wanted = os.path.normpath(f"{group_}/{path}")
    if wanted != group_ and not wanted.startswith(f"{group_}/"):
        raise InvalidArgument(f"bad sub cgroup path: {path} is not a sub cgroup path")
    return wanted


def enter(chosen: Places) -> None:
    """Move the calling, single-threaded process into them."""
    for hierarchy, path in chosen:
        if not cgroup_files.is_there(hierarchy.fd, path):
            raise Failed(
                f"adding pid {os.getpid()} to cgroups: {path}/cgroup.procs: no such file or directory"
            )
        Cgroup(Hierarchies([hierarchy]), path).enter()
