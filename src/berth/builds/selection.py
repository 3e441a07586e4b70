"""What COPY and ADD name in a directory: found below it, and hashed. In a worker.

Links are followed as a process would that has the directory for its root, so none leads out of it.
"""

from __future__ import annotations

import hashlib
import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from berth.dockerfile import ignore
from berth.errors import Failed, InvalidArgument, NotFound
from berth.images.pack import GONE
from berth.kernel.mounts import open_in_root
from berth.runtime import fileattributes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

WILDCARDS = "*?["
READ_BYTES = 1 << 20
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY


class Selected(NamedTuple):
    """A file or directory that is to be copied; the path is as it was asked for, below the root."""

    path: str
    is_folder: bool


def select(root: int, patterns: Sequence[str], excludes: ignore.Patterns) -> list[Selected]:
    """Return what the patterns name; NotFound and InvalidArgument in Docker's words."""
    found: list[Selected] = []
    for pattern in patterns:
        path = ignore.clean(pattern.lstrip("/"))
        if path == ".." or path.startswith("../"):
            raise InvalidArgument(f"Forbidden path outside the build context: {pattern} ()")
        path = "" if path == "." else path
        if has_wildcards(path):
            found += _matching(root, path, excludes)
        else:
            found.append(_named(root, unescaped(path), pattern))
    if not found:
        raise NotFound("no source files were specified")
    return found


def pivot(pattern: str) -> int:
    """Return how many directories of what a pattern names are not kept by --parents: those before ``/./``."""
    before, found, _ = pattern.partition("/./")
    return len(ignore.clean(before.lstrip("/")).split("/")) if found and before.strip("/") else 0


def outermost(found: Sequence[Selected]) -> list[Selected]:
    """Return what was selected without what lies in directories that were selected as well."""
    folders = {one.path for one in found if one.is_folder}
    kept = {}
    for one in found:
        parts = one.path.split("/")
        if not any("/".join(parts[:depth]) in folders for depth in range(1, len(parts))):
            kept[one.path] = one
    return list(kept.values())


def has_wildcards(path: str) -> bool:
    """Say whether a path is a pattern."""
    plain = path.replace("\\\\", "")
    return any(letter in plain.replace(f"\\{letter}", "") for letter in WILDCARDS)


def unescaped(path: str) -> str:
    """Return a path that is no pattern without the characters that say so."""
    for letter in WILDCARDS:
        path = path.replace(f"\\{letter}", letter)
    return path


def _named(root: int, path: str, asked: str) -> Selected:
    try:
        fd = open_in_root(root, path, os.O_PATH)
    except OSError as error:
        if error.errno not in GONE:
            raise Failed(f"stat {asked}: {(error.strerror or '').lower()}") from error
        raise NotFound(
            f"file not found in build context or excluded by .dockerignore: stat {asked}: file does"
            " not exist"
        ) from error
    try:
        return Selected(path, stat.S_ISDIR(os.fstat(fd).st_mode))
    finally:
        os.close(fd)


def _matching(root: int, pattern: str, excludes: ignore.Patterns) -> Iterator[Selected]:
    rule = ignore.expression(pattern)
    depth = pattern.count("/")
    for path, status in walk(root, "", depth=None if "**" in pattern else depth):
        if not rule.fullmatch(path) or excludes.excludes(path):
            continue
        if stat.S_ISLNK(status.st_mode):
            yield _named(root, path, path)
        else:
            yield Selected(path, stat.S_ISDIR(status.st_mode))


def walk(
    root: int, folder: str, *, depth: int | None = None
) -> Iterator[tuple[str, os.stat_result]]:
    """Yield everything below a directory, by name; paths are relative to it. ``depth``: how far down."""
    pending = [""]
    while pending:
        inner = pending.pop()
        flags = DIRECTORY | (os.O_NOFOLLOW if inner else 0)
        fd = open_in_root(root, joined(folder, inner), flags)
        try:
            names = sorted(os.listdir(fd))
            entries = [
                (joined(inner, name), os.stat(name, dir_fd=fd, follow_symlinks=False))
                for name in names
            ]
        finally:
            os.close(fd)
        yield from entries
        deeper = [path for path, status in entries if stat.S_ISDIR(status.st_mode)]
        if depth is None or inner.count("/") + bool(inner) < depth:
            pending += reversed(deeper)


def joined(folder: str, name: str) -> str:
    """Return the path of ``name`` in ``folder``; either may be empty."""
    return f"{folder}/{name}".strip("/")


# Hashes: of what Docker's classic builder looks at, which is all but times.


def digest(
    root: int, selected: Sequence[Selected], excludes: ignore.Patterns, *, parents: bool = False
) -> str:
    """Return one hash of everything that is selected, with a word for what it is.

    ``parents``: where it is counts as well.
    """
    found = [_digest_one(root, one, excludes) + f":{one.path}" * parents for one in selected]
    if parents:
        return f"multi:{_together(found)}"
    return found[0] if len(found) == 1 else f"multi:{_together(found)}"


def _together(digests: Sequence[str]) -> str:
    return hashlib.sha256(",".join(digests).encode()).hexdigest()


def _digest_one(root: int, one: Selected, excludes: ignore.Patterns) -> str:
    if not one.is_folder:
        return f"file:{_digest_file(root, one.path, os.path.basename(one.path), follow=True)}"
    found = [
        _digest_file(root, joined(one.path, path), path)
        for path, _ in walk(root, one.path)
        if not excludes.excludes(joined(one.path, path))
    ]
    return f"dir:{_together(sorted(found))}"


def _digest_file(root: int, path: str, name: str, *, follow: bool = False) -> str:
    flags = 0 if follow else os.O_NOFOLLOW
    fd = open_in_root(root, path, os.O_PATH | flags)
    try:
        status = os.fstat(fd)
        link = os.readlink("", dir_fd=fd) if stat.S_ISLNK(status.st_mode) else ""
    finally:
        os.close(fd)
    is_file = stat.S_ISREG(status.st_mode)
    size = status.st_size if is_file else 0
    device = status.st_rdev if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode) else 0
    facts = (name, status.st_mode, size, link, device)
    result = hashlib.sha256(os.fsencode("\0".join(map(str, facts)) + "\0"))
    if is_file:
        fd = open_in_root(root, path, os.O_RDONLY | os.O_NONBLOCK | flags)
        try:
            while data := os.read(fd, READ_BYTES):
                result.update(data)
            for key, value in sorted(fileattributes.read(fd).items()):
                result.update(os.fsencode(f"{key}\0{len(value)}\0") + value)
        finally:
            os.close(fd)
    return result.hexdigest()
