"""COPY and ADD, in a worker whose root is that of the image being made. No container is started.

What is copied lies below a directory that the worker has opened: the context, or the root of another image.
Both sides are resolved by the kernel, each inside its own root.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, NamedTuple, cast

from berth.builds import contextwork, selection
from berth.builds.selection import joined
from berth.dockerfile import ignore
from berth.dockerfile.modes import Mode
from berth.errors import BerthError, Failed, InvalidArgument
from berth.files import differences, roots
from berth.files.archives import Unpacker
from berth.images import tar
from berth.images.layer import set_xattrs
from berth.images.pack import attributes
from berth.images.streams import ByteStream, file_chunks, plain_chunks
from berth.kernel import mounts
from berth.kernel.filecopies import FileCopies
from berth.kernel.mounts import open_in_root
from berth.runtime import accounts, rootfs
from berth.runtime.template import ROOTFS
from berth.runtime.worker import FILE_CAPABILITIES, confine
from berth.snapshots.removal import remove_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from berth.builds.selection import Selected
    from berth.runtime.messages import RootfsMessage

    Report = Callable[[Mapping[str, object]], None]
    Owner = tuple[int, int]

CAPABILITIES = (*FILE_CAPABILITIES, "CAP_SYS_ADMIN")  # for trusted.* attributes
MAX_LINKS = 40
NEW_MODE = 0o755
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


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
    parts = [
        _part(part, directories) for part in cast("list[dict[str, object]]", argument["parts"])
    ]
    message = cast("RootfsMessage", argument["rootfs"])
    layers = roots.layers_of(message)
    rootfs.mount_root(message)
    confine("/", keep_capabilities=CAPABILITIES)
    try:
        _Copy(argument).run(parts)
    except OSError as error:
        where = f"{os.fsdecode(error.filename)}: " if error.filename else ""
        raise Failed(f"{where}{(error.strerror or str(error)).lower()}") from error
    return differences.write_layer(layers, file, latest_ns=differences.latest_of(argument))


class _Part(NamedTuple):
    """Some of what is to be copied: patterns below a directory."""

    root: int
    patterns: list[str]
    extracts: bool
    parents: bool


def _part(message: dict[str, object], directories: Iterator[int]) -> _Part:
    source, patterns = message["source"], message["patterns"]
    assert isinstance(patterns, list)
    root = next(directories) if source is None else _open_source(source)
    return _Part(root, patterns, bool(message["extracts"]), bool(message["parents"]))


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

    def __init__(self, argument: Mapping[str, object]) -> None:
        excludes = argument["excludes"]
        assert isinstance(excludes, list)
        self._excludes = ignore.Patterns(excludes)
        self._root = os.open("/", _DIRECTORY)
        self._target = str(argument["target"])
        self._said_owner = owner_of(str(argument["owner"])) if argument["owner"] else None
        self._owner = self._said_owner or (0, 0)
        self._mode = Mode(str(argument["mode"])) if argument["mode"] else None
        self._links: dict[tuple[int, int], str] = {}
        self._source = -1
        self._copies = FileCopies()

    def run(self, parts: Sequence[_Part]) -> None:
        """Copy everything."""
        target = ignore.clean(self._target.strip("/"))
        target = "" if target == "." else target
        if not parts:
            self._make_folders(target)
        for part in parts:
            self._source, self._copies = part.root, FileCopies()
            if part.parents:
                self._with_parents(part, target)
                continue
            for one in selection.select(part.root, part.patterns, self._excludes):
                self._links.clear()  # another source may take the place of what this one has made
                self._copy(one, target, extracts=part.extracts)

    def _copy(self, one: Selected, target: str, *, extracts: bool) -> None:
        if one.is_folder:
            self._make_folders(target)
            self._tree(one.path, target)
        elif extracts and self._is_archive(one.path):
            self._make_folders(target)
            self._extract(one.path, target)
        else:
            self._single(one, target)

    def _with_parents(self, part: _Part, target: str) -> None:
        """Copy what is selected to where it is in the source, from a pivot on."""
        self._make_folders(target)
        for pattern in part.patterns:
            left_out = selection.pivot(pattern)
            self._links.clear()
            found = selection.select(part.root, [pattern], self._excludes)
            for one in selection.outermost(found):
                *above, leaf = one.path.split("/")
                kept = above[left_out:]
                outer = "/".join(above[:left_out])
                folder = self._like(outer, kept, target)
                parent = open_in_root(self._root, folder, _DIRECTORY)
                try:
                    status = self._status(one.path)
                    if stat.S_ISDIR(status.st_mode):
                        self._folder(parent, leaf)
                        self._tree(one.path, joined(folder, leaf))
                        self._finish_folder(joined(folder, leaf), status)
                    else:
                        self._entry(one.path, os.O_NOFOLLOW, parent, joined(folder, leaf))
                finally:
                    os.close(parent)

    def _like(self, source: str, names: Sequence[str], target: str) -> str:
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
            self._finish_folder(target, self._status(source))
        return target

    def _status(self, path: str) -> os.stat_result:
        """Return what is at a path of the source, not what it leads to."""
        fd = open_in_root(self._source, path, os.O_PATH | os.O_NOFOLLOW)
        try:
            return os.fstat(fd)
        finally:
            os.close(fd)

    # Where it goes

    def _make_folders(self, path: str) -> None:
        """Make a directory and those above it; what is there stays as it is."""
        done = ""
        for part in path.split("/") if path else ():
            parent = open_in_root(self._root, done, _DIRECTORY)
            try:
                os.mkdir(part, NEW_MODE, dir_fd=parent)
                os.chown(part, *self._owner, dir_fd=parent, follow_symlinks=False)
            except FileExistsError:
                pass
            finally:
                os.close(parent)
            done = joined(done, part)
        if path:
            os.close(open_in_root(self._root, path, _DIRECTORY))  # else it is no directory

    def _single(self, one: Selected, target: str) -> None:
        """Copy a file: into the target if that is a directory, or is to be one."""
        if self._target.endswith("/") or self._is_folder(target):
            target = joined(target, os.path.basename(one.path))
            self._make_folders(os.path.dirname(target))
        else:
            self._make_folders(os.path.dirname(target))
            target = self._through_links(target)
        if not os.path.basename(target):
            raise Failed(f"cannot copy to directory: {self._target}")
        folder, leaf = os.path.split(target)
        parent = open_in_root(self._root, folder, _DIRECTORY)
        try:
            self._entry(one.path, 0, parent, joined(folder, leaf))
        finally:
            os.close(parent)

    def _is_folder(self, path: str) -> bool:
        try:
            os.close(open_in_root(self._root, path, _DIRECTORY))
        except OSError:
            return False
        return True

    def _through_links(self, path: str) -> str:
        """Return where a link that is the target leads to, also when nothing is there."""
        for _ in range(MAX_LINKS):
            folder, leaf = os.path.split(path)
            parent = open_in_root(self._root, folder, _DIRECTORY)
            try:
                link = os.readlink(leaf, dir_fd=parent)
            except OSError:  # no link, or nothing
                return path
            finally:
                os.close(parent)
            path = link.lstrip("/") if link.startswith("/") else joined(folder, link)
        raise Failed(f"too many levels of symbolic links: {self._target}")

    # What is copied

    def _tree(self, source: str, target: str) -> None:
        """Copy what is in a directory into another, which may have things in it."""
        pending = [(source, target)]
        folders: list[tuple[str, os.stat_result]] = []
        while pending:
            path, into = pending.pop()
            parent = open_in_root(self._root, into, _DIRECTORY)
            try:
                for name, status in self._children(path):
                    inner = joined(path, name)
                    if not stat.S_ISDIR(status.st_mode):
                        self._entry(inner, os.O_NOFOLLOW, parent, joined(into, name))
                        continue
                    self._folder(parent, name)
                    folders.append((joined(into, name), status))
                    pending.append((inner, joined(into, name)))
            finally:
                os.close(parent)
        for path, status in reversed(folders):
            self._finish_folder(path, status)

    def _children(self, folder: str) -> list[tuple[str, os.stat_result]]:
        fd = open_in_root(self._source, folder, _DIRECTORY)
        try:
            return [
                (name, os.stat(name, dir_fd=fd, follow_symlinks=False))
                for name in sorted(os.listdir(fd))
                if not self._excludes.excludes(joined(folder, name))
            ]
        finally:
            os.close(fd)

    def _folder(self, parent: int, leaf: str) -> None:
        try:
            os.mkdir(leaf, NEW_MODE, dir_fd=parent)
        except FileExistsError:
            status = os.stat(leaf, dir_fd=parent, follow_symlinks=False)
            if not stat.S_ISDIR(status.st_mode):
                os.unlink(leaf, dir_fd=parent)
                os.mkdir(leaf, NEW_MODE, dir_fd=parent)

    def _finish_folder(self, path: str, status: os.stat_result) -> None:
        """Give a directory what filling it would have changed."""
        fd = open_in_root(self._root, path, _DIRECTORY | os.O_NOFOLLOW)
        try:
            os.chown(fd, *self._owner)
            os.chmod(fd, self._mode_of(status))
            os.utime(fd, ns=(status.st_mtime_ns, status.st_mtime_ns))
        finally:
            os.close(fd)

    def _mode_of(self, status: os.stat_result) -> int:
        return stat.S_IMODE(status.st_mode) if self._mode is None else self._mode.of(status.st_mode)

    def _entry(self, path: str, flags: int, parent: int, target: str) -> None:
        """Copy what is no directory to ``target`` in ``parent``, in the place of what is there."""
        leaf = os.path.basename(target)
        source = open_in_root(self._source, path, os.O_PATH | flags)
        try:
            status = os.fstat(source)
            if stat.S_ISSOCK(status.st_mode):
                return
            clear(parent, leaf)
            if self._is_linked(status, parent, target):
                return
            if stat.S_ISREG(status.st_mode):
                self._regular(path, flags, parent, leaf)
            elif stat.S_ISLNK(status.st_mode):
                os.symlink(os.readlink("", dir_fd=source), leaf, dir_fd=parent)
                os.chown(leaf, *self._owner, dir_fd=parent, follow_symlinks=False)
            else:
                os.mknod(leaf, status.st_mode, status.st_rdev, dir_fd=parent)
                os.chown(leaf, *self._owner, dir_fd=parent, follow_symlinks=False)
                os.chmod(leaf, stat.S_IMODE(status.st_mode), dir_fd=parent)  # just made: no link
        finally:
            os.close(source)
        times = (status.st_mtime_ns, status.st_mtime_ns)
        os.utime(leaf, ns=times, dir_fd=parent, follow_symlinks=False)

    def _is_linked(self, status: os.stat_result, parent: int, target: str) -> bool:
        """Make a further name of a file that was copied already a link, as it is in the source."""
        if status.st_nlink < 2:
            return False
        first = self._links.setdefault((status.st_dev, status.st_ino), target)
        folder, name = os.path.split(first)
        above = open_in_root(self._root, folder, _DIRECTORY)
        try:
            leaf = os.path.basename(target)
            os.link(name, leaf, src_dir_fd=above, dst_dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:  # this is the first
            return False
        finally:
            os.close(above)
        return True

    def _regular(self, path: str, flags: int, parent: int, leaf: str) -> None:
        source = open_in_root(self._source, path, os.O_RDONLY | os.O_NONBLOCK | flags)
        target = os.open(leaf, _NEW_FILE, 0o600, dir_fd=parent)
        try:
            status = os.fstat(source)
            self._copies.copy(source, target, status.st_size)
            os.chown(target, *self._owner)
            os.chmod(target, self._mode_of(status))
            if found := attributes(source):
                set_xattrs(target, found)
        finally:
            os.close(source)
            os.close(target)

    # Archives

    def _is_archive(self, path: str) -> bool:
        """Say whether a file of the context is an archive, plain or compressed."""
        fd = open_in_root(self._source, path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                return False
            reader = tar.TarReader(ByteStream(plain_chunks(file_chunks(fd))))
            return next(iter(reader), None) is not None
        except BerthError:
            return False
        finally:
            os.close(fd)

    def _extract(self, path: str, target: str) -> None:
        fd = open_in_root(self._source, path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            reader = tar.TarReader(ByteStream(plain_chunks(file_chunks(fd))))
            Unpacker(self._root, target, owner=self._said_owner, keeps=False).extract(reader)
        finally:
            os.close(fd)


def clear(parent: int, leaf: str) -> None:
    """Remove what is at ``leaf``; nothing when nothing is."""
    try:
        status = os.stat(leaf, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return
    if stat.S_ISDIR(status.st_mode):
        remove_tree(leaf, dir_fd=parent)
    else:
        os.unlink(leaf, dir_fd=parent)
