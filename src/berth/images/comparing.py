"""Whether two unpacked layers are the same: a job confined to the directory that has both."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from berth.errors import Failed
from berth.kernel.mounts import open_in_root
from berth.runtime.fileattributes import RESERVED_XATTRS
from berth.runtime.worker import confine
from berth.snapshots.whiteouts import OPAQUE_XATTR, is_whiteout

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Report = Callable[[Mapping[str, object]], None]

CAPABILITIES = ("CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_SYS_ADMIN")  # trusted.* attributes
READ_BYTES = 1 << 20
SHOWN_CHARS = 200
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def compare(argument: dict[str, object], fds: list[int], report: Report) -> Mapping[str, object]:
    """Compare the directories ``one`` and ``other`` (paths below ``fds[0]``) and all that is in them.

    Returns ``difference``: the first one found, for people; "" when there is none. What a layer's archive
    does not say is not compared: times of directories and of whiteouts, and the root's attributes
    unless ``root``.
    """
    del report
    confine(fds[0], keep_capabilities=CAPABILITIES)
    trees = [os.open(str(argument[key]), _DIRECTORY) for key in ("one", "other")]
    return {"difference": Comparison(*trees).difference(root=bool(argument["root"]))}


class Comparison:
    """Two trees that nobody changes."""

    def __init__(self, one: int, other: int) -> None:
        self._one = one
        self._other = other
        # Files with several names: the first that was met, in both trees.
        self._names: tuple[dict[int, str], dict[int, str]] = ({}, {})

    def difference(self, *, root: bool) -> str:
        """Return the first difference, "" when there is none."""
        if root and (found := self._compare_entry(self._one, self._other, ".", ".")):
            return found
        folders = [""]
        while folders:
            folder = folders.pop()
            one = open_in_root(self._one, folder, _DIRECTORY)
            other = open_in_root(self._other, folder, _DIRECTORY)
            try:
                found = self._compare_folder(one, other, folder, folders)
            finally:
                os.close(one)
                os.close(other)
            if found:
                return found
        return ""

    def _compare_folder(self, one: int, other: int, folder: str, folders: list[str]) -> str:
        names, there = sorted(os.listdir(one)), set(os.listdir(other))
        if surplus := there.difference(names):
            return f"{_shown(folder, min(surplus))} is not in the layer"
        for name in names:
            path = f"{folder}/{name}" if folder else name
            if name not in there:
                return f"{_shown(folder, name)} is missing"
            if found := self._compare_entry(one, other, name, path):
                return found
            if stat.S_ISDIR(os.stat(name, dir_fd=one, follow_symlinks=False).st_mode):
                folders.append(path)
        return ""

    def _compare_entry(self, one: int, other: int, name: str, path: str) -> str:
        first, second = (os.stat(name, dir_fd=fd, follow_symlinks=False) for fd in (one, other))
        different = what_differs(first, second) or self._links_differ(first, second, path)
        if not different and _attributes(one, name) != _attributes(other, name):
            different = "extended attributes"
        if not different and stat.S_ISLNK(first.st_mode):
            same = os.readlink(name, dir_fd=one) == os.readlink(name, dir_fd=other)
            different = "" if same else "target"
        if not different and stat.S_ISREG(first.st_mode):
            different = "" if same_content(one, other, name) else "content"
        return f"{_shown('', path)} has another {different}" if different else ""

    def _links_differ(self, first: os.stat_result, second: os.stat_result, path: str) -> str:
        if stat.S_ISDIR(first.st_mode) or first.st_nlink == 1 == second.st_nlink:
            return ""
        known = [
            names.setdefault(status.st_ino, path)
            for names, status in zip(self._names, (first, second), strict=True)
        ]
        return "hard link" if known[0] != known[1] else ""


def what_differs(first: os.stat_result, second: os.stat_result) -> str:
    """Return in what two files differ by their status, "" when in nothing that counts."""
    if stat.S_IFMT(first.st_mode) != stat.S_IFMT(second.st_mode):
        return "type"
    if first.st_mode != second.st_mode:
        return "mode"
    if (first.st_uid, first.st_gid) != (second.st_uid, second.st_gid):
        return "owner"
    if first.st_rdev != second.st_rdev:
        return "device number"
    if stat.S_ISDIR(first.st_mode) or is_whiteout(first):
        return ""
    if first.st_size != second.st_size:
        return "size"
    return "time" if first.st_mtime_ns != second.st_mtime_ns else ""


def same_content(one: int, other: int, name: str) -> bool:
    """Say whether the regular files ``name`` in two directories have the same bytes."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    files = [os.open(name, flags, dir_fd=fd) for fd in (one, other)]
    try:
        while True:
            pieces = [os.read(fd, READ_BYTES) for fd in files]
            if pieces[0] != pieces[1]:
                return False
            if not pieces[0]:
                return True
    except OSError as error:
        raise Failed(f"read {name[:SHOWN_CHARS]!r}: {error.strerror}") from error
    finally:
        for fd in files:
            os.close(fd)


def _attributes(folder: int, name: str) -> dict[str, bytes]:
    os.fchdir(folder)  # there is no call that takes a directory and a name
    names = [key for key in sorted(os.listxattr(name, follow_symlinks=False)) if counts(key)]
    return {key: os.getxattr(name, key, follow_symlinks=False) for key in names}


def counts(key: str) -> bool:
    """Say whether an attribute is one of the layer's: overlayfs leaves notes of its own in trees it made."""
    return key == OPAQUE_XATTR or not key.startswith(RESERVED_XATTRS)


def _shown(folder: str, name: str) -> str:
    return repr(f"{folder}/{name}" if folder else name)[:SHOWN_CHARS]
