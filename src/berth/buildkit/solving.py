"""Building for a client of BuildKit's protocol, and what it gets of the result."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from berth.buildkit import frontend
from berth.buildkit.inputs import Inputs
from berth.buildkit.vertices import Vertices, working
from berth.builds.output import CommandFailed
from berth.builds.service import tag_of
from berth.errors import BerthError, Failed, Unsupported

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping, Sequence

    from google.protobuf.message import Message

    from berth.buildkit.jobs import Job
    from berth.builds.service import Builds
    from berth.engine.engine import Engine
    from berth.images.records import Image
    from berth.runtime.client import Runtime


class Solver:
    """Builds and exports."""

    def __init__(self, runtime: Runtime, engine: Engine, builds: Builds) -> None:
        self._runtime = runtime
        self._engine = engine
        self._builds = builds

    async def build(self, job: Job, name: str, options: Mapping[str, str]) -> Image:
        """Build what a client asks of a frontend."""
        frontend.check(name, options)
        source = Inputs(self._runtime, job.session, options, job.journal)
        vertices = Vertices(job.journal)
        request = frontend.request_of(options)
        try:
            return await uninterrupted(self._builds.make(request, source, vertices))
        except CommandFailed as error:
            failed = Failed(
                f"process {quoted(error.command)} did not complete successfully:"
                f" exit code: {error.exit_code}"
            )
            await vertices.failed(failed)
            raise failed from error
        except BerthError as error:
            await vertices.failed(error)
            raise

    async def export(
        self, job: Job, image: Image, exporters: Sequence[Message]
    ) -> Mapping[str, str]:
        """Give a client what it wants of an image; return what there is to be said of that."""
        said: dict[str, str] = {}
        for exporter in exporters:
            if exporter.Type not in ("moby", "image"):
                raise Unsupported(f"exporter {exporter.Type!r} is not part of berth")
            said |= await self._name(job, image, exporter.Attrs)
        return said

    async def _name(self, job: Job, image: Image, attrs: Mapping[str, str]) -> Mapping[str, str]:
        names = [tag_of(name) for name in attrs.get("name", "").split(",") if name]
        async with working(job.journal, "exporting to image") as vertex:
            vertex.progress(f"writing image {image.id}", 0, done=True)
            for name in names:
                self._engine.images.tag(image.id, name)
                vertex.progress(f"naming to {name}", 0, done=True)
        said = {"containerimage.digest": image.id, "containerimage.config.digest": image.id}
        return {**said, "image.name": ",".join(names)} if names else said


async def uninterrupted(work: Coroutine[object, object, Image]) -> Image:
    """Wait for work in a task of its own: it is cancelled once, however often its client goes away."""
    task = asyncio.get_running_loop().create_task(work, name="build")
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        task.cancel()
        raise


def quoted(text: str) -> str:
    """Return a text in quotation marks as Go writes it."""
    marks = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    return '"' + "".join(marks.get(letter, letter) for letter in text) + '"'
