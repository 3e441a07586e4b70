"""Where binds and volumes of a container come from: found, made when missing, opened as detached mounts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from berth.errors import Failed, InvalidArgument, MountMismatch
from berth.kernel import mounts
from berth.runtime import places
from berth.runtime.requests import Tree

if TYPE_CHECKING:
    from collections.abc import Iterable

    from berth.engine.models import MountPoint

MOUNTINFO = Path("/proc/self/mountinfo")
ESCAPED = re.compile(r"\\([0-7]{3})")  # blanks and backslashes in mountinfo
# What a mount has to be for a propagation: the tags in mountinfo, and Docker's words.
PEERS = {
    "shared": (("shared:",), "shared"),
    "rshared": (("shared:",), "shared"),
    "slave": (("shared:", "master:"), "shared or slave"),
    "rslave": (("shared:", "master:"), "shared or slave"),
}


def check(points: Iterable[MountPoint]) -> None:
    """Refuse binds whose source is missing and is not to be made."""
    for point in points:
        if point.kind == "bind" and not point.make_source:
            try:
                found = Path(point.source).exists()
            except OSError as error:
                why = (error.strerror or "").lower()
                raise InvalidArgument(
                    f'invalid mount config for type "bind": stat {point.source}: {why}'
                ) from error
            if not found:
                raise _missing(point)


def open_all(points: Iterable[MountPoint], trees: list[Tree]) -> None:
    """Open binds and volumes; each is added to ``trees``, whose owner closes them, also after a failure."""
    for point in points:
        if point.kind != "image":
            trees.append(_open(point))  # noqa: PERF401 - to be closed when the next one fails


def _open(point: MountPoint) -> Tree:
    if point.make_source:
        _make(point.source)
    if point.propagation in PEERS:
        _check_peers(point)
    try:
        if point.subpath:
            fd = places.open_below(point.source, point.subpath, recursive=point.recursive)
        else:
            fd = mounts.open_tree(point.source, recursive=point.recursive)
    except FileNotFoundError as error:
        raise _missing(point) from error
    except NotADirectoryError as error:
        why = f"stat {point.source}: not a directory"
        raise MountMismatch.of(point.source, point.target, why) from error
    read_only = point.read_only
    if read_only and not point.read_only_recursive:
        mounts.mount_setattr(fd, attr_set=mounts.MOUNT_ATTR_RDONLY)
        read_only = False  # said to the runtime it would be for the mounts below as well
    return Tree(
        fd=fd,
        target=point.target,
        read_only=read_only,
        propagation=point.propagation or "rprivate",
        source=point.source,
        stored=point.kind == "volume" and not point.from_elsewhere,
    )


def _missing(point: MountPoint) -> InvalidArgument:
    return InvalidArgument(
        f'invalid mount config for type "{point.kind}": bind source path does not exist: {point.source}'
    )


def _make(source: str) -> None:
    try:
        Path(source).mkdir(mode=0o755, parents=True)
    except (FileExistsError, NotADirectoryError):  # what is in the way is said when it is opened
        return
    except OSError as error:
        why = (error.strerror or "").lower()
        raise InvalidArgument(
            f"error while creating mount source path '{source}': mkdir {source}: {why}"
        ) from error


def _check_peers(point: MountPoint) -> None:
    """Refuse to share with a mount that shares with nobody."""
    tags, words = PEERS[point.propagation]
    place, found = mount_of(str(Path(point.source).resolve()))
    if not any(field.startswith(tags) for field in found):
        raise Failed(f"path {point.source} is mounted on {place} but it is not a {words} mount")


def mount_of(path: str) -> tuple[str, list[str]]:
    """Return where the mount is in which ``path`` is, and the optional fields of mountinfo about it."""
    best: tuple[str, list[str]] = ("/", [])
    for line in MOUNTINFO.read_bytes().decode(errors="surrogateescape").split("\n")[:-1]:
        fields = line.split(" ")
        place = ESCAPED.sub(lambda match: chr(int(match[1], 8)), fields[4])
        is_around = path == place or path.startswith(place.rstrip("/") + "/")
        if is_around and len(place) >= len(best[0]):  # a later one covers an earlier one
            best = place, fields[6 : fields.index("-")]
    return best
