"""How much the files in a directory take on disk. They may change meanwhile, or be hostile."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from berth.kernel.mounts import open_in_root

if TYPE_CHECKING:
    from pathlib import Path

BLOCK_BYTES = 512  # of st_blocks


def disk_usage(path: Path, *, since_ns: int = -1) -> int:
    """Return the bytes that the files below ``path`` take: those made or changed after ``since_ns``."""
    root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    total = 0
    folders = [""]
    try:
        while folders:
            folder = folders.pop()
            try:
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
                fd = open_in_root(root, folder, flags)
            except OSError:
                continue  # gone, replaced or too deep to name
            try:
                with os.scandir(fd) as entries:
                    for entry in entries:
                        if entry.is_dir(follow_symlinks=False):
                            folders.append(f"{folder}/{entry.name}" if folder else entry.name)
                        else:
                            total += _bytes(entry, since_ns)
            finally:
                os.close(fd)
    finally:
        os.close(root)
    return total


def _bytes(entry: os.DirEntry[str], since_ns: int) -> int:
    try:
        status = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return 0
    return status.st_blocks * BLOCK_BYTES if status.st_ctime_ns > since_ns else 0
