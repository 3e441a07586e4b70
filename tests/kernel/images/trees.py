"""Trees on disk, described so that two of them can be compared."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path


def describe(root):
    """Return what each path below ``root`` is, and which are hard links of each other."""
    found = {}
    links = {}
    for folder, folders, files in os.walk(root):
        for name in [".", *folders, *files]:
            path = os.path.normpath(os.path.join(folder, name))
            relative = os.path.relpath(path, root)
            if relative not in found:
                found[relative] = entry(path)
                links.setdefault(os.lstat(path).st_ino, []).append(relative)
    return found, sorted(tuple(sorted(names)) for names in links.values() if len(names) > 1)


def entry(path):
    status = os.lstat(path)
    attributes = {
        name: os.getxattr(path, name, follow_symlinks=False)
        for name in os.listxattr(path, follow_symlinks=False)
    }
    content = None
    if stat.S_ISREG(status.st_mode):
        content = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    elif stat.S_ISLNK(status.st_mode):
        content = os.readlink(path)
    return (
        oct(status.st_mode),
        status.st_uid,
        status.st_gid,
        status.st_mtime_ns,
        status.st_rdev,
        content,
        attributes,
    )
