"""Builds of clients from before buildx: ``POST /build?version=2``, and a session beside it."""

from __future__ import annotations

import asyncio
import base64
import os
from typing import TYPE_CHECKING

from berth.buildkit import messages

if TYPE_CHECKING:
    from berth.buildkit.exporting import Exporters
    from berth.buildkit.jobs import Job, Jobs
    from berth.buildkit.service import OlderBuild
    from berth.buildkit.sessions import Sessions
    from berth.buildkit.solving import Solver
    from berth.builds.output import Listener

TRACE, IMAGE = "moby.buildkit.trace", "moby.image.id"
FRONTEND = "dockerfile.v0"


class Older:
    """Builds for such clients."""

    def __init__(
        self, sessions: Sessions, jobs: Jobs, solver: Solver, exporters: Exporters
    ) -> None:
        self._sessions = sessions
        self._jobs = jobs
        self._solver = solver
        self._exporters = exporters

    async def build(self, wanted: OlderBuild, listener: Listener) -> None:
        """Build an image and export it, and tell the listener all the way."""
        session = await self._sessions.find(wanted.session_id)
        exporter = messages.of("Exporter")
        outputs = [exporter(Type=one["Type"], Attrs=one["Attrs"]) for one in wanted.outputs]
        id_ = os.urandom(12).hex()
        async with asyncio.TaskGroup() as group, self._jobs.open(id_, session) as job:
            if not wanted.quiet:
                group.create_task(_trace(job, listener))
            found = await self._solver.build(job, FRONTEND, wanted.options, {})
            await self._exporters.export(job, found, outputs)
        image = found.images[0]
        await listener.tell({"id": IMAGE, "aux": {"ID": image.id}})
        if wanted.quiet:
            await listener.tell({"stream": f"{image.id}\n"})


async def _trace(job: Job, listener: Listener) -> None:
    async for message in job.journal.read():
        data = base64.b64encode(message.SerializeToString()).decode()
        await listener.tell({"id": TRACE, "aux": data})
