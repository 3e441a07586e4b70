"""Where a build of BuildKit's protocol has its Dockerfile and its contexts from: its client's session."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from berth.buildkit import filesync, frontend
from berth.buildkit.lending import pull_upload
from berth.buildkit.located import Dockerfile
from berth.buildkit.vertices import working
from berth.builds import fetching, repositories
from berth.builds.context import Deferred
from berth.builds.contextwork import MAX_TEXT_BYTES
from berth.builds.making import Archive, nothing, pieces
from berth.dockerfile import ignore
from berth.errors import Failed, Unsupported

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
    from pathlib import Path

    from berth.buildkit.jobs import Job
    from berth.buildkit.journal import Vertex
    from berth.buildkit.lending import Lending
    from berth.buildkit.sessions import Session, Sessions
    from berth.builds.context import Context
    from berth.builds.requests import BuildRequest, NamedContext
    from berth.runtime.client import Runtime

    Opened = tuple[str, Context]

DEFAULT_DOCKERFILE = "Dockerfile"
FETCHED = "fetched"
CONTEXT, INTERNAL = "context", "[internal]"
IMAGE, LOCAL, INPUT = "docker-image://", "local:", "input:"


class Inputs:
    """The source of a build whose client sends files when they are asked for."""

    def __init__(
        self,
        runtime: Runtime,
        sessions: Sessions,
        job: Job,
        options: Mapping[str, str],
        lending: Lending,
    ) -> None:
        self._runtime = runtime
        self._sessions = sessions
        self._own = job.session
        self._journal = job.journal
        self._options = options
        self._lending = lending
        self._ignored: bytes | None = None  # what .dockerignore says, once it is known
        self.definition: Vertex | None = None  # what has shown how the Dockerfile was loaded
        self.source: Dockerfile | None = None  # known when it is loaded
        self.contexts: dict[str, NamedContext] = {}  # known when it is open
        self.request: BuildRequest | None = None
        self.examine: Callable[[], Awaitable[object]] | None = None  # done before it is built

    @asynccontextmanager
    async def open(self, folder: Path) -> AsyncIterator[Opened]:
        """Give the text of the Dockerfile and the context."""
        self._lending.folder = folder
        async with AsyncExitStack() as undo:
            for name, value in frontend.with_prefix(self._options, "context:").items():
                self.contexts[name] = self._named(name, value, folder, undo)
            if self._url:
                text, context = await self._remote(self._url, folder, undo)
            else:
                text = await self._dockerfile()
                context = self._deferred(CONTEXT, INTERNAL, folder, undo)
            name = self._options.get("filename") or DEFAULT_DOCKERFILE
            self.source = Dockerfile(name=name, text=text)
            frontend.check_syntax(text)
            if self.examine is not None:
                await self.examine()
            yield text, context

    @property
    def _url(self) -> str:
        return self._options.get(self._options.get("contextkey", "context"), "")

    async def ignored(self) -> Sequence[str]:
        """Return what is left out of the context; nothing of one that does not come from the client."""
        return [] if self._url else await self._excludes(CONTEXT, INTERNAL)

    async def _remote(self, url: str, folder: Path, undo: AsyncExitStack) -> Opened:
        """Return what a URL leads to, or what the client has on its standard input."""
        assert self.request is not None
        body = pull_upload(self._own, url) if url.startswith(frontend.UPLOADED) else nothing()
        archive = Archive(self._runtime, self.request, body)
        async with working(self._journal, "[internal] load remote build context") as vertex:
            self.definition = vertex
            text, received = await undo.enter_async_context(archive.received(folder))
        if "dockerfilekey" in self._options:
            text = await self._dockerfile()
        return text or await received.dockerfile(self._options.get("filename", "")), received

    def _named(self, name: str, value: str, folder: Path, undo: AsyncExitStack) -> NamedContext:
        if value.startswith(IMAGE):
            return value.removeprefix(IMAGE)
        own = folder / os.urandom(8).hex()
        own.mkdir(mode=0o700)
        if fetching.is_url(value) or repositories.is_repository(value):
            return Deferred(self._runtime, own, lambda: self._fetched(name, value, own), undo)
        if value.startswith(LOCAL):
            return self._deferred(value.removeprefix(LOCAL), f"[context {name}]", own, undo)
        raise Unsupported(
            f"context {name}={value} is not part of berth: directories, archives, repositories and images are"
        )

    async def _fetched(self, name: str, url: str, folder: Path) -> AsyncIterator[bytes]:
        async with AsyncExitStack() as undo:
            async with working(self._journal, f"[context {name}] load {url}"):
                if repositories.is_repository(url):
                    wanted, runtime = repositories.read(url), self._runtime
                    found = repositories.fetched(
                        wanted, folder, self._lending, runtime, trusted=True
                    )
                    archive = (await undo.enter_async_context(found)).pieces()
                else:
                    await fetching.fetch(url, folder, FETCHED)
                    archive = pieces(folder / FETCHED)
            async for data in archive:
                yield data

    def _deferred(
        self,
        where: str,
        title: str,
        folder: Path,
        undo: AsyncExitStack,
    ) -> Deferred:
        """Return a directory of the client's that is sent when it is needed."""

        async def begin() -> AsyncIterator[bytes]:
            excludes = await self._excludes(where, title)
            what = "build context" if title == INTERNAL else "from client"
            async with working(self._journal, f"{title} load {what}") as vertex:

                def progress(size_bytes: int) -> None:
                    vertex.progress(f"transferring {where}:", size_bytes)

                session = await self._session(where)
                async for data in filesync.archive(session, where, excludes, progress):
                    yield data

        return Deferred(self._runtime, folder, begin, undo)

    async def _session(self, where: str) -> Session:
        """Return the session that has a directory: targets of a bake may share one for it."""
        if shared := self._options.get(f"local-sessionid:{where}"):
            return await self._sessions.find(shared)
        return self._own

    async def _dockerfile(self) -> str:
        name = self._options.get("filename") or DEFAULT_DOCKERFILE
        beside = f"{name}.dockerignore"
        paths = [name, beside, *(["dockerfile"] if name == DEFAULT_DOCKERFILE else ())]
        where = self._options.get("dockerfilekey") or "dockerfile"
        title = f"[internal] load build definition from {name}"
        async with working(self._journal, title) as vertex:
            self.definition = vertex
            session = await self._session(where)
            found = await filesync.read(session, where, paths, MAX_TEXT_BYTES)
            self._ignored = found.pop(beside, None)
            if not found:
                why = f"open {name}: no such file or directory"
                raise Failed(f"failed to read dockerfile: {why}")
            data = found.get(name, next(iter(found.values())))
            vertex.progress("transferring dockerfile:", len(data), done=True)
        return data.decode("utf-8", "replace")

    async def _excludes(self, where: str, title: str) -> Sequence[str]:
        data = self._ignored if title == INTERNAL else None
        if data is None:
            async with working(self._journal, f"{title} load {ignore.NAME}") as vertex:
                session = await self._session(where)
                found = await filesync.read(session, where, [ignore.NAME], MAX_TEXT_BYTES)
                data = found.get(ignore.NAME, b"")
                vertex.progress(f"transferring {where}:", len(data), done=True)
        if title == INTERNAL:
            self._ignored = data
        return ignore.read(data.decode("utf-8", "replace"))
