"""An archive of a commit's files, submodules included; within a confined worker."""

from __future__ import annotations

import io
import os
import posixpath
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from dulwich.config import ConfigFile
from dulwich.index import Index, IndexEntry
from dulwich.objects import ObjectID, Tree

from berth.builds.gitclient import TAGS, failing
from berth.builds.repositories import Repository
from berth.errors import Failed, NotFound
from berth.images.layer import write_all
from berth.images.tar import BLOCK, DIRECTORY, REGULAR, SYMLINK, Member
from berth.images.tar_writer import END, headers, padding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from berth.builds.gitclient import Client, Fetched
    from berth.builds.gitwork import Task

MODE_TYPE, MODE_LINK, MODE_MODULE = 0o170000, 0o120000, 0o160000
MODE_FOLDER, EXECUTABLE = 0o40000, 0o100
UNSAFE = (b"", b".", b"..")
OWN = b".git"
MODULES = b".gitmodules"
CHUNK_BYTES = 1 << 18
MAX_PATH = 4096
MAX_DEPTH = 16  # of submodules in submodules
MAX_LIST_BYTES = 1 << 20  # of .gitmodules


class Archive:
    """Writes the archive to a pipe."""

    def __init__(self, client: Client, task: Task, output: int) -> None:
        self._client = client
        self._task = task
        self._output = output
        self._limits = client.limits
        self._written = 0
        self._files = 0

    def check(self, fetched: Fetched) -> None:
        """Raise NotFound if there is no such directory as is wanted."""
        with failing(fetched.url, self._limits):
            self._top(fetched)

    def write(self, fetched: Fetched) -> None:
        """Write everything."""
        with failing(fetched.url, self._limits):
            top = self._top(fetched)
        folder = self._task.folder.encode()
        self._repository(fetched, top, b"", folder + b"/" if folder else b"", 0)
        self._put(END)

    def _repository(
        self, fetched: Fetched, top: Tree, prefix: bytes, inner: bytes, depth: int
    ) -> None:
        """Write a repository below ``prefix``, of which the directory ``inner`` is all that is wanted."""
        with failing(fetched.url, self._limits):
            writer = _Writer(self, fetched, prefix)
            modules = writer.tree(top, inner)
            if self._task.keeps_git:
                writer.git(whole=not inner)
        if not self._task.submodules or not modules:
            return
        places = self._places(fetched)
        for path, name in modules:
            if (url := places.get(inner + path, "")) is None:
                continue
            if not url:
                raise Failed(
                    f"fetch {fetched.url}: no URL of submodule {inner + path!r} in .gitmodules"
                )
            if depth == MAX_DEPTH:
                raise Failed(f"fetch {fetched.url}: submodules nest more than {MAX_DEPTH} deep")
            other = self._client.fetch(url, name.decode())
            with failing(url, self._limits):
                tree = _tree(other, other.commit.tree)
            self._repository(other, tree, prefix + path + b"/", b"", depth + 1)

    def _places(self, fetched: Fetched) -> Mapping[bytes, str | None]:
        """Return where submodules are by their paths; None for those that nobody wants."""
        with failing(fetched.url, self._limits):
            top = _tree(fetched, fetched.commit.tree)
            if MODULES not in top:
                return {}
            data = fetched.repo[top[MODULES][1]].as_raw_string()
            if len(data) > MAX_LIST_BYTES:
                raise ValueError(".gitmodules is too large")
            config, found = ConfigFile.from_file(io.BytesIO(data)), dict[bytes, str | None]()
            for section in config.sections():
                if len(section) != 2 or section[0] != b"submodule":
                    continue
                said = dict(config.items(section))
                url = said.get(b"url", b"").decode()
                skipped = said.get(b"update") == b"none"
                place = None if skipped else joined(fetched.url, url)
                found[said.get(b"path", b"").strip(b"/")] = place
            return found

    def _top(self, fetched: Fetched) -> Tree:
        """Return the tree of the directory that is wanted."""
        tree = _tree(fetched, fetched.commit.tree)
        for name in filter(None, self._task.folder.split("/")):
            entry = name.encode()
            found = tree[entry] if entry in tree else None  # noqa: SIM401 - a tree is no dictionary
            if found is None or found[0] & MODE_TYPE != MODE_FOLDER:
                raise NotFound(f"{fetched.url} has no directory {self._task.folder}")
            tree = _tree(fetched, found[1])
        return tree

    def member(self, head: bytes, size: int) -> None:
        """Write the head of a file or a directory."""
        self._files += 1
        if self._files > self._limits.files:
            raise ValueError(f"it has more than {self._limits.files} files")
        if self._written + size > self._limits.disk_bytes:
            raise ValueError(f"its files take more than {self._limits.disk_bytes >> 20} MiB")
        self._put(head)

    def data(self, data: bytes) -> None:
        """Write what a file has."""
        self._put(data)

    def _put(self, data: bytes) -> None:
        self._written += len(data)
        write_all(self._output, data)


