"""Repositories of git that builds name by URL: fetched, and turned into an archive of one commit's files.

What is in them is written by nobody but the worker that extracts the archive.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import threading
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from berth.errors import Failed, InvalidArgument, NotFound, Unsupported
from berth.images.tar import BLOCK, DIRECTORY, REGULAR, SYMLINK, Member
from berth.images.tar_writer import END, headers, padding

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping

    from dulwich.objects import Commit, ObjectID, Tree
    from dulwich.refs import Ref
    from dulwich.repo import Repo
    from urllib3 import PoolManager

    from berth.builds.offers import Offers

SCHEMES = ("git://", "http://", "https://")
HASH = re.compile(r"[0-9a-f]{40}")
MODE_TYPE, MODE_LINK, MODE_MODULE = 0o170000, 0o120000, 0o160000
MODE_FOLDER, EXECUTABLE = 0o40000, 0o100
NAMES = ("refs/heads/{}", "refs/tags/{}", "{}")
USER = "x-access-token"  # to whom a token belongs, as hosts of repositories have it
SECRET = "GIT_AUTH_TOKEN"  # noqa: S105 - its id
UNSAFE = (b"", b".", b"..")
OWN = b".git"
CHUNK_BYTES = 1 << 18
SILENCE_S = 60.0  # of a server, until it is given up


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """What a URL names."""

    url: str
    ref: str = ""
    folder: str = ""
    checksum: str = ""
    keeps_git: bool = False

    @property
    def host(self) -> str:
        """The server."""
        return urlsplit(self.url).hostname or ""


def is_repository(text: str) -> bool:
    """Say whether a source is a repository."""
    path = text.partition("#")[0]
    if text.startswith(("git://", "git@", "ssh://", "github.com/")):
        return True
    return text.startswith(("http://", "https://")) and urlsplit(path).path.endswith(".git")


def read(text: str) -> Repository:
    """Take a URL apart: ``URL#REF:FOLDER`` or ``URL?ref=REF&subdir=FOLDER``."""
    url, _, fragment = text.partition("#")
    ref, _, folder = fragment.partition(":")
    if url.startswith("github.com/"):
        url = f"https://{url}"
    if not url.startswith(SCHEMES):
        raise Unsupported(
            f"{text}: repositories are fetched by https, http and git",
            hint="clone it and send the directory",
        )
    url, _, query = url.partition("?")
    found = Repository(url=url, ref=ref, folder=folder.strip("/"))
    return _with(found, parse_qs(query, keep_blank_values=True)) if query else found


def _with(found: Repository, query: Mapping[str, list[str]]) -> Repository:
    for name, values in query.items():
        value = values[-1]
        match name:
            case "ref":
                found = replace(found, ref=value)
            case "branch":
                found = replace(found, ref=f"refs/heads/{value}")
            case "tag":
                found = replace(found, ref=f"refs/tags/{value}")
            case "subdir":
                found = replace(found, folder=value.strip("/"))
            case "checksum" | "commit":
                found = replace(found, checksum=value)
            case "keep-git-dir":
                found = replace(found, keeps_git=value in ("", "1", "true"))
            case _:
                raise InvalidArgument(f'unexpected query "{name}" in {found.url}')
    return found


def fetch(wanted: Repository, path: Path, token: str = "") -> Snapshot:
    """Fetch one commit into the new directory ``path``. Blocks; to be called in a thread."""
    try:
        from dulwich.client import get_transport_and_path
        from dulwich.repo import Repo
    except ImportError as error:
        raise Unsupported(
            "repositories need the package dulwich", hint="pip install 'berth[git]'"
        ) from error
    path.mkdir(mode=0o700)
    repo = Repo.init_bare(str(path))
    try:
        with _failing(wanted):
            client, place = get_transport_and_path(
                wanted.url,
                username=USER if token else None,
                password=token or None,
                pool_manager=_connections(wanted.url),
            )
            asked = _Asked(wanted)
            client.fetch(place, repo, determine_wants=asked.choose, depth=asked.depth)
            assert asked.found is not None
            commit = _commit(repo, asked.found)
    except BaseException:
        repo.close()
        raise
    name = commit.id.decode()
    if wanted.checksum and not name.startswith(wanted.checksum):
        repo.close()
        raise Failed(f"expected checksum to match {wanted.checksum}, got {name}")
    return Snapshot(repo, commit, wanted)


