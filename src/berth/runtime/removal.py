"""Removing a directory tree that strangers filled.

Trees of any depth and width, with a bounded number of descriptors and calls, and little memory: directories
too far down are moved up to the top before they are emptied. Symbolic links are never followed.
"""

from __future__ import annotations

import os

MAX_DEPTH = 32
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(name: str, *, dir_fd: int | None = None) -> None:
    """Remove the directory ``name`` and everything in it; nothing when it is missing."""
    try:
        top = os.open(name, _DIRECTORY, dir_fd=dir_fd)
    except FileNotFoundError:
        return
    try:
        emptying = _Emptying(top)
        while emptying.has_more:
            emptying.run()
    finally:
        os.close(top)
    os.rmdir(name, dir_fd=dir_fd)


class _Emptying:
    """Empties one directory, in rounds: each moves up what lies too deep for it."""

    def __init__(self, top: int) -> None:
        self._top = top
        self._prefix = f".{os.urandom(8).hex()}-"
        self._moved = 0
        self.has_more = True

    def run(self) -> None:
        """Remove all that is not too deep."""
        self.has_more = False
        self._empty(self._top, 0)

    def _empty(self, folder: int, depth: int) -> None:
        """Remove what is in a directory while it is listed: there may be millions."""
        with os.scandir(folder) as listing:
            for entry in listing:
                if not entry.is_dir(follow_symlinks=False):
                    os.unlink(entry.name, dir_fd=folder)
                elif depth == MAX_DEPTH:
                    self._move_up(entry.name, folder)
                else:
                    self._remove(entry.name, folder, depth + 1)

    def _remove(self, name: str, folder: int, depth: int) -> None:
        below = os.open(name, _DIRECTORY, dir_fd=folder)
        try:
            self._empty(below, depth)
        finally:
            os.close(below)
        os.rmdir(name, dir_fd=folder)

    def _move_up(self, name: str, folder: int) -> None:
        self._moved += 1
        self.has_more = True
        os.rename(name, f"{self._prefix}{self._moved}", src_dir_fd=folder, dst_dir_fd=self._top)
