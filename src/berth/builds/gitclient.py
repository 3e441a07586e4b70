"""Commits of repositories, fetched by dulwich; within a confined worker (:mod:`berth.builds.gitwork`)."""

from __future__ import annotations

import errno
import os
import re
import resource
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from dulwich.client import AbstractHttpGitClient, TCPGitClient
from dulwich.errors import GitProtocolError
from dulwich.objects import Commit, ObjectID, Tag
from dulwich.refs import Ref
from dulwich.repo import Repo

from berth.builds.repositories import SCHEMES, check
from berth.errors import BerthError, Failed, NotFound, Unavailable, Unsupported
from berth.registry.proxies import origin
from berth.registry.transport import AGENT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from dulwich.client import DetermineWantsFunc, GitClient
    from urllib3.response import BaseHTTPResponse

    from berth.builds.gitwork import Limits
    from berth.registry.transport import Transport

HASH = re.compile(r"[0-9a-f]{40}")
NAMES = ("refs/heads/{}", "refs/tags/{}", "{}")
TAGS = b"refs/tags/"
OK = 200
REFUSALS = (401, 403)


class Server:
    """The one whose repository is wanted, and what it is to be shown. No other is shown that."""

    def __init__(self, url: str, authorization: str) -> None:
        self._origin = origin(url)
        self._authorization = authorization

    def headers(self, url: str) -> Mapping[str, str]:
        """Return what a request is to have."""
        known = self._authorization and origin(url) == self._origin
        return {"Authorization": self._authorization} if known else {}


class Fetched:
    """One commit, and the repository that has it and all that it needs."""

    def __init__(self, repo: Repo, url: str, name: ObjectID, ref: bytes) -> None:
        self.repo = repo
        self.url = url
        self.ref = (ref, name)  # by which it was found, if any
        found = repo[name]
        while isinstance(found, Tag):
            found = repo[found.object[1]]
        if not isinstance(found, Commit):
            raise NotFound(f"{name.decode()} is no commit")
        self.commit = found

    @property
    def name(self) -> str:
        """The commit's hash."""
        return self.commit.id.decode()

    def verify(self, checksum: str) -> None:
        """Raise Failed if another commit is expected."""
        if checksum and not self.name.startswith(checksum):
            raise Failed(f"expected checksum to match {checksum}, got {self.name}")


class Client:
    """Fetches commits, each into a repository of its own below this process's root."""

    def __init__(self, transport: Transport, server: Server, limits: Limits) -> None:
        self._transport = transport
        self._server = server
        self.limits = limits
        self._fetched: dict[tuple[str, str], Fetched] = {}
        self._count = 0

    def fetch(self, url: str, ref: str) -> Fetched:
        """Fetch the commit that a name or a hash stands for; nothing for the server's own choice."""
        known = self._fetched.get((url, ref))
        if known is None:
            with failing(url, self.limits):
                known = self._fetched[url, ref] = self._fetch(url, ref)
        return known

    def _fetch(self, url: str, ref: str) -> Fetched:
        if not url.startswith(SCHEMES):
            raise Unsupported("repositories are fetched by https, http and git")
        check(url)
        self._count += 1
        folder = f"/{self._count}"
        os.mkdir(folder)
        repo = Repo.init_bare(folder)
        left = max(self.limits.disk_bytes - _stored(), 0)
        resource.setrlimit(resource.RLIMIT_FSIZE, (left, resource.RLIM_INFINITY))
        path = urlsplit(url).path
        asked = Asked(url, ref)
        for wants, depth in asked.ways():
            client = self._client(url)
            try:
                client.fetch(path, repo, wants, depth=depth, ref_prefix=asked.prefixes)
            except GitProtocolError:
                if depth is None:
                    raise
            else:
                break
        return Fetched(repo, url, asked.found, asked.name)

    def _client(self, url: str) -> GitClient:
        parts = urlsplit(url)
        if parts.scheme == "git":
            assert parts.hostname is not None
            return TCPGitClient(parts.hostname, port=parts.port, thin_packs=False)
        return Http(url, self._transport, self._server)


