"""What a container has changed: jobs that read its own directory, in a worker confined to nothing.

An upper directory of overlayfs has changes only. A copy of the image is compared with the image, file by
file; as one may be rewritten with its old time and size, all that changed after the copy was made is in a
layer, too.

Docker compares the container with its image after a few mount points were made in it (`STUBS`); those
are no changes here either.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, cast

from berth.files import roots
from berth.images.layer import write_all
from berth.images.pack import FileSink, Packer, fill_up, joined
from berth.images.tar_writer import TarWriter
from berth.images.unpack import Hasher
from berth.kernel.mounts import open_in_root
from berth.runtime.removal import remove_tree
from berth.snapshots.whiteouts import is_opaque, is_whiteout

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from collections.abc import Set as AbstractSet

    from berth.runtime.messages import RootfsMessage

    Report = Callable[[Mapping[str, object]], None]
    Skips = Callable[[str, os.stat_result], bool]
    Change = tuple[str, str, bool]  # path, kind ("" for none), whether to look into it

STUBS = frozenset(
    (
        *("dev", "dev/console", "dev/mqueue", "dev/pts", "dev/shm", "proc", "sys"),
        *("etc", "etc/hostname", "etc/hosts", "etc/mtab", "etc/resolv.conf", ".dockerenv"),
    )
)
STUB_FOLDERS = ("dev", "etc")
MODIFIED, ADDED, DELETED = "C", "A", "D"
CAPABILITY = "security.capability"
COPY_BYTES = 1 << 20
MAX_LINKS = 40
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


def is_stub(path: str, status: os.stat_result) -> bool:
    """Say whether a file is only what something was mounted on: empty, at one of the known places."""
    if path not in STUBS or path in STUB_FOLDERS:
        return False
    return stat.S_ISDIR(status.st_mode) or (stat.S_ISREG(status.st_mode) and not status.st_size)


class HashingSink(FileSink):
    """A tar stream into a file, and its digest."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self._hasher = Hasher()
        self.size = 0

    def write(self, data: bytes) -> None:
        """See FileSink."""
        super().write(data)
        self._hasher.update(data)
        self.size += len(data)

    def copy(self, fd: int, size: int) -> None:
        """See FileSink."""
        while size and (data := os.read(fd, min(size, COPY_BYTES))):
            self.write(data)
            size -= len(data)
        fill_up(self, size)

    def digest(self) -> str:
        """Return the digest of everything. Call it once, at the end."""
        return self._hasher.digest()


def layer(argument: dict[str, object], fds: list[int], report: Report) -> Mapping[str, object]:
    """Write what has changed as a layer of an image to the file ``fds[0]``.

    Argument: ``rootfs``; ``targets``: where something was mounted; ``strips``: what is no part of the layer
    is removed, so that the directory is one, unless somebody may still write to it; ``latest_ns``, see
    :func:`latest_of`. Returns ``digest`` and ``size``, what is in ``files``, and ``is_stripped``.
    """
    del report
    roots.own_namespace()
    strips = argument["strips"] and roots.is_left(cast("RootfsMessage", argument["rootfs"]))
    layers = roots.open_layers(argument)
    targets = argument["targets"]
    assert isinstance(targets, list)
    made = [path for target in targets for path in missing(layers.below, target)]
    stubs = _Stubs(layers.own, layers.below, STUBS.union(made))
    found = write_layer(layers, fds[0], stubs, latest_ns=latest_of(argument))
    if strips:
        stubs.remove()
    return {**found, "is_stripped": bool(strips)}


def latest_of(argument: dict[str, object]) -> int | None:
    """Return ``latest_ns`` of an argument: no file of the layer is said to be younger."""
    found = argument["latest_ns"]
    assert found is None or isinstance(found, int)
    return found


def nothing(path: str, status: os.stat_result) -> bool:
    """Skip nothing."""
    del path, status
    return False