class _Writer:
    """Writes one repository."""

    def __init__(self, archive: Archive, fetched: Fetched, prefix: bytes) -> None:
        self._archive = archive
        self._fetched = fetched
        self._prefix = prefix
        self._entries: dict[bytes, tuple[int, ObjectID, int]] = {}

    def tree(self, top: Tree, inner: bytes) -> list[tuple[bytes, ObjectID]]:
        """Write files; return the paths and the commits of submodules."""
        pending, modules = [(b"", top)], list[tuple[bytes, ObjectID]]()
        while pending:
            folder, tree = pending.pop()
            for name, mode, sha in _entries(tree):
                path = folder + name
                kind = mode & MODE_TYPE
                if kind in (MODE_FOLDER, MODE_MODULE):
                    self._folder(path + b"/")
                    if kind == MODE_FOLDER:
                        pending.append((path + b"/", _tree(self._fetched, sha)))
                    else:
                        self._entries[path] = (mode, sha, 0)
                        modules.append((path, sha))
                else:
                    self._blob(path, mode, sha)
        return modules

    def git(self, *, whole: bool) -> None:
        """Write what makes a repository of the files, at this commit. ``whole``: all of them are there."""
        fetched = self._fetched
        base = os.fsencode(fetched.repo.path)
        config = f'[core]\n\tbare = false\n[remote "origin"]\n\turl = {fetched.url}\n'
        texts = {b"HEAD": fetched.commit.id + b"\n", b"config": config.encode()}
        ref, name = fetched.ref
        if ref.startswith(TAGS):
            texts[b"packed-refs"] = name + b" " + ref + b"\n"
        for path in (OWN, OWN + b"/refs"):
            self._folder(path + b"/")
        for path, data in texts.items():
            self._regular(OWN + b"/" + path, data, 0o644)
        if whole:
            self._index(os.path.join(base, b"index"))
        for path in _below(base):
            place = OWN + path[len(base) :]
            if os.path.isdir(path):
                self._folder(place + b"/")
            else:
                self._file(place, path)

    def _index(self, path: bytes) -> None:
        """Make git's list of the files, so that it finds them unchanged."""
        index = Index(os.fsdecode(path), read=False)
        for name, (mode, sha, size) in self._entries.items():
            index[name] = IndexEntry(0, 0, 0, 0, mode, 0, 0, size & 0xFFFFFFFF, sha)
        index.write()

    def _member(self, path: bytes, kind: str, mode: int) -> Member:
        full = self._prefix + path
        if len(full) > MAX_PATH:
            raise ValueError("it has paths longer than any system takes")
        member = Member(bytes(BLOCK))
        member.name = full.decode("utf-8", "surrogateescape")
        member.kind, member.mode = kind, mode
        member.mtime_ns = (self._fetched.commit.commit_time or 0) * 1_000_000_000
        return member

    def _folder(self, path: bytes) -> None:
        self._archive.member(headers(self._member(path, DIRECTORY, 0o755)), 0)

    def _blob(self, path: bytes, mode: int, sha: ObjectID) -> None:
        data = self._fetched.repo[sha].as_raw_string()
        self._entries[path] = (mode, sha, len(data))
        if mode & MODE_TYPE == MODE_LINK:
            member = self._member(path, SYMLINK, 0o777)
            member.linkname = data.decode("utf-8", "surrogateescape")
            self._archive.member(headers(member), 0)
            return
        self._regular(path, data, 0o755 if mode & EXECUTABLE else 0o644)

    def _head(self, path: bytes, size: int, mode: int) -> None:
        member = self._member(path, REGULAR, mode)
        member.size = size
        self._archive.member(headers(member), size)

    def _regular(self, path: bytes, data: bytes, mode: int) -> None:
        self._head(path, len(data), mode)
        self._archive.data(data)
        self._archive.data(padding(len(data)))

    def _file(self, place: bytes, path: bytes) -> None:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            self._head(place, size, 0o444)
            while data := file.read(CHUNK_BYTES):
                self._archive.data(data)
            self._archive.data(padding(size))


def _below(base: bytes) -> Iterator[bytes]:
    """Yield what of a bare repository is the same in any other."""
    for name in (b"index", b"shallow"):
        if os.path.exists(os.path.join(base, name)):
            yield os.path.join(base, name)
    for folder, _, names in os.walk(os.path.join(base, b"objects")):
        yield folder
        yield from (os.path.join(folder, name) for name in sorted(names))


def _entries(tree: Tree) -> Iterator[tuple[bytes, int, ObjectID]]:
    for entry in tree.iteritems():
        name, mode, sha = entry.path, entry.mode, entry.sha
        assert name is not None
        assert mode is not None
        assert sha is not None
        if name in UNSAFE or b"/" in name or name.lower() == OWN:
            raise ValueError(f"it has a file {name!r}")
        yield name, mode, sha


def _tree(fetched: Fetched, sha: ObjectID) -> Tree:
    found = fetched.repo[sha]
    if not isinstance(found, Tree):
        raise TypeError(f"{sha.decode()} is no tree")
    return found


def joined(parent: str, url: str) -> str:
    """Return where a submodule is: ``./`` and ``../`` are as seen from its parent, as git has it."""
    if not url.isprintable():
        return url  # which is refused
    if not url.startswith(("./", "../")):
        return Repository(url=url).place
    parts = urlsplit(parent)
    path = posixpath.normpath(posixpath.join(parts.path, url))
    return urlunsplit(parts._replace(path="/" + path.lstrip("/")))
