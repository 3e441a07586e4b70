"""A build in BuildKit's vertices: each step that takes time is one."""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from berth.buildkit.journal import Vertex
from berth.builds.output import Output
from berth.dockerfile.instructions import Copy, From
from berth.dockerfile.stages import SCRATCH
from berth.errors import BerthError, InvalidArgument
from berth.oci.reference import Reference

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from berth.buildkit.journal import Journal
    from berth.builds.output import Plan
    from berth.dockerfile.instructions import Instruction
    from berth.dockerfile.stages import Stage

CANCELED = "canceled"
DONE = ("Download complete", "Pull complete", "Already exists")


class Vertices(Output):
    """Tells a journal of a build."""

    def __init__(self, journal: Journal, platform: str = "") -> None:
        """``platform``: what is built is for it, where there are several."""
        self._journal = journal
        self.platform = platform
        self._names: dict[int, dict[int, str]] = {}  # of steps by id, by stage
        self._current: Vertex | None = None
        self._plan: Plan | None = None
        self._step: Instruction | None = None  # under way
        self._stages: list[Vertices] = []
        self._is_failing = False

    @classmethod
    def of(cls, journal: Journal, vertex: Vertex) -> Vertices:
        """Return who is told of work that has a vertex of its own."""
        self = cls(journal)
        self._current = vertex
        return self

    async def plan(self, plan: Plan) -> None:
        """Take note of the stages, for their steps are counted."""
        self._plan = plan

    def beside(self, stage: Stage) -> Vertices:
        """Return who is told of a stage."""
        found = Vertices(self._journal, self.platform)
        found._plan = self._plan
        self._stages.append(found)
        return found

    def fails(self) -> None:
        """Take note that it was this stage's step that failed."""
        self._is_failing = True

    async def step(self, instruction: Instruction, stage: Stage | None = None) -> None:
        """Begin a vertex, if the instruction is one."""
        await self._finish()
        self._step = instruction
        if stage is None or self._plan is None:
            return
        if name := vertex_name(self._plan, stage, instruction, self.platform):
            self._current = Vertex(self._journal, name)
            await self._current.start()

    async def _finish(self, *, cached: bool = False, error: str = "") -> None:
        if self._current is not None:
            await self._current.finish(cached=cached, error=error)
            self._current = None

    async def cached(self) -> None:
        """End the vertex: there is nothing to do."""
        await self._finish(cached=True)

    async def container(self, id_: str) -> None:
        """BuildKit says nothing of it."""

    async def removed(self, id_: str) -> None:
        """BuildKit says nothing of it."""

    async def wrote(self, data: bytes, *, stderr: bool) -> None:
        """Show it."""
        if self._current is not None:
            await self._current.log(data, stderr=stderr)

    async def say(self, text: str) -> None:
        """Show a warning."""
        if text.startswith("[Warning] "):
            async with working(self._journal, "[internal] check of the build") as vertex:
                await vertex.warn(text.removeprefix("[Warning] "))

    async def image(self, id_: str) -> None:
        """End the vertex."""
        await self._finish()

    async def stage_end(self, id_: str) -> None:
        """BuildKit says nothing of it."""

    async def failed(self, error: BerthError) -> None:
        """End what was under way: the step that failed, and those that went on beside it."""
        await self._finish(error=error.message)
        for stage in self._stages:
            await stage._finish(error=error.message if stage._is_failing else CANCELED)

    @property
    def lines(self) -> tuple[int, int]:
        """Where the instruction is that failed; zeros when it was none that somebody wrote."""
        failing = (stage._step for stage in self._stages if stage._is_failing)
        step = next(failing, self._step)
        return step.lines if step is not None else (0, 0)

    def report(self, message: Mapping[str, object]) -> None:
        """Show how far a pull is."""
        id_, status, detail = (
            message.get("id"),
            str(message.get("status")),
            message.get("progressDetail"),
        )
        if self._current is None or not id_:
            return
        name = f"extracting {id_}" if status == "Extracting" else str(id_)
        if isinstance(detail, dict) and detail:
            self._current.progress(name, detail.get("current", 0), detail.get("total", 0))
        elif status in DONE:
            self._current.progress(name, 0, done=True)


def vertex_name(plan: Plan, stage: Stage, instruction: Instruction, platform: str = "") -> str:
    """Return what a step is called; "" for one that takes no time, which BuildKit does not show."""
    steps = [step for step in stage.steps if is_shown(step)]
    base = plan.bases[stage.index]
    starts = base != SCRATCH and not any(
        other.name == base.lower() for other in plan.stages if other.index < stage.index
    )
    total = len(steps) + starts
    if isinstance(instruction, From):
        if not starts:
            return ""
        at, text = 1, f"FROM {canonical(base)}"
    elif is_shown(instruction):
        at = 1 + starts + next(n for n, step in enumerate(steps) if step is instruction)
        text = instruction.name + instruction.text[len(instruction.name) :]
    else:
        return ""
    name = f"{platform} " if platform else ""
    name += "" if plan.alone else f"{stage.head.stage or f'stage-{stage.index}'} "
    return f"[{name}{at:{1 + int(math.log10(total))}}/{total}] {text}"


def is_shown(instruction: Instruction) -> bool:
    """Say whether an instruction makes a layer."""
    return isinstance(instruction, Copy) or instruction.name in ("RUN", "WORKDIR")


def canonical(name: str) -> str:
    """Return a name in full."""
    try:
        return str(Reference.parse(name).with_default_tag())
    except InvalidArgument:
        return name


@asynccontextmanager
async def working(journal: Journal, name: str) -> AsyncIterator[Vertex]:
    """Show work of the engine's own while it lasts."""
    vertex = Vertex(journal, name)
    await vertex.start()
    try:
        yield vertex
    except BerthError as error:
        await vertex.finish(error=error.message)
        raise
    except BaseException:
        await vertex.finish(error=CANCELED)
        raise
    await vertex.finish()
