"""Removing a directory tree that strangers filled.

Trees of any depth, with a constant number of descriptors and no recursion: directories below the first
level are moved up before they are emptied. Symbolic links are never followed.
"""

from __future__ import annotations

import os
import secrets

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(name: str, *, dir_fd: int | None = None) -> None:
    """Remove the directory ``name`` and everything in it; nothing when it is missing."""
    try:
        top = os.open(name, _DIRECTORY, dir_fd=dir_fd)
    except FileNotFoundError:
        return
    prefix = f".{secrets.token_hex(8)}-"
    moved = 0
    try:
        while names := os.listdir(top):
            for entry in names:
                moved = _remove_entry(top, entry, prefix, moved)
    finally:
        os.close(top)
    os.rmdir(name, dir_fd=dir_fd)


def _remove_entry(top: int, name: str, prefix: str, moved: int) -> int:
    """Remove one entry of ``top``; its directories come up to ``top``. Returns how many have so far."""
    try:
        os.unlink(name, dir_fd=top)
    except IsADirectoryError:
        folder = os.open(name, _DIRECTORY, dir_fd=top)
    else:
        return moved
    try:
        with os.scandir(folder) as listing:
            entries = list(listing)
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                moved += 1
                os.rename(entry.name, f"{prefix}{moved}", src_dir_fd=folder, dst_dir_fd=top)
            else:
                os.unlink(entry.name, dir_fd=folder)
    finally:
        os.close(folder)
    os.rmdir(name, dir_fd=top)
    return moved
