"""The builds that clients have under way, by the ids that they have given them."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from berth.buildkit.journal import Journal
from berth.errors import Conflict, NotFound

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from berth.buildkit.sessions import Session
    from berth.images.records import Image

# A client asks for the status of a build, and for what it builds, while it begins it; the build may be over
# when its question comes.
WAIT_S = 10.0

Known = TypeVar("Known", "Job", Journal)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a build has led to; ``several``: images that are one for several platforms."""

    images: Sequence[Image] = ()
    several: bool = False


NOTHING = Result()


class Job:
    """One build: from Solve to its answer."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.journal = Journal()
        self.images: dict[str, Image] = {}  # by the references that the client has for them
        self.files: dict[str, bytes] = {}  # that were fetched, likewise
        self.returned: asyncio.Future[Result] = asyncio.get_running_loop().create_future()

    def keep(self, image: Image) -> str:
        """Return a reference by which the client names an image."""
        ref = os.urandom(12).hex()
        self.images[ref] = image
        return ref

    def image(self, ref: str) -> Image:
        """Return what a reference is of."""
        if ref not in self.images:
            raise NotFound(f"no such reference: {ref}")
        return self.images[ref]


class Jobs:
    """The jobs of an engine."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._journals: dict[str, Journal] = {}  # also of jobs that ended just now
        self._begun = asyncio.Condition()

    @asynccontextmanager
    async def open(self, ref: str, session: Session) -> AsyncIterator[Job]:
        """Give a new job while it lasts."""
        if ref in self._jobs:
            raise Conflict(f"job ID {ref} exists")
        job = self._jobs[ref] = Job(session)
        self._journals[ref] = job.journal
        try:
            async with self._begun:
                self._begun.notify_all()
            yield job
        finally:
            del self._jobs[ref]
            if not job.returned.cancel() and not job.returned.cancelled():
                job.returned.exception()  # nobody else is to be told
            job.journal.end()
            asyncio.get_running_loop().call_later(WAIT_S, self._forget, ref, job.journal)

    def _forget(self, ref: str, journal: Journal) -> None:
        if self._journals[ref] is journal:  # a later job may have the id
            del self._journals[ref]

    async def find(self, ref: str) -> Job:
        """Return a job; wait a while for one that is not there yet."""
        return await self._wait_for(ref, self._jobs)

    async def journal(self, ref: str) -> Journal:
        """Return what a job says, or has said; wait a while for one that is not there yet."""
        return await self._wait_for(ref, self._journals)

    async def _wait_for(self, ref: str, known: Mapping[str, Known]) -> Known:
        with suppress(TimeoutError):
            async with asyncio.timeout(WAIT_S), self._begun:
                await self._begun.wait_for(lambda: ref in known)
        if ref not in known:
            raise NotFound(f"no such job {ref}")
        return known[ref]

    async def of(self, metadata: Mapping[str, str | bytes]) -> Job:
        """Return the job that a call of the gateway belongs to."""
        return await self.find(str(metadata.get("buildkit-controlapi-buildid", "")))