def write_layer(
    layers: roots.Layers, file: int, skips: Skips = nothing, *, latest_ns: int | None = None
) -> Mapping[str, object]:
    """Write a layer of what has changed, without what ``skips`` says, to a file; return what `layer` does."""
    sink = HashingSink(file)
    writer = TarWriter(sink, latest_ns=latest_ns)
    if layers.copied_ns is None:
        Packer(layers.own, writer, layer=True, skips=skips).tree("", "")
    else:
        changed = Changed(layers, skips)
        unchanged, hidden = changed.is_unchanged, changed.hidden
        Packer(layers.own, writer, layer=True, skips=unchanged, hidden=hidden).tree("", "")
    writer.end()
    os.fsync(file)
    return {"digest": sink.digest(), "size": sink.size, "files": writer.file_bytes}


class _Stubs:
    """Tells what in an upper directory is there only because something was mounted on it."""

    def __init__(self, upper: int, below: int, places: AbstractSet[str]) -> None:
        self._upper = upper
        self._below = below
        self._places = places
        self._found: list[str] = []

    def __call__(self, path: str, status: os.stat_result) -> bool:
        is_one = self._is_one(path, status)
        if is_one:
            self._found.append(path)
        return is_one

    def remove(self) -> None:
        """Remove what was found; the directory was not changed meanwhile."""
        for path in self._found:
            folder, _, leaf = path.rpartition("/")
            parent = open_in_root(self._upper, folder, _DIRECTORY)
            times = os.fstat(parent)
            try:
                if stat.S_ISDIR(os.stat(leaf, dir_fd=parent, follow_symlinks=False).st_mode):
                    remove_tree(leaf, dir_fd=parent)
                else:
                    os.unlink(leaf, dir_fd=parent)
                os.utime(parent, ns=(times.st_atime_ns, times.st_mtime_ns))  # as the layer has it
            finally:
                os.close(parent)

    def _is_one(self, path: str, status: os.stat_result) -> bool:
        if path not in self._places:
            return False
        if not stat.S_ISDIR(status.st_mode):
            return stat.S_ISREG(status.st_mode) and not status.st_size
        old = status_of(path, self._below)
        if old is not None and is_different(old, status):
            return False
        folder = open_in_root(self._upper, path, _DIRECTORY)
        try:
            children = [(name, status_of(name, folder)) for name in os.listdir(folder)]
        finally:
            os.close(folder)
        return all(
            found is None or self._is_one(f"{path}/{name}", found) for name, found in children
        )


def missing(below: int, target: str) -> list[str]:
    """Return what of the way to ``target`` an image has not: it was made to mount something there."""
    done, ahead, links = "", [part for part in target.split("/") if part], 0
    while ahead:
        part = ahead.pop(0)
        if part == "..":
            done = done.rpartition("/")[0]
            continue
        folder = open_in_root(below, done, os.O_PATH | os.O_DIRECTORY)
        try:
            status = status_of(part, folder)
            link = os.readlink(part, dir_fd=folder) if is_link(status) else ""
        finally:
            os.close(folder)
        if link and links < MAX_LINKS:
            links += 1
            done = "" if link.startswith("/") else done
            ahead[:0] = [part for part in link.split("/") if part not in ("", ".")]
        elif status is None:
            ways = [part, *ahead]
            return [joined(done, "/".join(ways[: end + 1])) for end in range(len(ways))]
        elif not stat.S_ISDIR(status.st_mode):
            return []
        else:
            done = joined(done, part)
    return []


def is_link(status: os.stat_result | None) -> bool:
    """Say whether it is a symbolic link."""
    return status is not None and stat.S_ISLNK(status.st_mode)


def compare(argument: dict[str, object], fds: list[int], report: Report) -> Mapping[str, object]:
    """Write what is different to the pipe ``fds[0]``: a letter and a path each, ended by a zero byte."""
    roots.own_namespace()
    layers = roots.open_layers(argument)
    report({})

    def tell(kind: str, path: str) -> None:
        write_all(fds[0], os.fsencode(f"{kind}/{path}") + b"\0")

    _Comparison(layers, tell).run()
    return {}


