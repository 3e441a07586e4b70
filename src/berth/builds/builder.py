"""One build: from a Dockerfile and its context to an image.

Stages that do not need each other go on at the same time; what the target does not need is left out.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from berth.builds.arguments import BuildArguments, automatic_arguments
from berth.builds.copies import Copies
from berth.builds.origins import Origins
from berth.builds.output import Plan
from berth.builds.stage import Steps
from berth.builds.stagebuilder import Shared, StageBuilder
from berth.dockerfile.instructions import Pairs
from berth.dockerfile.substitution import Expansion
from berth.oci.platform import this_machine

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from berth.builds.context import Context
    from berth.builds.output import Output
    from berth.builds.requests import BuildRequest
    from berth.builds.stage import StageState
    from berth.builds.stagebuilder import Means
    from berth.dockerfile.instructions import Instruction
    from berth.dockerfile.stages import Dockerfile, Stage
    from berth.images.records import Image

    Tasks = dict[int, asyncio.Task[StageState]]


class Builder:
    """Builds one image."""

    def __init__(self, request: BuildRequest, output: Output, means: Means) -> None:
        self._request = request
        self._output = output
        self._means = means
        machine = this_machine()
        known = automatic_arguments(request.platform or machine, machine, request.target)
        self._arguments = BuildArguments(request.arguments, known)
        self._tasks: Tasks = {}
        self._has_failed = False

    async def build(self, dockerfile: Dockerfile, context: Context, folder: Path) -> Image:
        """Build; ``folder`` is for files of the build's own."""
        target = dockerfile.target(self._request.target)
        self._arguments.declare_globals(dockerfile.globals, dockerfile.escape)
        put_in = Expansion(self._arguments.globals(), dockerfile.escape)
        names = {stage.index: put_in(stage.head.base) for stage in dockerfile.stages}
        wanted = dockerfile.needed(target, list(names.values()))
        labels = self._labels()
        plan = Plan(
            before=len(dockerfile.globals),
            stages=wanted,
            after=len(labels),
            bases=names,
            alone=len(dockerfile.stages) == 1,
        )
        await self._output.plan(plan)
        for step in dockerfile.globals:
            await self._output.step(step)
        epoch = self._arguments.epoch
        shared = Shared(
            request=self._request,
            means=self._means,
            dockerfile=dockerfile,
            context=context,
            folder=folder,
            arguments=self._arguments,
            copies=Copies(context, self._means.layers, folder, self._request),
            steps=Steps(self._means.images, self._request, epoch),
            epoch=epoch,
            slots=asyncio.Semaphore(len(os.sched_getaffinity(0))),
        )
        image = await self._stages(shared, wanted, names, labels)
        if unused := self._arguments.unused():
            named = " ".join(sorted(unused))
            await self._output.say(f"[Warning] One or more build-args [{named}] were not consumed")
        return image

    async def _stages(
        self,
        shared: Shared,
        wanted: list[Stage],
        names: Mapping[int, str],
        labels: list[Instruction],
    ) -> Image:
        """Build stages, each as soon as what it begins with and copies from is there."""
        try:
            async with asyncio.TaskGroup() as group:
                for stage in wanted:
                    more = labels if stage is wanted[-1] else []
                    work = self._stage(shared, stage, names[stage.index], more)
                    self._tasks[stage.index] = group.create_task(work, name=f"stage {stage.name}")
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from failures.exceptions[0].__cause__
        return self._tasks[wanted[-1].index].result().image

    async def _stage(
        self, shared: Shared, stage: Stage, base: str, more: list[Instruction]
    ) -> StageState:
        output = self._output.beside(stage)
        origins = Origins(
            self._means.bases,
            self._request,
            output,
            shared.dockerfile,
            stage.index,
            self._results,
        )
        try:
            return await StageBuilder(shared, origins, output, stage).build(base, more)
        except Exception:
            if not self._has_failed:  # those that wait for this one fail as well
                self._has_failed = True
                output.fails()
            raise

    async def _results(self, index: int) -> StageState | None:
        """Return the end of a stage, once it is there; None when it is not built."""
        task = self._tasks.get(index)
        return None if task is None else await asyncio.shield(task)

    def _labels(self) -> list[Instruction]:
        """Return the instruction that gives the labels of the request."""
        if not self._request.labels:
            return []
        pairs = tuple(sorted(self._request.labels.items()))
        shown = " ".join(f"{key}={value}" for key, value in pairs)
        plain = tuple((single_quoted(key), single_quoted(value)) for key, value in pairs)
        return [Pairs(name="LABEL", text=f"LABEL {shown}", pairs=plain)]


def single_quoted(text: str) -> str:
    """Return a text in quotes that no variable is put into."""
    return "'" + text.replace("'", "'\"'\"'") + "'"
