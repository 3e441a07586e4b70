"""berthd's side of a build's context: a worker has it, and answers what berthd wants to know of it."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Protocol

from berth.engine import pipes
from berth.errors import BerthError, InvalidArgument, from_record
from berth.runtime import codec

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from contextlib import AsyncExitStack
    from pathlib import Path

    from berth.runtime.client import Runtime
    from berth.runtime.jobs import Job

    Document = dict[str, object]

SERVE = "berth.builds.contextwork:serve"
DEFAULT_DOCKERFILE = "Dockerfile"
NAME = "context"  # of its directory, below that of the build


class Context(Protocol):
    """What COPY and ADD find files in."""

    @property
    def folder(self) -> Path:
        """The directory that has the files, once a digest of any was asked for."""
        ...

    async def digest(
        self, patterns: Sequence[str], excludes: Sequence[str], *, parents: bool = False
    ) -> tuple[str, int]:
        """Return the hash of what patterns select, and how many files and directories they name.

        ``parents``: where they are counts as well.
        """
        ...


class Received:
    """A context that was received."""

    def __init__(self, folder: Path, job: Job, questions: int) -> None:
        self.folder = folder
        self._job = job
        self._questions = questions
        self._turn = asyncio.Lock()

    async def _ask(self, question: Document) -> Document:
        data = codec.encode(question) + b"\n"
        async with self._turn:
            await pipes.write(self._questions, _once(data))
            answer = dict(await self._job.first())
        if "error" in answer:
            record = answer["error"]
            assert isinstance(record, dict)
            raise from_record(record)
        return answer

    async def dockerfile(self, name: str) -> str:
        """Return the Dockerfile; what .dockerignore leaves out is removed, for clients send both always."""
        asked = name or DEFAULT_DOCKERFILE
        wanted = (asked, "dockerfile") if asked == DEFAULT_DOCKERFILE else (asked,)
        for path in wanted:
            found = (await self._ask({"read": path})).get("text")
            if found is not None:
                await self._ask({"leave_out": path})
                return str(found)
        raise InvalidArgument(f"Cannot locate specified Dockerfile: {asked}")

    async def digest(
        self, patterns: Sequence[str], excludes: Sequence[str], *, parents: bool = False
    ) -> tuple[str, int]:
        """Return the hash of what patterns select, and how many files and directories they name.

        ``parents``: where they are counts as well.
        """
        question: Document = {
            "digest": list(patterns),
            "excludes": list(excludes),
            "parents": parents,
        }
        found = await self._ask(question)
        count = found["count"]
        assert isinstance(count, int)
        return str(found["digest"]), count


class Deferred:
    """A context that is received when something of it is wanted, if ever."""

    def __init__(
        self,
        runtime: Runtime,
        folder: Path,
        begin: Callable[[], AsyncIterator[bytes]],
        undo: AsyncExitStack,
    ) -> None:
        """``begin``: of what yields it as an archive; ``undo``: of the build, to end the worker."""
        self.folder = folder / NAME
        self._runtime = runtime
        self._parent = folder
        self._begin = begin
        self._undo = undo
        self._received: Received | None = None
        self._turn = asyncio.Lock()

    async def digest(
        self, patterns: Sequence[str], excludes: Sequence[str], *, parents: bool = False
    ) -> tuple[str, int]:
        """Return the hash of what patterns select, and how many files and directories they name.

        ``parents``: where they are counts as well.
        """
        async with self._turn:
            received = await self._begun()
        return await received.digest(patterns, excludes, parents=parents)

    async def _begun(self) -> Received:
        if self._received is None:
            received = receive(self._runtime, self._parent, self._begin())
            self._received = await self._undo.enter_async_context(received)
        return self._received


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


@asynccontextmanager
async def receive(
    runtime: Runtime, folder: Path, body: AsyncIterator[bytes]
) -> AsyncIterator[Received]:
    """Extract an archive into a new directory; give the context while this context lasts."""
    path = folder / NAME
    path.mkdir(mode=0o755)
    reading, writing = pipes.make()
    asked, questions = pipes.make()
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        job = await runtime.run_job(SERVE, {}, fds=[reading, directory, asked])
        for fd in (reading, directory, asked):
            os.close(fd)
        reading = directory = asked = -1
        try:
            await pipes.write(writing, body)
            os.close(writing)
            writing = -1
            await _extracted(job)
            yield Received(path, job, questions)
        finally:
            await job.end()
    finally:
        for fd in (reading, writing, asked, questions, directory):
            if fd >= 0:
                with suppress(OSError):
                    os.close(fd)


async def _extracted(job: Job) -> None:
    try:
        await job.first()
    except BerthError as error:
        raise type(error)(f"Error processing tar file: {error.message}") from error
