"""One build: from a Dockerfile and its context to an image, as Docker's classic builder goes about it.

A step whose image an earlier build has made is not done again: the parent is the same, the instruction with
its variables put in, the configuration, and the contents of what is copied.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from berth.builds.arguments import BuildArguments, platform_arguments
from berth.builds.copies import Copies
from berth.builds.layers import Copying, Part
from berth.builds.mounts import Wanted, environment
from berth.builds.origins import Origins
from berth.builds.output import Plan
from berth.builds.runs import Run, write_document
from berth.builds.stage import StageState, Steps
from berth.dockerfile import stages
from berth.dockerfile.instructions import Arguments, Command, Copy, Pairs, Text
from berth.dockerfile.mounts import BIND, Mount
from berth.dockerfile.stages import SCRATCH
from berth.dockerfile.substitution import Expansion, expand
from berth.errors import BerthError, Failed
from berth.images.records import Image
from berth.oci.platform import Platform, this_machine

if TYPE_CHECKING:
    from pathlib import Path

    from berth.builds.bases import Bases
    from berth.builds.context import Context
    from berth.builds.layers import Document, LayerMaker
    from berth.builds.mounts import Mounts
    from berth.builds.origins import Origin
    from berth.builds.output import Output
    from berth.builds.requests import BuildRequest
    from berth.builds.runs import Runs
    from berth.dockerfile.instructions import Instruction
    from berth.dockerfile.stages import Dockerfile, Stage
    from berth.images.service import ImageService

# Where a command finds the here-documents that it runs or reads.
PIPES = "/dev/pipes"
HOST = "host"  # the network of this machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What the builds of an engine are carried out with."""

    images: ImageService
    bases: Bases
    layers: LayerMaker
    runs: Runs
    mounts: Mounts


