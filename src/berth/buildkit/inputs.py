"""Where a build of BuildKit's protocol has its Dockerfile and its contexts from: its client's session."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from berth.buildkit import filesync
from berth.buildkit.vertices import working
from berth.builds.context import Deferred
from berth.builds.contextwork import MAX_TEXT_BYTES
from berth.dockerfile import ignore
from berth.errors import Failed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

    from berth.buildkit.journal import Journal
    from berth.buildkit.sessions import Session
    from berth.builds.context import Context
    from berth.runtime.client import Runtime

DEFAULT_DOCKERFILE = "Dockerfile"


class Inputs:
    """The source of a build whose client sends files when they are asked for."""

    def __init__(
        self, runtime: Runtime, session: Session, options: Mapping[str, str], journal: Journal
    ) -> None:
        self._runtime = runtime
        self._session = session
        self._options = options
        self._journal = journal
        self._ignored: bytes | None = None  # what is beside the Dockerfile, for it alone

    @asynccontextmanager
    async def open(self, folder: Path) -> AsyncIterator[tuple[str, Context]]:
        """Give the text of the Dockerfile and the context."""
        text = await self._dockerfile()
        excludes = await self._excludes()
        async with AsyncExitStack() as undo:

            def begin() -> AsyncIterator[bytes]:
                return self._received("context", excludes)

            yield text, Deferred(self._runtime, folder, begin, undo)

    async def _dockerfile(self) -> str:
        name = self._options.get("filename") or DEFAULT_DOCKERFILE
        beside = f"{name}.dockerignore"
        paths = [name, beside, *(["dockerfile"] if name == DEFAULT_DOCKERFILE else ())]
        where = self._options.get("dockerfilekey") or "dockerfile"
        title = f"[internal] load build definition from {name}"
        async with working(self._journal, title) as vertex:
            found = await filesync.read(self._session, where, paths, MAX_TEXT_BYTES)
            self._ignored = found.pop(beside, None)
            if not found:
                raise Failed(f"failed to read dockerfile: open {name}: no such file or directory")
            data = found.get(name, next(iter(found.values())))
            vertex.progress("transferring dockerfile:", len(data), done=True)
        return data.decode("utf-8", "replace")

    async def _excludes(self) -> Sequence[str]:
        data = self._ignored
        if data is None:
            async with working(self._journal, "[internal] load .dockerignore") as vertex:
                found = await filesync.read(self._session, "context", [ignore.NAME], MAX_TEXT_BYTES)
                data = found.get(ignore.NAME, b"")
                vertex.progress("transferring context:", len(data), done=True)
        return ignore.read(data.decode("utf-8", "replace"))

    async def _received(self, name: str, excludes: Sequence[str]) -> AsyncIterator[bytes]:
        async with working(self._journal, "[internal] load build context") as vertex:
            total = 0

            def progress(size_bytes: int) -> None:
                nonlocal total
                total = size_bytes
                vertex.progress("transferring context:", size_bytes)

            async for data in filesync.archive(self._session, name, excludes, progress):
                yield data
            vertex.progress("transferring context:", total, done=True)
