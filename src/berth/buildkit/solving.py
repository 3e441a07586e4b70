"""Building for a client of BuildKit's protocol."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from berth.buildkit import frontend, graphs
from berth.buildkit.checking import Checking
from berth.buildkit.inputs import INPUT, Inputs
from berth.buildkit.jobs import Result
from berth.buildkit.lending import Lending
from berth.buildkit.located import Located, in_words, lines_of
from berth.buildkit.vertices import Vertices, working
from berth.builds import fetching
from berth.builds.contextwork import MAX_TEXT_BYTES
from berth.builds.output import CommandFailed
from berth.errors import BerthError, Failed, InvalidArgument, Unsupported
from berth.oci.platform import this_machine

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping, Sequence

    from google.protobuf.message import Message

    from berth.buildkit.jobs import Job
    from berth.buildkit.located import Dockerfile
    from berth.buildkit.sessions import Sessions
    from berth.builds.requests import BuildRequest
    from berth.builds.service import Builds
    from berth.images.records import Image
    from berth.runtime.client import Runtime

FETCHED = "fetched"


class Solver:
    """Builds images."""

    def __init__(self, runtime: Runtime, sessions: Sessions, builds: Builds) -> None:
        self._runtime = runtime
        self._sessions = sessions
        self._builds = builds
        self._tasks: set[asyncio.Task[list[Image]]] = set()

    async def build(
        self, job: Job, name: str, options: Mapping[str, str], inputs: Mapping[str, Message]
    ) -> Result:
        """Build what a client asks of a frontend. ``inputs``: results of other builds of the client's."""
        frontend.check(name, options)
        source, first = self._source(job, options, inputs)
        several, platforms = frontend.is_several(options), frontend.platforms_of(options)
        requests = [replace(first, platform=one) for one in platforms] or [first]
        wanted = [
            (one, Vertices(job.journal, str(one.platform or this_machine()) if several else ""))
            for one in requests
        ]

        async def examine() -> None:
            assert source.source is not None
            assert source.definition is not None
            for one, vertices in wanted:
                checking = Checking(self._builds, one, job.journal, vertices.platform)
                examined = await checking.examine(source.source, source.ignored)
                if one is requests[0]:
                    await checking.warn(source.source, examined, source.definition)

        source.examine = examine
        for one in requests:
            await self._import(job, one)
        try:
            images = await self._uninterrupted(self._builds.make(wanted, source))
        except BerthError as error:
            failed = failure_of(error, source.source, lines_under_way(wanted))
            for _, vertices in wanted:
                await vertices.failed(failed)
            raise failed from error
        for at, platform in enumerate(platforms):
            images[at] = await self._builds.for_platform(images[at], platform)
        return Result(images=images, several=several)

    async def _import(self, job: Job, request: BuildRequest) -> None:
        """Pull images whose steps are to count; what is not to be had is shown, and left out."""
        for name in request.cache_from:
            title = f"importing cache manifest from {name}"
            with suppress(BerthError):
                async with working(job.journal, title) as vertex:
                    output = Vertices.of(job.journal, vertex)
                    wanted = replace(request, pull=False)
                    await self._builds.find(name, request.platform, wanted, output)

    def _source(
        self, job: Job, options: Mapping[str, str], inputs: Mapping[str, Message]
    ) -> tuple[Inputs, BuildRequest]:
        lending = Lending(job.session)
        source = Inputs(self._runtime, self._sessions, job, with_inputs(options, inputs), lending)
        source.request = frontend.request_of(options, source.contexts, lending)
        return source, source.request

    async def call(
        self, job: Job, name: str, options: Mapping[str, str], inputs: Mapping[str, Message]
    ) -> Mapping[str, bytes]:
        """Answer what a client asks of a frontend that is no build."""
        from berth.buildkit import subrequests

        frontend.check(name, options)
        wanted = options[frontend.REQUEST]
        if wanted not in subrequests.ALL:
            raise Unsupported(f"unsupported request {wanted}")
        if wanted == subrequests.DESCRIBE:
            return subrequests.described()
        source, request = self._source(job, options, inputs)
        checking = Checking(self._builds, request, job.journal)
        async with self._builds.folder() as folder, source.open(folder):
            assert source.source is not None
            try:
                return await checking.answer(wanted, source.source, source.ignored)
            except BerthError as error:
                raise failure_of(error, source.source, (0, 0)) from error

    async def fetch(self, job: Job, url: str) -> bytes:
        """Return a file that a URL leads to."""
        if not fetching.is_url(url):
            raise Unsupported(f"{url}: a URL with http or https is expected")
        async with working(job.journal, f"[internal] load {url}"), self._builds.folder() as folder:
            await fetching.fetch(url, folder, FETCHED)
            path = folder / FETCHED
            if path.stat().st_size > MAX_TEXT_BYTES:
                raise InvalidArgument(f"{url} is larger than a Dockerfile may be")
            return path.read_bytes()

    async def _uninterrupted(self, work: Coroutine[object, object, list[Image]]) -> list[Image]:
        """Wait for work in a task of its own: it is cancelled once, however often its client goes away."""
        task = asyncio.get_running_loop().create_task(work, name="build")
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.cancel()
            raise

    def _ended(self, task: asyncio.Task[list[Image]]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever is still there gets it; nobody else is to be told

    async def close(self) -> None:
        """End what is under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def lines_under_way(wanted: Sequence[tuple[BuildRequest, Vertices]]) -> tuple[int, int]:
    """Return where the step is that the last of several builds was at."""
    return next((one.lines for _, one in reversed(wanted) if one.lines[0]), (0, 0))


def with_inputs(options: Mapping[str, str], inputs: Mapping[str, Message]) -> dict[str, str]:
    """Return options that name the images that are meant by inputs."""
    found = dict(options)
    for key, value in options.items():
        if key.startswith("context:") and value.startswith(INPUT):
            definition = inputs.get(value.removeprefix(INPUT))
            if definition is None:
                raise Failed(f"{key.removeprefix('context:')}: the input {value} is not there")
            found[key] = graphs.source_of(definition)
    return found


def failure_of(error: BerthError, source: Dockerfile | None, lines: tuple[int, int]) -> BerthError:
    """Return an error in BuildKit's words, with where it is; ``lines``: of the step that was under way."""
    if isinstance(error, CommandFailed):
        error = Failed(
            f"process {quoted(error.command)} did not complete successfully:"
            f" exit code: {error.exit_code}"
        )
    if source is None or isinstance(error, Located):
        return error
    lines = lines_of(error) or lines
    return Located.of(in_words(error), source, lines)


def quoted(text: str) -> str:
    """Return a text in quotation marks as Go writes it."""
    marks = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    return '"' + "".join(marks.get(letter, letter) for letter in text) + '"'
