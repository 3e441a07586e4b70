"""Repositories of git that builds name by URL: what is wanted, and berthd's side of its worker.

Whatever servers send is taken apart by that worker alone (:mod:`berth.builds.gitwork`).
"""

from __future__ import annotations

import os
from base64 import b64encode
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote, urlsplit, urlunsplit

from berth.engine import pipes
from berth.errors import InvalidArgument, Unsupported

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from berth.builds.offers import Offers
    from berth.runtime.client import Runtime
    from berth.runtime.jobs import Job

SERVE = "berth.builds.gitwork:serve"
SCHEMES = ("git://", "http://", "https://")
USER = "x-access-token"  # to whom a token belongs, as hosts of repositories have it
HEADER, TOKEN = "GIT_AUTH_HEADER", "GIT_AUTH_TOKEN"  # ids of secrets
LIMITS = {
    "memory_bytes": 1 << 30,
    "disk_bytes": 16 << 30,  # of objects, and again of what is made of them
    "files": 1 << 22,
    "silence_s": 60,  # of a server, until it is given up
}
# What counts for HTTP of the worker, which has no environment of its own.
VARIABLES = (
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """What a URL names."""

    url: str
    ref: str = ""
    folder: str = ""
    checksum: str = ""
    keeps_git: bool = False
    submodules: bool = True

    @property
    def host(self) -> str:
        """The server."""
        return urlsplit(self.url).hostname or ""

    def kind(self) -> str:
        """Return what of a commit is wanted, for the cache."""
        return f"{self.folder}:{self.keeps_git}:{self.submodules}"

    @property
    def place(self) -> str:
        """The URL as it may be shown: without a password."""
        parts = urlsplit(self.url)
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def is_repository(text: str) -> bool:
    """Say whether a source is a repository."""
    path = text.partition("#")[0].partition("?")[0]
    if text.startswith(("git://", "git@", "ssh://", "github.com/")):
        return True
    return text.startswith(("http://", "https://")) and path.endswith(".git")


def host_of(url: str) -> str:
    """Return the server of any URL."""
    return read(url).host if is_repository(url) else urlsplit(url).hostname or ""


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
    check(url)
    found = Repository(url=url, ref=ref, folder=folder.strip("/"))
    return _with(found, parse_qs(query, keep_blank_values=True)) if query else found


def check(url: str) -> None:
    """Refuse what is no URL of a server; InvalidArgument."""
    try:
        parts = urlsplit(url)
        fits = bool(parts.hostname) and parts.port != 0
    except ValueError:
        fits = False
    if not fits or not url.isprintable() or " " in url:
        raise InvalidArgument(f"{url!r} is no URL of a repository")


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
                found = replace(found, keeps_git=_is_true(value))
            case "submodules":
                found = replace(found, submodules=_is_true(value))
            case _:
                raise InvalidArgument(f'unexpected query "{name}" in {found.place}')
    return found


def _is_true(value: str) -> bool:
    return value in ("", "1", "true")


async def authorization(wanted: Repository, offers: Offers, *, trusted: bool) -> str:
    """Return the header for a server: of the client's secrets, or of the URL; "" for none.

    ``trusted``: the client knows that this server is asked. Others get nothing that is not for them by
    name, and nobody does without TLS.
    """
    if wanted.url.startswith("git://"):
        return ""
    suffixes = [f".{wanted.host}", *([""] if trusted and wanted.url.startswith("https://") else [])]
    for suffix in suffixes:
        for id_ in (HEADER, TOKEN):
            if value := await offers.secret(id_ + suffix):
                return _header(id_, value.decode("utf-8", "replace").strip())
    parts = urlsplit(wanted.url)
    if parts.username is None:
        return ""
    return _basic(unquote(parts.username), unquote(parts.password or ""))


def _header(id_: str, value: str) -> str:
    if not value.isprintable():
        raise InvalidArgument(f"the secret {id_} is no {id_.rpartition('_')[2].lower()}")
    return value if id_ == HEADER else _basic(USER, value)


def _basic(user: str, password: str) -> str:
    return f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"


class Snapshot:
    """One commit's files, and those of its submodules."""

    def __init__(self, name: str, pipe: int, job: Job) -> None:
        self.name = name  # the commit's hash
        self._pipe = pipe
        self._job = job

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield a tar of the files."""
        async for data in pipes.read(self._pipe):
            yield data
        await self._job.result()


@asynccontextmanager
async def fetched(
    wanted: Repository, folder: Path, offers: Offers, runtime: Runtime, *, trusted: bool
) -> AsyncIterator[Snapshot]:
    """Fetch a commit into a directory of the build's own, and give it while the context lasts.

    ``trusted``: see :func:`authorization`.
    """
    argument = {
        "url": wanted.place,
        "ref": wanted.ref,
        "folder": wanted.folder,
        "checksum": wanted.checksum,
        "keeps_git": wanted.keeps_git,
        "submodules": wanted.submodules,
        "authorization": await authorization(wanted, offers, trusted=trusted),
        "environment": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        "limits": LIMITS,
    }
    path = folder / os.urandom(8).hex()
    path.mkdir(mode=0o700)
    reading, writing = pipes.make()
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        job = await runtime.run_job(SERVE, argument, fds=[directory, writing])
        for fd in (directory, writing):
            os.close(fd)
        directory = writing = -1
        try:
            found = await job.first()
            yield Snapshot(str(found["name"]), reading, job)
        finally:
            await job.end()
    finally:
        for fd in (reading, writing, directory):
            if fd >= 0:
                with suppress(OSError):
                    os.close(fd)
