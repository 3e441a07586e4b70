"""moby.buildkit.v1.Control: builds begun and watched, and what the engine is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from berth import __version__
from berth.buildkit import messages
from berth.oci.platform import this_machine

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from google.protobuf.message import Message
    from grpclib.server import Stream

    from berth.buildkit.grpc import Method
    from berth.buildkit.jobs import Jobs
    from berth.buildkit.sessions import Sessions
    from berth.buildkit.solving import Solver
    from berth.images.records import Image

    Call = Stream[Message, Message]


class Control:
    """The methods of the service."""

    NAME = "moby.buildkit.v1.Control"

    def __init__(self, sessions: Sessions, jobs: Jobs, solver: Solver, id_: str) -> None:
        self._sessions = sessions
        self._jobs = jobs
        self._solver = solver
        self._id = id_  # of the engine

    def methods(self) -> Mapping[str, Method]:
        """Return the table."""
        return {
            "Info": (self.info, "one-one", "Empty", "Info"),
            "ListWorkers": (self.workers, "one-one", "Empty", "Workers"),
            "Solve": (self.solve, "one-one", "SolveRequest", "SolveResponse"),
            "Status": (self.status, "one-many", "StatusRequest", "Status"),
        }

    async def info(self, stream: Call) -> None:
        """Say what builds here."""
        await stream.recv_message()
        await stream.send_message(messages.of("Info")(buildkitVersion=version()))

    async def workers(self, stream: Call) -> None:
        """Say where it is built: here."""
        await stream.recv_message()
        found = messages.of("Workers")()
        found.record.append(worker(self._id))
        await stream.send_message(found)

    async def solve(self, stream: Call) -> None:
        """Build, or wait until the client has built through the gateway; then export."""
        request = await stream.recv_message()
        assert request is not None
        session = await self._sessions.find(request.Session)
        async with self._jobs.open(request.Ref, session) as job:
            image: Image | None
            if request.Frontend:
                image = await self._solver.build(job, request.Frontend, request.FrontendAttrs)
            else:
                image = await job.returned
            said: Mapping[str, str] = {}
            if image is not None:
                said = await self._solver.export(job, image, exporters_of(request))
            await stream.send_message(messages.of("SolveResponse")(ExporterResponse=said))

    async def status(self, stream: Call) -> None:
        """Show a build while it goes on."""
        request = await stream.recv_message()
        assert request is not None
        job = await self._jobs.find(request.Ref)
        async for message in job.journal.read():
            await stream.send_message(message)


def exporters_of(request: Message) -> Sequence[Message]:
    """Return what is to be exported; older clients name one exporter in a place of its own."""
    if request.Exporters or not request.ExporterDeprecated:
        return list(request.Exporters)
    kind, attrs = request.ExporterDeprecated, request.ExporterAttrsDeprecated
    return [messages.of("Exporter")(Type=kind, Attrs=attrs)]


def version() -> Message:
    """Return what clients show as the version of BuildKit."""
    return messages.of("Version")(package="berth", version=__version__)


def worker(id_: str) -> Message:
    """Return the one worker that there is."""
    here = this_machine()
    found = messages.of("Worker")(ID=id_, BuildkitVersion=version())
    found.platforms.add(Architecture=here.architecture, OS=here.os, Variant=here.variant)
    return found