class Changed:
    """What has changed in a copy of an image, as a layer has it."""

    def __init__(self, layers: roots.Layers, stubs: Skips) -> None:
        self._stubs = stubs
        self._paths = {""}  # made or changed, and the directories that these are in
        self._hidden: dict[str, list[str]] = {}
        _Comparison(layers, self._take, since_ns=layers.copied_ns).run()

    def _take(self, kind: str, path: str) -> None:
        if kind == DELETED:
            folder, _, name = path.rpartition("/")
            self._hidden.setdefault(folder, []).append(name)
        else:
            self._paths.add(path)

    def is_unchanged(self, path: str, status: os.stat_result) -> bool:
        """Say whether a file is no part of a layer."""
        return path not in self._paths or self._stubs(path, status)

    def hidden(self, folder: str) -> list[str]:
        """Return the names in a directory that the image has and the container has not."""
        return self._hidden.get(folder, [])


class _Comparison:
    """One walk over a container's own directory, with a look below it for every file."""

    def __init__(
        self, layers: roots.Layers, tell: Callable[[str, str], None], *, since_ns: int | None = None
    ) -> None:
        """Begin; what changed after ``since_ns`` is told of, whatever it is like."""
        self._own = layers.own
        self._below = layers.below
        self._is_copy = layers.copied_ns is not None
        self._since_ns = since_ns
        self._write = tell
        self._told: set[str] = set()  # directories

    def run(self) -> None:
        """Tell of everything, by name; what is in a directory after it."""
        pending = [("", "", True)]
        while pending:
            path, kind, is_folder = pending.pop()
            if kind:
                self._tell(kind, path)
            if is_folder:
                self._told.update((path,) if kind else ())
                pending += reversed(self._folder(path))

    def _tell(self, kind: str, path: str) -> None:
        """Tell of a change, before it of the directories that it is in."""
        parts = path.split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            above = "/".join(parts[:depth])
            if above not in self._told:
                self._told.add(above)
                self._write(MODIFIED, above)
        self._write(kind, path)

    def _folder(self, path: str) -> list[Change]:
        """Compare what is in one directory with what was there."""
        try:
            here = open_in_root(self._own, path, _DIRECTORY)
        except OSError:
            return []  # gone meanwhile
        try:
            below: int | None = open_in_root(self._below, path, _DIRECTORY)
        except OSError:
            below = None
        try:
            names = sorted(os.listdir(here))
            found = [self._file(joined(path, name), name, here, below) for name in names]
            if below is not None and (self._is_copy or (path and is_opaque(here))):
                hidden = set(os.listdir(below)) - set(names)
                found += [(joined(path, name), DELETED, False) for name in hidden]
            return sorted(found)
        finally:
            os.close(here)
            if below is not None:
                os.close(below)

    def _file(self, path: str, name: str, here: int, below: int | None) -> Change:
        status = status_of(name, here)
        if status is None:
            return path, "", False
        old = status_of(name, below) if below is not None else None
        if old is not None and is_whiteout(old):
            old = None
        if is_whiteout(status) and not self._is_copy:
            return path, DELETED if old is not None else "", False
        is_folder = stat.S_ISDIR(status.st_mode)
        if old is None:
            known = is_stub(path, status) or (path in STUB_FOLDERS and is_folder)
            return path, "" if known else ADDED, is_folder
        differs = is_different(old, status) or capability(name, here) != capability(name, below)
        differs |= self._since_ns is not None and status.st_ctime_ns > self._since_ns
        return path, MODIFIED if differs else "", is_folder


def status_of(name: str, folder: int) -> os.stat_result | None:
    """Return what the file is, None when it is gone."""
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return None


def capability(name: str, folder: int | None) -> bytes:
    """Return the file's capabilities as they are stored; nothing for none."""
    assert folder is not None
    os.fchdir(folder)  # there is no call that takes a directory and a name
    try:
        return os.getxattr(name, CAPABILITY, follow_symlinks=False)
    except OSError:
        return b""


def is_different(old: os.stat_result, new: os.stat_result) -> bool:
    """Say whether a file has changed as Docker sees it: its contents are not compared."""
    if (old.st_mode, old.st_uid, old.st_gid) != (new.st_mode, new.st_uid, new.st_gid):
        return True
    if stat.S_ISCHR(new.st_mode) or stat.S_ISBLK(new.st_mode):
        return old.st_rdev != new.st_rdev
    if stat.S_ISDIR(new.st_mode):
        return False
    return (old.st_mtime_ns, old.st_size) != (new.st_mtime_ns, new.st_size)
