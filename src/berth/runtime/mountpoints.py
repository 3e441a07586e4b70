"""Where mounts are, as one process sees them, and where paths lead in a container: for checkpoints."""

from __future__ import annotations

import os

from berth.errors import Failed
from berth.kernel import mounts


class Point:
    """One line of mountinfo: where a mount is, what of its file system is there, and of which device."""

    __slots__ = ("device", "fstype", "path", "shown")

    def __init__(self, line: str) -> None:
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        self.device = fields[2]
        self.shown = _plain(fields[3])
        self.path = _plain(fields[4])
        self.fstype = after.split(" ")[0]


def points(pid: int | str) -> list[Point]:
    """Return the mounts that a process sees, outer ones before those upon them."""
    with open(f"/proc/{pid}/mountinfo", errors="surrogateescape", newline="\n") as file:
        return [Point(line) for line in file]


def _plain(text: str) -> str:
    """Undo how mountinfo writes what it cannot have in a field (proc_pid_mountinfo(5))."""
    for code, character in (("040", " "), ("011", "\t"), ("012", "\n"), ("134", "\\")):
        text = text.replace(f"\\{code}", character)
    return text


def resolved(root: int, path: str) -> str:
    """Return where a path leads in a container: the kernel follows its links inside its root."""
    try:
        fd = mounts.open_in_root(root, path, os.O_PATH)
    except OSError as error:
        raise Failed(f"cannot find {path} in the container: {error.strerror}") from error
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)
