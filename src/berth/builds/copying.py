"""COPY and ADD, in a worker whose root is that of the image being made. No container is started.

What is copied lies below a directory that the worker has opened: the context, or the root of another image.
Both sides are resolved by the kernel, each inside its own root.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, cast

from berth.builds import contextwork, selection
from berth.builds.selection import joined
from berth.dockerfile import ignore
from berth.dockerfile.modes import Mode
from berth.errors import BerthError, Failed, InvalidArgument
from berth.files import differences, roots
from berth.files.archives import Unpacker
from berth.images import tar
from berth.images.streams import ByteStream, file_chunks, plain_chunks
from berth.kernel import mounts
from berth.kernel.mounts import open_in_root
from berth.runtime import accounts, fileattributes, rootfs
from berth.runtime.fileattributes import Facts
from berth.runtime.template import ROOTFS
from berth.runtime.treecopy import TreeCopy, make_directory
from berth.runtime.worker import FILE_CAPABILITIES, confine

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from berth.builds.selection import Selected
    from berth.runtime.messages import RootfsMessage

    Report = Callable[[Mapping[str, object]], None]
    Owner = tuple[int, int]

CAPABILITIES = (*FILE_CAPABILITIES, "CAP_SYS_ADMIN")  # for trusted.* attributes
MAX_LINKS = 40
NEW_MODE = 0o755
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def digest(argument: dict[str, object], fds: list[int], report: Report) -> Mapping[str, object]:
    """Hash what is selected in another image's root, ``source``; the rest is a question about a context."""
    del report, fds
    roots.own_namespace()
    confine(_open_source(argument["source"]), keep_capabilities=FILE_CAPABILITIES)
    return contextwork.digest(os.open("/", _DIRECTORY), argument)


def copy(argument: dict[str, object], fds: list[int], report: Report) -> Mapping[str, object]:
    """Copy into the root ``rootfs`` and write what that changed as a layer to the file ``fds[0]``.

    Argument: ``rootfs``, the root; ``parts``, each with ``patterns``, ``source`` (another image's root;
    None: the next directory of ``fds``), whether it ``extracts`` archives and keeps ``parents``;
    ``excludes``, ``target``, ``latest_ns``, ``owner`` and ``mode`` (nothing: as it is). Without parts the
    target is a directory to be made. Returns ``digest`` and ``size`` of the layer.
    """
    del report
    os.umask(0)
    roots.own_namespace()
    file, directories = fds[0], iter(fds[1:])
    messages = cast("list[dict[str, object]]", argument["parts"])
    sources = [
        next(directories) if part["source"] is None else _open_source(part["source"])
        for part in messages
    ]
    message = cast("RootfsMessage", argument["rootfs"])
    layers = roots.layers_of(message)
    rootfs.mount_root(message)
    confine("/", keep_capabilities=CAPABILITIES)
    try:
        how = _How(argument)
        parts = [_Part(*pair, how) for pair in zip(sources, messages, strict=True)]
        _Copy(str(argument["target"]), how).run(parts)
    except OSError as error:
        where = f"{os.fsdecode(error.filename)}: " if error.filename else ""
        raise Failed(f"{where}{(error.strerror or str(error)).lower()}") from error
    return differences.write_layer(layers, file, latest_ns=differences.latest_of(argument))


class _How:
    """What an instruction says besides what is copied, and the root that it is said of."""

    def __init__(self, argument: dict[str, object]) -> None:
        excludes = argument["excludes"]
        assert isinstance(excludes, list)
        self.root = os.open("/", _DIRECTORY)
        self.excludes = ignore.Patterns(excludes)
        self.said_owner = owner_of(str(argument["owner"])) if argument["owner"] else None
        self.owner = self.said_owner or (0, 0)
        self.mode = Mode(str(argument["mode"])) if argument["mode"] else None