class Asked:
    """Chooses what to ask of a server."""

    def __init__(self, url: str, ref: str) -> None:
        self._url = url
        self._ref = ref
        self._is_hash = bool(HASH.fullmatch(ref))
        self._names = [Ref(name.format(ref).encode()) for name in NAMES] if ref else [Ref(b"HEAD")]
        self.prefixes: Sequence[bytes] | None = None if self._is_hash else self._names
        self.found = ObjectID(ref.encode())
        self.name = b""

    def ways(self) -> Iterator[tuple[DetermineWantsFunc, int | None]]:
        """Yield how to choose, and how many commits deep; what servers may refuse comes first."""
        yield (self.this if self._is_hash else self.named), 1
        yield (self.all if self._is_hash else self.named), None

    def this(self, refs: Mapping[Ref, ObjectID], depth: int | None = None) -> list[ObjectID]:
        """Return the hash that is wanted."""
        del refs, depth
        return [self.found]

    def all(self, refs: Mapping[Ref, ObjectID], depth: int | None = None) -> list[ObjectID]:
        """Return every hash that has a name: the one that is wanted may be before them."""
        del depth
        return sorted(set(refs.values()))

    def named(self, refs: Mapping[Ref, ObjectID], depth: int | None = None) -> list[ObjectID]:
        """Return the hash of the name that is wanted."""
        del depth
        for name in self._names:
            if name in refs:
                self.found, self.name = refs[name], name
                return [self.found]
        raise NotFound(f"repository {self._url} does not contain ref {self._ref or 'HEAD'}")


class Http(AbstractHttpGitClient):
    """git's protocol over berth's own HTTP."""

    def __init__(self, url: str, transport: Transport, server: Server) -> None:
        super().__init__(url, thin_packs=False)
        self._transport = transport
        self._server = server

    def _http_request(  # type: ignore[override]
        self,
        url: str,
        headers: dict[str, str] | None = None,
        data: bytes | Iterator[bytes] | None = None,
        raise_for_status: bool = True,
    ) -> tuple[BaseHTTPResponse, Callable[[int], bytes]]:
        own = {"User-Agent": f"git/{AGENT}", "Pragma": "no-cache"}  # GitHub answers what begins so
        sent = {**(headers or {}), **own, **self._server.headers(url)}
        method = "GET" if data is None else "POST"
        response, answered = self._transport.follow(method, url, headers=sent, body=data)
        if raise_for_status and response.status != OK:
            response.close()
            if response.status in REFUSALS:
                host = urlsplit(url).hostname
                raise Failed(
                    f"fetch {url}: the server wants credentials (status {response.status})",
                    hint=f"give the secret GIT_AUTH_TOKEN.{host}",
                )
            raise Failed(f"fetch {url}: status {response.status} {response.reason or ''}".rstrip())
        response.content_type = response.headers.get("Content-Type")  # type: ignore[attr-defined]
        response.redirect_location = answered if answered != url else ""  # type: ignore[attr-defined]
        return response, response.read


@contextmanager
def failing(url: str, limits: Limits) -> Iterator[None]:
    """Say what was wanted when it cannot be had."""
    try:
        yield
    except Unavailable as error:
        raise Failed(f"fetch {url}: {error.message}") from error
    except BerthError:
        raise
    except Exception as error:  # a server can make any part of what reads it fail
        raise Failed(f"fetch {url}: {_why(error, limits)}") from error


def _why(error: BaseException, limits: Limits) -> str:
    """Return the cause in words."""
    cause: BaseException | None = error
    while cause is not None:  # what fails for lack of memory fails to clean up as well
        number = cause.errno if isinstance(cause, OSError) else 0
        if isinstance(cause, MemoryError) or number == errno.ENOMEM:
            return f"it takes more than {_size(limits.memory_bytes)} of memory"
        if number == errno.EFBIG:
            return f"it takes more than {_size(limits.disk_bytes)} of objects"
        cause = cause.__context__
    if isinstance(error, OSError):
        return (error.strerror or str(error)).lower()
    return str(error) or type(error).__name__


def _size(size_bytes: int) -> str:
    return f"{size_bytes >> 20} MiB"


def _stored() -> int:
    """Return how much is below this process's root."""
    return sum(
        os.lstat(os.path.join(folder, name)).st_size
        for folder, _, names in os.walk("/")
        for name in names
    )
