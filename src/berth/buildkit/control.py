"""moby.buildkit.v1.Control: builds begun and watched, and what the engine is."""

from __future__ import annotations

import asyncio
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

from multidict import MultiDict

from berth.buildkit import frontend, messages
from berth.buildkit.filters import Filter
from berth.buildkit.frontend import REGISTRY, REQUEST
from berth.buildkit.jobs import NOTHING
from berth.buildkit.vertices import working
from berth.builds import pruning

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from google.protobuf.message import Message
    from grpclib.server import Stream

    from berth.buildkit.exporting import Exporters
    from berth.buildkit.grpc import Method
    from berth.buildkit.jobs import Job, Jobs
    from berth.buildkit.sessions import Sessions
    from berth.buildkit.solving import Solver
    from berth.buildkit.store import Store

    Call = Stream[Message, Message]

NANOSECONDS = 1_000_000_000
READ_BYTES = 128 << 10
INLINE = "inline"  # every image says what its steps were
SESSION_ID = "x-docker-expose-session-uuid"
SESSION_METHOD = "x-docker-expose-session-grpc-method"


class Control:
    """The methods of the service."""

    NAME = "moby.buildkit.v1.Control"

    def __init__(
        self, sessions: Sessions, jobs: Jobs, solver: Solver, exporters: Exporters, store: Store
    ) -> None:
        self._sessions = sessions
        self._jobs = jobs
        self._solver = solver
        self._exporters = exporters
        self._store = store

    def methods(self) -> Mapping[str, Method]:
        """Return the table."""
        return {
            "Info": (self.info, "one-one", "Empty", "Info"),
            "ListWorkers": (self.workers, "one-one", "Empty", "Workers"),
            "Solve": (self.solve, "one-one", "SolveRequest", "SolveResponse"),
            "Status": (self.status, "one-many", "StatusRequest", "Status"),
            "Session": (self.session, "many-many", "Bytes", "Bytes"),
            "DiskUsage": (self.usage, "one-one", "UsageRequest", "Usage"),
            "Prune": (self.prune, "one-many", "PruneRequest", "UsageRecord"),
            "ListenBuildHistory": (self.history, "one-many", "HistoryRequest", "HistoryEvent"),
        }

    async def info(self, stream: Call) -> None:
        """Say what builds here."""
        await stream.recv_message()
        await stream.send_message(messages.of("Info")(buildkitVersion=self._store.version()))

    async def workers(self, stream: Call) -> None:
        """Say where it is built: here."""
        await stream.recv_message()
        found = messages.of("Workers")()
        found.record.append(self._store.worker())
        await stream.send_message(found)

    async def solve(self, stream: Call) -> None:
        """Build, or wait until the client has built through the gateway; then export."""
        request = await stream.recv_message()
        assert request is not None
        frontend.refuse_policies(request.SourcePolicy, request.SourcePolicySession)
        session = await self._sessions.find(request.Session)
        async with self._jobs.open(request.Ref, session) as job:
            found = NOTHING
            if REQUEST in request.FrontendAttrs:
                await self._solver.call(
                    job, request.Frontend, request.FrontendAttrs, request.FrontendInputs
                )
            elif request.Frontend:
                found = await self._solver.build(
                    job, request.Frontend, request.FrontendAttrs, request.FrontendInputs
                )
            else:
                found = await job.returned
            said: Mapping[str, str] = {}
            await warn_of_caches(job, request.Cache)
            if found.images:
                said = await self._exporters.export(job, found, exporters_of(request))
                for one in request.Cache.Exports:
                    if one.Type == REGISTRY:
                        await self._exporters.cache(job, found, dict(one.Attrs))
            await stream.send_message(messages.of("SolveResponse")(ExporterResponse=said))

    async def status(self, stream: Call) -> None:
        """Show a build while it goes on."""
        request = await stream.recv_message()
        assert request is not None
        journal = await self._jobs.journal(request.Ref)
        async for message in journal.read():
            await stream.send_message(message)

    async def session(self, stream: Call) -> None:
        """Keep a session whose connection is this call: targets of a bake share it."""
        metadata: MultiDict[str | bytes] = MultiDict(stream.metadata or {})
        ours, theirs = socket.socketpair()
        for sock in (ours, theirs):
            sock.setblocking(False)
        id_ = str(metadata.get(SESSION_ID, ""))
        methods = [str(method) for method in metadata.getall(SESSION_METHOD, [])]
        await stream.send_initial_metadata()
        with theirs, unwrapped():
            async with asyncio.TaskGroup() as group:
                group.create_task(self._sessions.serve(id_, methods, ours, b""))
                outward = group.create_task(_send(stream, theirs))
                while (message := await stream.recv_message()) is not None:
                    await asyncio.get_running_loop().sock_sendall(theirs, message.data)
                outward.cancel()
                theirs.shutdown(socket.SHUT_RDWR)

    async def usage(self, stream: Call) -> None:
        """Say what builds have left here."""
        request = await stream.recv_message()
        assert request is not None
        found = await self._store.usage(Filter(request.filter))
        await stream.send_message(messages.of("Usage")(record=found))

    async def prune(self, stream: Call) -> None:
        """Remove what builds have left and nothing needs."""
        request = await stream.recv_message()
        assert request is not None
        age = f"{request.keepDuration // NANOSECONDS}s"
        wanted = pruning.of_filters(
            {"until": [age]} if request.keepDuration else {},
            everything=request.all,
            reserved_bytes=request.reservedSpace,
            max_used_bytes=request.maxUsedSpace,
            min_free_bytes=request.minFreeSpace,
        )
        for record in await self._store.prune(wanted, Filter(request.filter)):
            await stream.send_message(record)

    async def history(self, stream: Call) -> None:
        """Tell of no builds: none is remembered."""
        await stream.recv_message()


@contextmanager
def unwrapped() -> Iterator[None]:
    """Raise the first error of a group of tasks as itself."""
    try:
        yield
    except ExceptionGroup as group:
        raise group.exceptions[0] from group


async def warn_of_caches(job: Job, options: Message) -> None:
    """Say what becomes of caches that are to be kept elsewhere than in registries, or come from there."""
    known = (INLINE, REGISTRY)
    exports = [f"export of type {one.Type}" for one in options.Exports if one.Type not in known]
    imports = [f"import of type {one.Type}" for one in options.Imports if one.Type not in known]
    for what in exports + imports:
        async with working(job.journal, f"cache {what}") as vertex:
            await vertex.warn("is not part of berth: the engine keeps its cache itself")


async def _send(stream: Call, sock: socket.socket) -> None:
    while data := await asyncio.get_running_loop().sock_recv(sock, READ_BYTES):
        await stream.send_message(messages.of("Bytes")(data=data))


def exporters_of(request: Message) -> Sequence[Message]:
    """Return what is to be exported; older clients name one exporter in a place of its own."""
    if request.Exporters or not request.ExporterDeprecated:
        return list(request.Exporters)
    kind, attrs = request.ExporterDeprecated, request.ExporterAttrsDeprecated
    return [messages.of("Exporter")(Type=kind, Attrs=attrs)]