class _Part(TreeCopy):
    """Some of what is to be copied: patterns below the directory ``root``."""

    def __init__(self, root: int, message: dict[str, object], how: _How) -> None:
        super().__init__(root, how.root)
        patterns = message["patterns"]
        assert isinstance(patterns, list)
        self.root = root
        self.patterns: list[str] = patterns
        self.extracts = bool(message["extracts"])
        self.parents = bool(message["parents"])
        self._how = how

    def names(self, source: int, target: int, path: str) -> list[str]:
        """Return what is not excluded of a directory."""
        names = super().names(source, target, path)
        return [n for n in sorted(names) if not self._how.excludes.excludes(joined(path, n))]

    def facts(self, status: os.stat_result) -> Facts:
        """Return the owner and the mode that were asked for; the mode is of files and directories."""
        facts = Facts(status)
        facts.uid, facts.gid = self._how.owner
        mode = self._how.mode
        if mode and (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            facts.mode = mode.of(status.st_mode)
        facts.atime_ns = facts.mtime_ns
        return facts

    def liken(self, source: int, target: int) -> None:
        """Give a directory what is asked for, and no extended attributes, which have no part in the hash."""
        fileattributes.give(target, self.facts(os.fstat(source)), {})

    def status(self, path: str) -> os.stat_result:
        """Return what is at a path of the source, not what it leads to."""
        fd = open_in_root(self.root, path, os.O_PATH | os.O_NOFOLLOW)
        try:
            return os.fstat(fd)
        finally:
            os.close(fd)

    def file(self, path: str, parent: int, target: str) -> None:
        """Copy what is no directory to ``target`` in the directory ``parent``."""
        above, name = os.path.split(path)
        into, leaf = os.path.split(target)
        folder = open_in_root(self.root, above, _DIRECTORY)
        try:
            self.entry((folder, name), (parent, leaf), self.status(path), into)
        finally:
            os.close(folder)


def _open_source(argument: object) -> int:
    """Return the root of another image, mounted for as long as the descriptor is open."""
    message = cast("RootfsMessage", argument)
    os.chdir(message["base"])
    rootfs.mount_lower(message["lower"])
    found = os.open(ROOTFS, _DIRECTORY)
    mounts.umount2(ROOTFS, mounts.MNT_DETACH)
    return found


def owner_of(text: str) -> Owner:
    """Return the ids that --chown names, by the image's own files; a user alone is its group as well."""
    user, colon, group = text.partition(":")
    return _id(user, "/etc/passwd", "user"), _id(group if colon else user, "/etc/group", "group")


def _id(text: str, path: str, kind: str) -> int:
    number = accounts.number(text)
    if number is not None:
        return number
    row = next((row for row in accounts.read_entries(path, 3) if row[0] == text), None)
    number = accounts.number(row[2]) if row else None
    if number is None:
        raise InvalidArgument(
            f"unable to convert uid/gid chown string to host mapping: can't find {kind[0]}id for"
            f" {kind} {text}: no such {kind}: {text}"
        )
    return number


class _Copy:
    """One instruction's work."""

    def __init__(self, target: str, how: _How) -> None:
        self._target = target
        self._how = how
        self._root = how.root

    def run(self, parts: Sequence[_Part]) -> None:
        """Copy everything."""
        target = ignore.clean(self._target.strip("/"))
        target = "" if target == "." else target
        if not parts:
            self._make_folders(target)
        for part in parts:
            if part.parents:
                self._with_parents(part, target)
                continue
            for one in selection.select(part.root, part.patterns, self._how.excludes):
                part.forget_links()  # another source may take the place of what this one has made
                self._copy(part, one, target)

    def _copy(self, part: _Part, one: Selected, target: str) -> None:
        if one.is_folder:
            self._make_folders(target)
            part.tree(one.path, target)
        elif part.extracts and is_archive(part.root, one.path):
            self._make_folders(target)
            self._extract(part.root, one.path, target)
        else:
            self._single(part, one.path, target)

    def _with_parents(self, part: _Part, target: str) -> None:
        """Copy what is selected to where it is in the source, from a pivot on."""
        self._make_folders(target)
        for pattern in part.patterns:
            left_out = selection.pivot(pattern)
            part.forget_links()
            found = selection.select(part.root, [pattern], self._how.excludes)
            for one in selection.outermost(found):
                *above, leaf = one.path.split("/")
                folder = self._like(part, "/".join(above[:left_out]), above[left_out:], target)
                parent = open_in_root(self._root, folder, _DIRECTORY)
                try:
                    if stat.S_ISDIR(part.status(one.path).st_mode):
                        make_directory(leaf, parent)
                        part.tree(one.path, joined(folder, leaf))
                        part.finish(one.path, joined(folder, leaf))
                    else:
                        part.file(one.path, parent, joined(folder, leaf))
                finally:
                    os.close(parent)

    def _like(self, part: _Part, source: str, names: Sequence[str], target: str) -> str:
        """Make directories that are like those of the source; return the path of the innermost."""
        for name in names:
            source, parent = joined(source, name), open_in_root(self._root, target, _DIRECTORY)
            try:
                os.mkdir(name, NEW_MODE, dir_fd=parent)
            except FileExistsError:
                target = joined(target, name)
                continue
            finally:
                os.close(parent)
            target = joined(target, name)
            part.finish(source, target)
        return target

    # Where it goes

    def _make_folders(self, path: str) -> None:
        """Make a directory and those above it; what is there stays as it is."""
        done = ""
        for part in path.split("/") if path else ():
            parent = open_in_root(self._root, done, _DIRECTORY)
            try:
                os.mkdir(part, NEW_MODE, dir_fd=parent)
                os.chown(part, *self._how.owner, dir_fd=parent, follow_symlinks=False)
            except FileExistsError:
                pass
            finally:
                os.close(parent)
            done = joined(done, part)
        if path:
            os.close(open_in_root(self._root, path, _DIRECTORY))  # else it is no directory

    def _single(self, part: _Part, path: str, target: str) -> None:
        """Copy a file: into the target if that is a directory, or is to be one."""
        if self._target.endswith("/") or self._is_folder(target):
            target = joined(target, os.path.basename(path))
            self._make_folders(os.path.dirname(target))
        else:
            self._make_folders(os.path.dirname(target))
            target = self._through_links(self._root, target)
        folder, leaf = os.path.split(target)
        if not leaf:
            raise Failed(f"cannot copy to directory: {self._target}")
        parent = open_in_root(self._root, folder, _DIRECTORY)
        try:
            part.file(self._through_links(part.root, path), parent, target)
        finally:
            os.close(parent)

    def _is_folder(self, path: str) -> bool:
        try:
            os.close(open_in_root(self._root, path, _DIRECTORY))
        except OSError:
            return False
        return True

    def _through_links(self, root: int, path: str) -> str:
        """Return where a link leads to in a root, also when nothing is there."""
        for _ in range(MAX_LINKS):
            folder, leaf = os.path.split(path)
            parent = open_in_root(root, folder, _DIRECTORY)
            try:
                link = os.readlink(leaf, dir_fd=parent)
            except OSError:  # no link, or nothing
                return path
            finally:
                os.close(parent)
            path = link.lstrip("/") if link.startswith("/") else joined(folder, link)
        raise Failed(f"too many levels of symbolic links: {self._target}")

    def _extract(self, root: int, path: str, target: str) -> None:
        fd = open_in_root(root, path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            reader = tar.TarReader(ByteStream(plain_chunks(file_chunks(fd))))
            owner = self._how.said_owner
            Unpacker(self._root, target, owner=owner, keeps=False).extract(reader)
        finally:
            os.close(fd)


def is_archive(root: int, path: str) -> bool:
    """Say whether a file of the context is an archive, plain or compressed."""
    fd = open_in_root(root, path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return False
        reader = tar.TarReader(ByteStream(plain_chunks(file_chunks(fd))))
        return next(iter(reader), None) is not None
    except BerthError:
        return False
    finally:
        os.close(fd)