class Builder:
    """Builds one image."""

    def __init__(self, request: BuildRequest, output: Output, means: Means) -> None:
        self._request = request
        self._output = output
        self._bases = means.bases
        self._layers = means.layers
        self._runs = means.runs
        self._mounts = means.mounts
        self._steps = Steps(means.images, request)
        target = request.platform or this_machine()
        known = platform_arguments(target, this_machine())
        self._arguments = BuildArguments(request.arguments, known)
        self._results: dict[int, Image] = {}

    async def build(self, dockerfile: Dockerfile, context: Context, folder: Path) -> Image:
        """Build; ``folder`` is for files of the build's own."""
        self._dockerfile = dockerfile
        self._folder = folder
        self._context = context
        self._copies = Copies(context, self._layers, folder, self._request.offers)
        self._origins = Origins(self._bases, self._request, self._output, dockerfile, self._results)
        target = dockerfile.target(self._request.target)
        self._arguments.declare_globals(dockerfile.globals, dockerfile.escape)
        put_in = Expansion(self._arguments.globals(), dockerfile.escape)
        names = [put_in(stage.head.base) for stage in dockerfile.stages]
        wanted = dockerfile.needed(target, names)
        labels = self._labels()
        plan = Plan(
            before=len(dockerfile.globals),
            stages=wanted,
            after=len(labels),
            bases=dict(enumerate(names)),
            alone=len(dockerfile.stages) == 1,
        )
        await self._output.plan(plan)
        for step in dockerfile.globals:
            await self._output.step(step)
        for stage in wanted:
            more = labels if stage is wanted[-1] else []
            self._results[stage.index] = await self._stage(stage, names[stage.index], more)
        if unused := self._arguments.unused():
            named = " ".join(sorted(unused))
            await self._output.say(f"[Warning] One or more build-args [{named}] were not consumed")
        return self._results[target.index]

    def _labels(self) -> list[Instruction]:
        """Return the instruction that gives the labels of the request."""
        if not self._request.labels:
            return []
        pairs = tuple(sorted(self._request.labels.items()))
        shown = " ".join(f"{key}={value}" for key, value in pairs)
        plain = tuple((single_quoted(key), single_quoted(value)) for key, value in pairs)
        return [Pairs(name="LABEL", text=f"LABEL {shown}", pairs=plain)]

    # Stages

    async def _stage(self, stage: Stage, base: str, more: list[Instruction]) -> Image:
        await self._output.step(stage.head, stage)
        state = StageState(
            await self._base(stage, base),
            scope=self._arguments.scope(),
            escape=self._dockerfile.escape,
            platform=self._request.platform or this_machine(),
        )
        state.uses_cache = stage.head.stage not in self._request.fresh_stages
        await self._triggers(state)
        await self._output.image(state.image.id)
        for step in (*stage.steps, *more):
            await self._output.step(step, stage)
            await self._step(state, step)
            await self._output.image(state.image.id)
        if not state.image.id:
            raise Failed("No image was generated. Is your Dockerfile empty?")
        await self._output.stage_end(state.image.id)
        return state.image

    async def _base(self, stage: Stage, name: str) -> Image | None:
        """Return what a stage begins with; None for scratch."""
        if not name:
            raise Failed(f"base name ({stage.head.base}) should not be blank")
        instead = self._origins.context(stage.head.stage) or self._origins.context(name)
        if instead is not None and not isinstance(instead, str):
            return await self._of_files(instead)
        other = None if instead else self._dockerfile.find(name, stage.index)
        if other is not None:
            return self._results[other.index]
        if name == SCRATCH and not instead:
            return None
        text = expand(stage.head.platform, self._arguments.globals(), self._dockerfile.escape)
        platform = Platform.parse(text) if text else self._request.platform
        return await self._origins.image(instead or name, platform)

    async def _of_files(self, context: Context) -> Image:
        """Return an image of all that is in a named context."""
        state = StageState(
            None,
            scope=self._arguments.scope(),
            escape=self._dockerfile.escape,
            platform=self._request.platform or this_machine(),
        )
        digest, _ = await context.digest(["."], [])
        part = Part(patterns=["."], folder=context.folder)
        copying = Copying(target="/", parts=[part])
        await self._layer(state, state.plain(f"COPY {digest} in / ", with_files=True), copying)
        return state.image

    async def _triggers(self, state: StageState) -> None:
        """Carry out what the base image has kept with ONBUILD."""
        if not state.triggers:
            return
        plural = "s" if len(state.triggers) > 1 else ""
        await self._output.say(f"# Executing {len(state.triggers)} build trigger{plural}")
        for text in state.triggers:
            await self._step(state, stages.trigger(text))

    # Steps

    async def _step(self, state: StageState, step: Instruction) -> None:
        if isinstance(step, Arguments):
            said = state.scope.declare(step, state.variables, state.settings.escape)
            await self._plain(state, said)
        elif isinstance(step, Copy):
            await self._copy(state, step)
        elif isinstance(step, Command) and step.name == "RUN":
            await self._run(state, step)
        elif isinstance(step, Text) and step.name == "WORKDIR":
            said = state.settings.apply(step, state.variables)
            copying = Copying(target=state.settings.config.working_dir)
            await self._layer(state, state.plain(said, with_files=True), copying)
        else:
            await self._plain(state, state.settings.apply(step, state.variables))

    async def _plain(self, state: StageState, said: str) -> None:
        """Make the image of an instruction that changes the configuration alone."""
        command = state.plain(said)
        key = self._steps.key(state, command)
        if not await self._known(state, key, command):
            await self._steps.commit(state, key, command)

    async def _known(self, state: StageState, key: str, command: list[str]) -> bool:
        known = await self._steps.known(state, key, command)
        if known:
            await self._output.cached()
        return known

    async def _layer(self, state: StageState, command: list[str], copying: Copying) -> None:
        """Make the image of an instruction whose layer needs no container."""
        key = self._steps.key(state, command, copying.mode)
        if await self._known(state, key, command):
            return
        async with self._layers.make(state.image, copying) as layer:
            await self._steps.commit(state, key, command, layer)

    async def _copy(self, state: StageState, step: Copy) -> None:
        try:
            async with AsyncExitStack() as undo:
                origin: Document | Context | None = None
                if step.origin:
                    found = await self._origin(step.origin)
                    if isinstance(found, Image):
                        origin = await undo.enter_async_context(self._layers.view(found))
                    else:
                        origin = found
                copying, said = await self._copies.prepare(step, state, origin)
                await self._layer(state, state.plain(said, with_files=True), copying)
        except BerthError as error:
            raise Failed(f"{step.name} failed: {error.message}", hint=error.hint) from error

    async def _origin(self, text: str) -> Origin:
        """Return what COPY --from or a mount names."""
        put_in = Expansion(self._arguments.globals(), self._dockerfile.escape)
        return await self._origins.find(put_in(text))

    async def _run(self, state: StageState, step: Command) -> None:
        if not state.image.id:
            raise Failed("RUN failed: the stage has no files yet in which a command could be found")
        if step.network == HOST and self._request.host.network_mode != HOST:
            raise Failed(
                "RUN failed: --network=host is for builds whose client asks for it as well",
                hint="build with --network=host",
            )
        words, scripts = self._command(state, step)
        arguments = state.arguments
        command = [*state.scope.prefix(arguments), *words]
        mounts = await self._mounts.prepare(step.mounts, state, self._context, self._origin)
        texts = [heredoc.content for heredoc in step.heredocs]
        facts = [step.network, texts, *(mount.facts() for mount in mounts)]
        key = self._steps.key(state, command, facts)
        if await self._known(state, key, command):
            return
        offers = self._request.offers
        async with self._mounts.open([*mounts, *scripts], self._folder, offers) as loan:
            run = Run(
                image=state.image,
                config=state.settings.config,
                words=words,
                arguments=arguments,
                network=step.network,
                env=environment(mounts, state.variables),
                loan=loan,
                targets=[wanted.mount.target for wanted in mounts if wanted.mount.target],
            )
            async with self._runs.run(run, self._request, self._output) as layer:
                await self._steps.commit(state, key, command, layer)

    def _command(self, state: StageState, step: Command) -> tuple[list[str], list[Wanted]]:
        """Return the words of RUN, and the file that it needs: its text alone may be a script."""
        if not step.heredocs:
            return state.settings.words_of(step), []
        heredoc = step.heredocs[0]
        alone = len(step.heredocs) == 1 and step.words[0].strip().startswith("<<")
        if alone and len(step.words[0].split()) == 1:
            if not heredoc.content.startswith("#!"):
                return [*state.settings.shell, heredoc.content], []
            name = f"{state.image.id[-12:]}-{heredoc.name}"
            write_document(self._folder, name, heredoc.content, mode=0o755)
            target = f"{PIPES}/{heredoc.name}"
            mount = Mount(kind=BIND, source=name, target=target, read_only=True)
            return [target], [Wanted(mount=mount, origin=self._folder)]
        text = step.words[0] + "\n"
        for heredoc in step.heredocs:
            text += f"{heredoc.content}{heredoc.name}\n"
        return [*state.settings.shell, text], []


def single_quoted(text: str) -> str:
    """Return a text in quotes that no variable is put into."""
    return "'" + text.replace("'", "'\"'\"'") + "'"
