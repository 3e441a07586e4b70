"""One stage under way: its instructions carried out one by one.

A step whose image an earlier build has made is not done again: the parent is the same, the instruction with
its variables put in, the configuration, and the contents of what is copied.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from berth.builds.arguments import HOSTNAME
from berth.builds.layers import Copying, Part
from berth.builds.mounts import Wanted, environment
from berth.builds.runs import Run, write_document
from berth.builds.stage import StageState
from berth.dockerfile import stages
from berth.dockerfile.instructions import Arguments, Command, Copy, Text
from berth.dockerfile.mounts import BIND, Mount
from berth.dockerfile.stages import SCRATCH
from berth.dockerfile.substitution import Expansion
from berth.engine.signals import signal_number
from berth.errors import BerthError, Failed
from berth.oci.platform import Platform, this_machine
from berth.oci.times import SECOND_NS

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence
    from pathlib import Path

    from berth.builds.arguments import BuildArguments
    from berth.builds.bases import Bases
    from berth.builds.context import Context
    from berth.builds.copies import Copies
    from berth.builds.layers import LayerMaker
    from berth.builds.mounts import Mounts
    from berth.builds.origins import Origin, Origins
    from berth.builds.output import Output
    from berth.builds.requests import BuildRequest
    from berth.builds.runs import Runs
    from berth.builds.stage import Steps
    from berth.dockerfile.instructions import Instruction
    from berth.dockerfile.stages import Dockerfile, Stage
    from berth.images.records import Image
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What the stages of one build have in common."""

    request: BuildRequest
    means: Means
    dockerfile: Dockerfile
    context: Context
    folder: Path  # for files of the build's own
    arguments: BuildArguments
    copies: Copies
    steps: Steps
    epoch: int | None  # the second that everything is said to be made in
    slots: asyncio.Semaphore  # for what takes a processor


class StageBuilder:
    """Builds one stage."""

    def __init__(self, shared: Shared, origins: Origins, output: Output, stage: Stage) -> None:
        self._request = shared.request
        self._layers = shared.means.layers
        self._runs = shared.means.runs
        self._mounts = shared.means.mounts
        self._dockerfile = shared.dockerfile
        self._context = shared.context
        self._folder = shared.folder
        self._arguments = shared.arguments
        self._copies = shared.copies
        self._steps = shared.steps
        self._latest_ns = None if shared.epoch is None else shared.epoch * SECOND_NS
        self._slots = shared.slots
        self._origins = origins
        self._output = output
        self._stage = stage

    async def build(self, base: str, more: Sequence[Instruction]) -> StageState:
        """Build it; ``base`` is what it begins with, ``more`` are instructions after its own."""
        stage = self._stage
        await self._output.step(stage.head, stage)
        state = await self._begun(base)
        state.uses_cache = stage.head.stage not in self._request.fresh_stages
        await self._triggers(state)
        await self._output.image(state.image.id)
        is_replaced = stage.head.stage and self._origins.context(stage.head.stage) is not None
        for step in (*(() if is_replaced else stage.steps), *more):
            await self._output.step(step, stage)
            await self._step(state, step)
            await self._output.image(state.image.id)
        if not state.image.id:
            raise Failed("No image was generated. Is your Dockerfile empty?")
        await self._output.stage_end(state.image.id)
        return state

    async def _begun(self, name: str) -> StageState:
        """Return what the stage begins with."""
        head = self._stage.head
        if not name:
            raise Failed(f"base name ({head.base}) should not be blank")
        instead = self._origins.context(head.stage) or self._origins.context(name)
        if instead is not None and not isinstance(instead, str):
            return self._state(await self._of_files(instead))
        above = None if instead else await self._origins.stage(name, self._stage.index)
        if above is not None:
            return self._state(above.image, above)
        if name == SCRATCH and not instead:
            return self._state(None)
        put_in = Expansion(self._arguments.globals(), self._dockerfile.escape)
        text = put_in(head.platform)
        platform = Platform.parse(text) if text else self._request.platform
        return self._state(await self._origins.image(instead or name, platform))

    def _state(self, image: Image | None, above: StageState | None = None) -> StageState:
        """Return the beginning of a stage; ``above``: the stage that it begins with."""
        return StageState(
            image,
            scope=self._arguments.scope(above.scope if above else None),
            escape=self._dockerfile.escape,
            platform=self._request.platform or this_machine(),
        )

    async def _of_files(self, context: Context) -> Image:
        """Return an image of all that is in a named context."""
        state = self._state(None)
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
        state.is_triggered = True
        for text in state.triggers:
            await self._step(state, stages.trigger(text))
        state.is_triggered = False

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
            said = state.settings.apply(step, state.variables)
            if step.name == "STOPSIGNAL":
                signal_number(state.settings.config.stop_signal or "")  # or it is refused
            await self._plain(state, said)

    async def _plain(self, state: StageState, said: str) -> None:
        """Make the image of an instruction that changes the configuration alone."""
        command = state.plain(said)
        key = self._steps.key(state, command)
        if not await self._known(state, key, command):
            await self._steps.commit(state, key, command)

    async def _known(
        self, state: StageState, key: str, command: list[str], *, is_told: bool = True
    ) -> bool:
        known = await self._steps.known(state, key, command, is_told=is_told)
        if known:
            await self._output.cached()
        return known

    async def _layer(self, state: StageState, command: list[str], copying: Copying) -> None:
        """Make the image of an instruction whose layer needs no container."""
        key = self._steps.key(state, command, copying.mode)
        if await self._known(state, key, command, is_told=not copying.mode):
            return
        copying = replace(copying, latest_ns=self._latest_ns)
        async with self._slots, self._layers.make(state.image, copying) as layer:
            await self._steps.commit(state, key, command, layer)

    async def _linked(self, state: StageState, command: list[str], copying: Copying) -> None:
        """Put a layer on what is there that was made on nothing, and is not made again for another base."""
        key = self._steps.key(state, command, "link")
        if await self._known(state, key, command):
            return
        alone = self._state(None)
        alone.uses_cache = state.uses_cache
        await self._layer(alone, command, copying)
        await self._steps.graft(state, key, command, alone.image)

    async def _copy(self, state: StageState, step: Copy) -> None:
        try:
            origin = await self._origin(step.origin) if step.origin else None
            copying, said = await self._copies.prepare(step, state, origin)
            command = state.plain(said, with_files=True)
            if step.link and not step.mode:  # as BuildKit has it
                await self._linked(state, command, copying)
            else:
                await self._layer(state, command, copying)
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
        is_told = not any(wanted.digest for wanted in mounts)
        if await self._known(state, key, command, is_told=is_told):
            return
        offers = self._request.offers
        async with (
            self._slots,
            self._mounts.open([*mounts, *scripts], self._folder, offers) as loan,
        ):
            run = Run(
                image=state.image,
                config=state.settings.config,
                words=words,
                arguments=arguments,
                network=step.network,
                env=environment(mounts, state.variables),
                loan=loan,
                targets=[wanted.mount.target for wanted in mounts if wanted.mount.target],
                hostname=self._request.arguments.get(HOSTNAME) or "",
                latest_ns=self._latest_ns,
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
