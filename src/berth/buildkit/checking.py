"""What is found out of a Dockerfile before it is built: what its images are like, what checks say."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from berth.buildkit import subrequests
from berth.buildkit.located import Located, in_words, lines_of, ranges_of
from berth.buildkit.subrequests import BuildError
from berth.buildkit.vertices import canonical, working
from berth.builds.arguments import automatic_arguments
from berth.dockerfile import lint, stages
from berth.dockerfile.lint import Linter
from berth.dockerfile.stages import SCRATCH, copied_from
from berth.dockerfile.survey import Base, Facts, Survey
from berth.errors import BerthError, Failed, InvalidArgument
from berth.oci.image import ImageConfig
from berth.oci.platform import Platform, this_machine

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

    from berth.buildkit.journal import Journal, Vertex
    from berth.buildkit.located import Dockerfile
    from berth.buildkit.subrequests import Answer
    from berth.builds.requests import BuildRequest
    from berth.builds.service import Builds
    from berth.dockerfile.instructions import Instruction
    from berth.dockerfile.lint import Finding
    from berth.dockerfile.stages import Stage

    Ignored = Callable[[], Awaitable[Sequence[str]]]

OPTIONS = "BUILDKIT_DOCKERFILE_CHECK"
MAX_INFO_BYTES = 1 << 20  # of the Dockerfile, repeated with warnings
MAX_LOOKS = 4  # at images in registries at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """A Dockerfile and what was found out of it."""

    dockerfile: stages.Dockerfile
    linter: Linter
    survey: Survey
    wanted: Sequence[Stage]  # the stages that were looked at


class Checking:
    """Looks at a Dockerfile for one build."""

    def __init__(
        self, builds: Builds, request: BuildRequest, journal: Journal, platform: str = ""
    ) -> None:
        """``platform``: what is built is for it, where there are several."""
        self._builds = builds
        self._request = request
        self._journal = journal
        self._prefix = f"{platform} " if platform else ""
        self._looks = asyncio.Semaphore(MAX_LOOKS)

    async def examine(
        self, source: Dockerfile, ignored: Ignored, *, everything: bool = False
    ) -> Examined:
        """Find out what there is to be known of a Dockerfile before any of it is built.

        ``ignored`` loads the patterns of .dockerignore. ``everything``: all stages count, not only those
        that are needed. Raises kinds, Located where an image is not to be had.
        """
        dockerfile = await asyncio.to_thread(stages.read, source.text)
        replaced = frozenset(
            stage.index
            for stage in dockerfile.stages
            if stage.head.stage and self._request.context(stage.head.stage) is not None
        )
        facts = self._facts(replaced)
        survey = await asyncio.to_thread(Survey, dockerfile, facts)
        names = await asyncio.to_thread(list, map(survey.base_of, dockerfile.stages))
        wanted: Sequence[Stage] = dockerfile.stages
        if self._request.target or not everything:
            wanted = dockerfile.needed(dockerfile.target(self._request.target), names)
        bases = await self._bases(source, survey, wanted)
        facts = replace(facts, bases=bases, ignored=await ignored())
        survey = await asyncio.to_thread(Survey, dockerfile, facts)
        options = lint.options_of(source.text, self._request.arguments.get(OPTIONS) or "")
        linter = await asyncio.to_thread(Linter, survey, options)
        return Examined(dockerfile=dockerfile, linter=linter, survey=survey, wanted=wanted)

    def _facts(self, replaced: frozenset[int]) -> Facts:
        request, machine = self._request, this_machine()
        target = request.platform or machine
        return Facts(
            given=request.arguments,
            automatic=automatic_arguments(target, machine, request.target),
            target=target,
            bases={},
            replaced=replaced,
        )

    async def _bases(
        self, source: Dockerfile, survey: Survey, wanted: Sequence[Stage]
    ) -> Mapping[int, Base]:
        """Find out what the images are like that stages begin with and copy from."""
        found: dict[int, Base] = {}
        looks: dict[tuple[str, str], asyncio.Task[Base]] = {}
        try:
            async with asyncio.TaskGroup() as group:
                for stage in wanted:
                    for step, name, asked in self._images(survey, stage):
                        if (name, asked) not in looks:
                            work = self._look(source, step, name, asked)
                            looks[name, asked] = group.create_task(work, name=f"look at {name}")
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from failures.exceptions[0].__cause__
        nothing = Base(config=ImageConfig(), platform=survey.facts.target)
        for stage in wanted:
            if not self._is_stage(survey, stage, survey.base_of(stage)):
                found[stage.index] = nothing
            for step, name, asked in self._images(survey, stage):
                if step is stage.head:
                    found[stage.index] = looks[name, asked].result()
        return found

    def _images(self, survey: Survey, stage: Stage) -> Iterator[tuple[Instruction, str, str]]:
        """Yield what names an image in a stage, its name, and the platform that it is asked for."""
        platform = survey.expansion(survey.globals)(stage.head.platform)
        names: list[tuple[Instruction, str, str]] = [(stage.head, survey.base_of(stage), platform)]
        for step in stage.steps:
            names += [(step, name, "") for name in copied_from([step]) if not name.isdecimal()]
        for step, name, asked in names:
            instead = self._request.context(stage.head.stage) if step is stage.head else None
            instead = instead or self._request.context(name)
            if isinstance(instead, str):
                yield step, instead, asked
            elif instead is None and name != SCRATCH and not self._is_stage(survey, stage, name):
                yield step, name, asked

    def _is_stage(self, survey: Survey, stage: Stage, name: str) -> bool:
        return survey.dockerfile.find(name, stage.index) is not None

    async def _look(self, source: Dockerfile, step: Instruction, name: str, asked: str) -> Base:
        title = f"[{self._prefix}internal] load metadata for {canonical(name)}"
        try:
            platform = Platform.parse(asked) if asked else self._request.platform
            async with self._looks, working(self._journal, title):
                return await self._builds.look(name, platform, self._request)
        except BerthError as error:
            why = (
                f"{name}: failed to resolve source metadata for {canonical(name)}: {error.message}"
            )
            failed = Failed(why, hint=error.hint)
            raise Located.of(failed, source, step.lines) from error

    async def warn(self, source: Dockerfile, examined: Examined, vertex: Vertex) -> None:
        """Tell what checks find. InvalidArgument: it is to end the build."""
        linter = examined.linter
        with suppress(InvalidArgument):  # the step that is wrong says so itself
            await asyncio.to_thread(linter.run, source.text, examined.wanted)
        left = MAX_INFO_BYTES
        for finding in linter.findings:
            info = source.info(finding.lines) if left > 0 else None
            left -= len(str(info or ""))
            await vertex.warn(
                finding.short,
                detail=[finding.rule.description.encode()],
                url=finding.rule.url,
                info=info,
                ranges=ranges_of(finding.lines) if info else (),
            )
        linter.check_fails()

    async def answer(self, wanted: str, source: Dockerfile, ignored: Ignored) -> Answer:
        """Answer a request that is no build. Raises kinds; what is wrong when it checks is an answer."""
        if wanted == subrequests.TARGETS:
            return subrequests.targets(await asyncio.to_thread(stages.read, source.text), source)
        if wanted == subrequests.LINT:
            return await self._lint(source, ignored)
        examined = await self.examine(source, ignored)
        await asyncio.to_thread(lambda: deque(examined.survey.walk(examined.wanted), maxlen=0))
        return subrequests.outline(examined.survey, examined.wanted[-1], source)

    async def _lint(self, source: Dockerfile, ignored: Ignored) -> Answer:
        findings: Sequence[Finding] = ()
        try:
            examined = await self.examine(source, ignored, everything=True)
            findings = examined.linter.findings
            await asyncio.to_thread(examined.linter.run, source.text, examined.wanted)
            examined.linter.check_fails()
        except BerthError as error:
            lines = lines_of(error) or (0, 0)
            wrong = BuildError(message=in_words(error).message, lines=lines)
            return subrequests.checked(source, findings, wrong)
        return subrequests.checked(source, findings, None)