def _connections(url: str) -> PoolManager | None:
    """Return what waits for no server of HTTP for ever."""
    from dulwich.client import default_urllib3_manager
    from urllib3 import PoolManager

    if urlsplit(url).scheme == "git":
        return None
    found = default_urllib3_manager(None, base_url=url, timeout=SILENCE_S)
    assert isinstance(found, PoolManager)
    return found


@contextmanager
def _failing(wanted: Repository) -> Iterator[None]:
    """Say what was wanted when it cannot be had."""
    from dulwich.errors import GitProtocolError, NotGitRepository, ObjectFormatException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except (NotGitRepository, GitProtocolError, ObjectFormatException) as error:
        raise Failed(f"fetch {wanted.url}: {str(error) or type(error).__name__}") from error
    except (HTTPError, OSError, KeyError, ValueError) as error:
        raise Failed(f"fetch {wanted.url}: {error}") from error


class _Asked:
    """Chooses what to ask of a server."""

    def __init__(self, wanted: Repository) -> None:
        self._wanted = wanted
        self.found: ObjectID | None = None
        # A commit that no name leads to is found among all.
        self.depth = None if HASH.fullmatch(wanted.ref) else 1

    def choose(
        self, refs: Mapping[Ref, ObjectID | None], depth: int | None = None
    ) -> list[ObjectID]:
        """Return the hashes to fetch."""
        from dulwich.objects import ObjectID
        from dulwich.refs import Ref

        del depth
        ref = self._wanted.ref
        if HASH.fullmatch(ref):
            self.found = ObjectID(ref.encode())
            return sorted({found for found in refs.values() if found})
        names = [Ref(name.format(ref).encode()) for name in NAMES] if ref else [Ref(b"HEAD")]
        found = next((found for name in names if (found := refs.get(name))), None)
        if found is None:
            raise NotFound(f"repository {self._wanted.url} does not contain ref {ref or 'HEAD'}")
        self.found = found
        return [found]


def _commit(repo: Repo, name: ObjectID) -> Commit:
    from dulwich.objects import Commit, Tag

    found = repo[name]
    while isinstance(found, Tag):
        found = repo[found.object[1]]
    if not isinstance(found, Commit):
        raise NotFound(f"{name.decode()} is no commit")
    return found


