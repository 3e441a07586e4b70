"""moby.buildkit.v1.frontend.LLBBridge: the gateway through which buildx has its images built."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from berth.buildkit import frontend, graphs, messages
from berth.buildkit.jobs import Result
from berth.errors import Failed, Unsupported
from berth.images.catalog import platform_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from google.protobuf.message import Message
    from grpclib.server import Stream

    from berth.buildkit.grpc import Method
    from berth.buildkit.jobs import Job, Jobs
    from berth.buildkit.solving import Solver
    from berth.images.records import Image

    Call = Stream[Message, Message]

CAPS = (
    *("solve.base", "return", "returnmap", "proto.refarray", "reference.output"),
    *("readfile", "statfile", "frontend.caps", "frontend.inputs", "gateway.evaluate"),
)
LLB_CAPS = (
    *("source.image", "source.local", "source.http", "file.base", "platform", "constraints"),
    *("meta.description", "exporter.multiple", "gc.freespacefilter"),
)
FILE_MODE = 0o600
PLATFORMS = "refs.platforms"


def described(images: Sequence[Image]) -> bytes:
    """Return which platforms images are for, as clients are told of it."""
    entries = []
    for platform in map(platform_of, images):
        variant = {"variant": platform.variant} if platform.variant else {}
        facts = {"architecture": platform.architecture, "os": platform.os, **variant}
        entries.append({"ID": str(platform), "Platform": facts})
    return msgspec.json.encode({"Platforms": entries})


class Bridge:
    """The methods of the service. Each call names the job that it belongs to."""

    NAME = "moby.buildkit.v1.frontend.LLBBridge"

    def __init__(self, jobs: Jobs, solver: Solver) -> None:
        self._jobs = jobs
        self._solver = solver

    def methods(self) -> Mapping[str, Method]:
        """Return the table."""
        return {
            "Ping": (self.ping, "one-one", "Empty", "Pong"),
            "Solve": (self.solve, "one-one", "BridgeSolve", "BridgeSolved"),
            "ReadFile": (self.read_file, "one-one", "RefRequest", "FileData"),
            "StatFile": (self.stat_file, "one-one", "RefRequest", "FileStat"),
            "Evaluate": (self.evaluate, "one-one", "RefRequest", "Empty"),
            "Return": (self.returned, "one-one", "Return", "Empty"),
        }

    async def ping(self, stream: Call) -> None:
        """Say what the gateway can do."""
        await stream.recv_message()
        await self._jobs.of(stream.metadata or {})
        cap = messages.of("Cap")
        pong = messages.of("Pong")(
            FrontendAPICaps=[cap(ID=id_, Enabled=True) for id_ in CAPS],
            LLBCaps=[cap(ID=id_, Enabled=True) for id_ in LLB_CAPS],
        )
        await stream.send_message(pong)

    async def solve(self, stream: Call) -> None:
        """Build what a frontend is asked for. It is done at once: there is no graph to be put off."""
        request = await stream.recv_message()
        assert request is not None
        frontend.refuse_policies(*request.SourcePolicies)
        job = await self._jobs.of(stream.metadata or {})
        if not request.Frontend:
            await self._fetch(stream, job, request.Definition)
            return
        answer = messages.of("BridgeSolved")()
        if frontend.REQUEST in request.FrontendOpt:
            said = await self._solver.call(
                job, request.Frontend, request.FrontendOpt, request.FrontendInputs
            )
            answer.result.metadata.update(said)
            await stream.send_message(answer)
            return
        found = await self._solver.build(
            job, request.Frontend, request.FrontendOpt, request.FrontendInputs
        )
        if found.several:
            answer.result.metadata[PLATFORMS] = described(found.images)
            answer.result.refs.SetInParent()
        for image in found.images:
            ref = answer.result.ref
            if found.several:
                ref = answer.result.refs.refs[str(platform_of(image))]
            ref.id = job.keep(image)
            getattr(ref, "def").CopyFrom(graphs.definition_of(image.id))
        await stream.send_message(answer)

    async def _fetch(self, stream: Call, job: Job, definition: Message) -> None:
        """Fetch a file that a graph names, for the client to read: a Dockerfile somewhere else."""
        url = graphs.source_of(definition)
        data = await self._solver.fetch(job, url)
        answer = messages.of("BridgeSolved")()
        answer.result.ref.id = ref = os.urandom(12).hex()
        job.files[ref] = data
        await stream.send_message(answer)

    async def read_file(self, stream: Call) -> None:
        """Give a file that was fetched."""
        data = await self._fetched(stream)
        await stream.send_message(messages.of("FileData")(Data=data))

    async def _fetched(self, stream: Call) -> bytes:
        request = await stream.recv_message()
        assert request is not None
        job = await self._jobs.of(stream.metadata or {})
        if request.Ref not in job.files:
            raise Unsupported("files of images are not read: export them")
        return job.files[request.Ref]

    async def stat_file(self, stream: Call) -> None:
        """Say what a file that was fetched is like."""
        data = await self._fetched(stream)
        answer = messages.of("FileStat")()
        answer.stat.mode, answer.stat.size = FILE_MODE, len(data)
        await stream.send_message(answer)

    async def evaluate(self, stream: Call) -> None:
        """Build what a reference is of, which is done."""
        request = await stream.recv_message()
        assert request is not None
        (await self._jobs.of(stream.metadata or {})).image(request.Ref)
        await stream.send_message(messages.of("Empty")())

    async def returned(self, stream: Call) -> None:
        """End the client's part of a build: with what is to be exported, or with an error."""
        request = await stream.recv_message()
        assert request is not None
        job = await self._jobs.of(stream.metadata or {})
        if job.returned.done():
            raise Failed("the build has returned already")
        if request.HasField("error"):
            details = [(detail.type_url, detail.value) for detail in request.error.details]
            error = GRPCError(Status.UNKNOWN, request.error.message, details)
            job.returned.set_exception(error)
        else:
            several = request.result.HasField("refs")
            refs = [request.result.ref]
            if several:
                refs = [ref for _, ref in sorted(request.result.refs.refs.items())]
            images = [job.image(ref.id) for ref in refs if ref.id]
            job.returned.set_result(Result(images=images, several=several))
        await stream.send_message(messages.of("Empty")())
