"""`berth cp`: files between a container and this machine, or an archive on stdin or stdout.

The rules for names are Docker's: what is copied into a directory that exists keeps its name, else it
becomes what the destination is called; ``/.`` means what is in a directory.
"""

from __future__ import annotations

import binascii
import os
import sys

from berth.cli import session, units
from berth.cli.localfiles import Place, extract, local_source, pack, pieces, piped, resolve
from berth.client import documents
from berth.client.connection import quote
from berth.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from berth.cli.call import Call
    from berth.cli.commands import Verb
    from berth.cli.options import Flag
    from berth.client.connection import Response

FLAGS: tuple[Flag, ...] = (
    ("archive", "a", "bool", "Archive mode (copy all uid/gid information)"),
    ("follow-link", "L", "bool", "Always follow symbol link in SRC_PATH"),
    ("quiet", "q", "bool", "Suppress progress output during copy"),
)
STAT_HEADER = "x-docker-container-path-stat"
# Bits of Go's file modes, as the engine tells them.
FOLDER, LINK, DEVICE = 1 << 31, 1 << 27, 1 << 26


def copy(call: Call) -> int:
    """Copy in the one direction or the other."""
    source, target = call.arguments
    if not source:
        raise InvalidArgument("source can not be empty")
    if not target:
        raise InvalidArgument("destination can not be empty")
    origin, path = split(source)
    goal, place = split(target)
    if origin and goal:
        raise InvalidArgument("copying between containers is not supported")
    if not origin and not goal:
        raise InvalidArgument("must specify at least one container source")
    count = _out(call, origin, path, place) if origin else _into(call, path, goal, place)
    if sys.stdout.isatty() and "-" not in (source, target) and not call.options.on("quiet"):
        shown = target if goal else os.path.abspath(place)
        print(
            f"Successfully copied {units.human_size(count, digits=4)} to {shown}", file=sys.stderr
        )
    return 0


def split(argument: str) -> tuple[str, str]:
    """Return the container ("" for this machine) and the path of an argument."""
    container, colon, path = argument.partition(":")
    if argument.startswith("/") or not colon or container.startswith("."):
        return "", argument
    return container, path


def _look(call: Call, container: str, path: str) -> object:
    """Return what a path in a container is, None when the engine does not say."""
    answer = call.engine.look(f"/containers/{quote(container)}/archive", {"path": path})
    if answer.status != 200:
        return None
    return _told(answer)


def _told(answer: Response) -> object:
    return documents.decode(binascii.a2b_base64(answer.headers.get(STAT_HEADER, "")))


def _mode(found: object) -> int:
    return documents.number(found, "mode")


# Out of a container


def _out(call: Call, container: str, path: str, target: str) -> int:
    rebased = ""
    if target != "-":
        _check_output(target)
    if call.options.on("follow-link"):
        found = _look(call, container, path)
        link = documents.text(found, "linkTarget")
        if _mode(found) & LINK and link:
            rebased, path = rebase_name(path, link)
    query = {"path": path}
    answer = call.engine.request("GET", f"/containers/{quote(container)}/archive", query)
    if target == "-":
        session.write_out("", answer.chunks())
        return 0
    is_folder = bool(_mode(_told(answer)) & FOLDER)
    source = Place(path, exists=True, is_folder=is_folder, rebased=rebased)
    folder, new = arrange(source, resolve(target))
    old = base_of(path).strip("/")  # nothing of a root: its names begin with the slash
    return extract(answer.chunks(), folder, old=old if new else "", new=new)


def _check_output(path: str) -> None:
    """Refuse destinations on this machine that cannot be written to, in Docker's words."""
    cleaned = os.path.normpath(path)
    folder = os.path.dirname(cleaned)
    if folder and not os.path.exists(folder):
        raise InvalidArgument(f'invalid output path: directory "{folder}" does not exist')
    if os.path.exists(cleaned) and not (os.path.isdir(cleaned) or os.path.isfile(cleaned)):
        raise InvalidArgument(
            f'invalid output path: "{path}" must be a directory or a regular file'
        )


# Into a container


def _into(call: Call, path: str, container: str, target: str) -> int:
    found = _look(call, container, target)
    where = target
    if found is not None and _mode(found) & LINK:
        link = documents.text(found, "linkTarget")
        where = link if link.startswith("/") else f"{os.path.dirname(target)}/{link}"
        found = _look(call, container, where)
    if _mode(found) & DEVICE:
        raise InvalidArgument(
            f'destination "{container}:{target}" must be a directory or a regular file: got a device'
        )
    goal = Place(where, exists=found is not None, is_folder=bool(_mode(found) & FOLDER))
    counted = Counter()
    if path == "-":
        if not goal.is_folder:
            raise InvalidArgument(f'destination "{container}:{target}" must be a directory')
        data, where = counted.of(pieces(0)), goal.path
    else:
        source = local_source(path, follow=call.options.on("follow-link"))
        where, new = arrange(source, goal)
        data = counted.of(packed(source, new))
    query = {"path": where, "noOverwriteDirNonDir": "true"}
    if call.options.on("archive"):
        query["copyUIDGID"] = "true"
    call.engine.request("PUT", f"/containers/{quote(container)}/archive", query, data=data).read()
    return counted.bytes


class Counter:
    """Counts the bytes that pass."""

    def __init__(self) -> None:
        self.bytes = 0

    def of(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """Give the pieces."""
        for piece in pieces:
            self.bytes += len(piece)
            yield piece


def packed(source: Place, new: str) -> Iterator[bytes]:
    """Give an archive of a file or directory; named ``new`` if said."""
    return piped(lambda fd: pack(source, new, fd))


# Names


def base_of(path: str) -> str:
    """Return a path's last part: "." when it ends with "/.", "/" for the root."""
    if path.rpartition("/")[2] in (".", ""):
        cleaned = os.path.normpath(path)
        return "." if path.rpartition("/")[2] == "." else os.path.basename(cleaned) or "/"
    return os.path.basename(os.path.normpath(path))


def folder_of(path: str) -> str:
    """Return the directory that a path is in; of "x/." that is x."""
    if path.rpartition("/")[2] == ".":
        return os.path.normpath(path)
    return os.path.dirname(os.path.normpath(path)) or "."


def rebase_name(path: str, link: str) -> tuple[str, str]:
    """Return what a link's target becomes ("" for its own name), and the path to be copied."""
    current = path.rpartition("/")[2] == "."
    slash = path.endswith("/")
    resolved = link + ("/." if current else "/" if slash else "")
    rebased = "" if os.path.basename(path) == os.path.basename(resolved) else base_of(path)
    return rebased if not current else "", resolved


def arrange(source: Place, goal: Place) -> tuple[str, str]:
    """Return the directory to extract in, and what the source is called there ("" for its own name)."""
    if goal.exists and goal.is_folder:
        return goal.path, source.rebased
    if goal.exists and source.is_folder:
        raise InvalidArgument("cannot copy directory")
    ends_as_folder = goal.path.endswith(("/", "/.")) or goal.path == "."
    if not goal.exists and not source.is_folder and ends_as_folder:
        raise InvalidArgument("no such directory")
    return folder_of(goal.path), base_of(goal.path)


VERBS: dict[str, Verb] = {"cp": (FLAGS, copy)}