class Snapshot:
    """One commit's files."""

    def __init__(self, repo: Repo, commit: Commit, wanted: Repository) -> None:
        self._repo = repo
        self._commit = commit
        self._wanted = wanted

    @property
    def name(self) -> str:
        """The commit's hash."""
        return self._commit.id.decode()

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield a tar of the files."""
        archive = self._archive()
        while data := await asyncio.to_thread(_next, archive):
            yield data

    def _archive(self) -> Iterator[bytes]:
        yield from self._files()
        if self._wanted.keeps_git:
            yield from self._git()
        yield END

    def _files(self) -> Iterator[bytes]:
        pending = [(b"", self._top())]
        while pending:
            folder, tree = pending.pop()
            for entry in tree.iteritems():
                name, mode, sha = entry.path, entry.mode, entry.sha
                assert name is not None
                assert mode is not None
                assert sha is not None
                if name in UNSAFE or b"/" in name or name.lower() == OWN:
                    raise InvalidArgument(f"{self._wanted.url} has a file {name!r}")
                path = folder + name
                kind = mode & MODE_TYPE
                if kind in (MODE_FOLDER, MODE_MODULE):  # what is in other repositories is left out
                    yield headers(self._member(path + b"/", DIRECTORY, 0o755))
                    if kind == MODE_FOLDER:
                        pending.append((path + b"/", self._tree(sha)))
                else:
                    yield from self._blob(path, mode, sha)

    def _git(self) -> Iterator[bytes]:
        """Yield what makes a repository of the files, at this commit."""
        config = f'[core]\n\tbare = false\n[remote "origin"]\n\turl = {self._wanted.url}\n'
        texts = {b"HEAD": self._commit.id + b"\n", b"config": config.encode()}
        base = Path(self._repo.path)
        inner = [base / "shallow", *sorted((base / "objects").rglob("*"))]
        for name in (b"", b"/refs", b"/objects"):
            yield headers(self._member(OWN + name + b"/", DIRECTORY, 0o755))
        for name, data in texts.items():
            yield from self._regular(OWN + b"/" + name, data, 0o644)
        for path in inner:
            name = OWN + b"/" + os.fsencode(path.relative_to(base))
            if path.is_dir():
                yield headers(self._member(name + b"/", DIRECTORY, 0o755))
            elif path.exists():
                yield from self._regular(name, path.read_bytes(), 0o444)

    def _top(self) -> Tree:
        """Return the tree of the folder that is wanted."""
        tree = self._tree(self._commit.tree)
        for name in filter(None, self._wanted.folder.split("/")):
            entry = name.encode()
            found = tree[entry] if entry in tree else None  # noqa: SIM401 - a tree is no dictionary
            if found is None or found[0] & MODE_TYPE != MODE_FOLDER:
                raise NotFound(f"{self._wanted.url} has no directory {self._wanted.folder}")
            tree = self._tree(found[1])
        return tree

    def _tree(self, sha: ObjectID) -> Tree:
        from dulwich.objects import Tree

        found = self._repo[sha]
        if not isinstance(found, Tree):
            raise InvalidArgument(f"{self._wanted.url}: {sha.decode()} is no tree")
        return found

    def _member(self, path: bytes, kind: str, mode: int) -> Member:
        member = Member(bytes(BLOCK))
        member.name = path.decode("utf-8", "surrogateescape")
        member.kind, member.mode = kind, mode
        member.mtime_ns = self._commit.commit_time * 1_000_000_000
        return member

    def _blob(self, path: bytes, mode: int, sha: ObjectID) -> Iterator[bytes]:
        data = self._repo[sha].as_raw_string()
        if mode & MODE_TYPE == MODE_LINK:
            member = self._member(path, SYMLINK, 0o777)
            member.linkname = data.decode("utf-8", "surrogateescape")
            yield headers(member)
            return
        yield from self._regular(path, data, 0o755 if mode & EXECUTABLE else 0o644)

    def _regular(self, path: bytes, data: bytes, mode: int) -> Iterator[bytes]:
        member = self._member(path, REGULAR, mode)
        member.size = len(data)
        yield headers(member) + data + padding(len(data))

    def close(self) -> None:
        """Let go of the repository."""
        self._repo.close()


def _next(archive: Iterator[bytes]) -> bytes:
    """Return the next pieces of an archive as one; nothing at the end."""
    found, size = [], 0
    for piece in archive:
        found.append(piece)
        size += len(piece)
        if size >= CHUNK_BYTES:
            break
    return b"".join(found)


async def _apart(ask: Callable[[], Snapshot]) -> Snapshot:
    """Ask in a thread for which nobody waits: a server that says nothing keeps no others from theirs."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Snapshot] = loop.create_future()

    def settle(found: Snapshot | None, error: Exception | None) -> None:
        if not answer.cancelled():
            if found is not None:
                answer.set_result(found)
            elif error is not None:
                answer.set_exception(error)
        elif found is not None:
            found.close()

    def work() -> None:
        found, why = None, None
        try:
            found = ask()
        except Exception as error:  # noqa: BLE001 - whoever waits gets it
            why = error
        with suppress(RuntimeError):  # berthd has left
            loop.call_soon_threadsafe(settle, found, why)

    threading.Thread(target=work, name="repository", daemon=True).start()
    return await answer


@asynccontextmanager
async def fetched(wanted: Repository, folder: Path, offers: Offers) -> AsyncIterator[Snapshot]:
    """Fetch a commit into a directory of the build's own, and give it while the context lasts."""
    secret = await offers.secret(f"{SECRET}.{wanted.host}") or await offers.secret(SECRET)
    token = (secret or b"").decode("utf-8", "replace").strip()
    path = folder / secrets.token_hex(8)
    snapshot = await _apart(lambda: fetch(wanted, path, token))
    try:
        yield snapshot
    finally:
        snapshot.close()
