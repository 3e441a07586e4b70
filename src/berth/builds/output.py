"""What a build says of itself while it goes on, and Docker's classic way to put it: JSON messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from berth.errors import BerthError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from berth.dockerfile.instructions import Instruction
    from berth.dockerfile.stages import Stage

SHORT = 12
FRAME_HEAD = 8
STDERR = 2
RED, PLAIN = "\x1b[91m", "\x1b[0m"


class CommandFailed(BerthError):
    """A command of RUN ended with another code than 0, which is ``exit_code``."""

    code = "failed"

    def __init__(self, command: str, exit_code: int) -> None:
        super().__init__(f"The command '{command}' returned a non-zero code: {exit_code}")
        self.command = command
        self.exit_code = exit_code


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a build is going to do."""

    before: int  # instructions before the first stage
    stages: Sequence[Stage]  # those that are needed, in order
    after: int  # instructions that the request adds to the last one
    bases: Mapping[int, str]  # what each stage begins with, by its index, variables put in
    alone: bool  # the Dockerfile has one stage


class Output(Protocol):
    """Who is told of one build, or of one stage: then steps come one after the other.

    What is told belongs to the last step.
    """

    async def plan(self, plan: Plan) -> None:
        """Take note of what is going to be done."""

    def beside(self, stage: Stage) -> Output:
        """Return who is told of a stage, which goes on beside others."""
        ...

    def fails(self) -> None:
        """Take note that this is the stage at which the build fails; why is said by others."""

    async def step(self, instruction: Instruction, stage: Stage | None = None) -> None:
        """Say that an instruction begins. None: one before the first stage."""

    async def cached(self) -> None:
        """Say that an earlier build has done it."""

    async def container(self, id_: str) -> None:
        """Say where a command runs."""

    async def removed(self, id_: str) -> None:
        """Say that this container is gone."""

    async def wrote(self, data: bytes, *, stderr: bool) -> None:
        """Pass on what a command wrote."""

    async def say(self, text: str) -> None:
        """Say something else, for people; a line."""

    async def image(self, id_: str) -> None:
        """Say what the step has led to."""

    async def stage_end(self, id_: str) -> None:
        """Say what a stage has led to."""

    def report(self, message: Mapping[str, object]) -> None:
        """Pass on the progress of a pull, without waiting."""


class Listener(Protocol):
    """Who gets the messages."""

    async def tell(self, message: Mapping[str, object]) -> None:
        """Take a message; waits while the client does not read."""

    def report(self, message: Mapping[str, object]) -> None:
        """Take a message without waiting, for it counts bytes."""


class Turns:
    """Lets one stage after the other speak to a listener, in the order of the Dockerfile."""

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        self.order: list[int] = []  # those that have not ended, the one whose turn it is first
        self._kept: dict[int, list[Mapping[str, object]]] = {}
        self._ended: set[int] = set()
        self._failing: int | None = None

    def is_turn(self, index: int) -> bool:
        """Say whether a stage may speak."""
        return self.order[0] == index

    def keep(self, index: int, message: Mapping[str, object]) -> None:
        """Keep what a stage says until it is its turn."""
        self._kept.setdefault(index, []).append(message)

    def has_kept(self, index: int) -> bool:
        """Say whether something of a stage is still to be said."""
        return bool(self._kept.get(index))

    async def end(self, index: int) -> None:
        """Take note that a stage has said everything; let the next ones speak."""
        self._ended.add(index)
        while self.order and self.order[0] in self._ended:
            self.order.pop(0)
            if self.order:
                await self._say(self.order[0])

    def fail(self, index: int) -> None:
        """Take note that this stage is the one that ends the build."""
        if self._failing is None:
            self._failing = index

    async def settle(self) -> None:
        """Say what the stage has kept that ended the build."""
        if self._failing is not None:
            await self._say(self._failing)

    async def _say(self, index: int) -> None:
        kept = self._kept.get(index, [])
        while kept:  # more may come meanwhile, and waits behind it
            await self.listener.tell(kept[0])
            del kept[0]


class Turn(Listener):
    """The listener of one stage."""

    def __init__(self, turns: Turns, index: int) -> None:
        self._turns = turns
        self._index = index

    async def tell(self, message: Mapping[str, object]) -> None:
        """Pass a message on, or keep it."""
        if self._turns.is_turn(self._index) and not self._turns.has_kept(self._index):
            await self._turns.listener.tell(message)
        else:
            self._turns.keep(self._index, message)

    def report(self, message: Mapping[str, object]) -> None:
        """Pass a message on; nobody misses how far something was."""
        if self._turns.is_turn(self._index):
            self._turns.listener.report(message)

    async def end(self) -> None:
        """Let the next stage speak."""
        await self._turns.end(self._index)

    def hurry(self) -> None:
        """See :meth:`Messages.fails`."""
        self._turns.fail(self._index)


class Messages(Output):
    """A build in Docker's messages."""

    def __init__(self, listener: Listener, *, quiet: bool) -> None:
        self._listener = listener
        self._quiet = quiet
        self._step = 0
        self._steps = 0  # in all
        self._first: dict[int, int] = {}  # steps before each stage
        self._turns = Turns(listener)

    async def plan(self, plan: Plan) -> None:
        """Count the steps."""
        self._steps = plan.before
        for stage in plan.stages:
            self._first[stage.index] = self._steps
            self._steps += 1 + len(stage.steps)
        self._steps += plan.after
        self._turns.order = [stage.index for stage in plan.stages]

    def beside(self, stage: Stage) -> Messages:
        """Return who is told of a stage: it says all of it when it is its turn."""
        found = Messages(Turn(self._turns, stage.index), quiet=self._quiet)
        found._step, found._steps = self._first[stage.index], self._steps
        return found

    def fails(self) -> None:
        """Say what the stage has said so far next, for nothing is going to follow."""
        if isinstance(self._listener, Turn):
            self._listener.hurry()

    async def _stream(self, text: str) -> None:
        if not self._quiet:
            await self._listener.tell({"stream": text})

    async def say(self, text: str) -> None:
        """Say a line."""
        await self._stream(f"{text}\n")

    async def step(self, instruction: Instruction, stage: Stage | None = None) -> None:
        """Say that an instruction begins."""
        del stage
        self._step += 1
        await self._stream(f"Step {self._step}/{self._steps} : {instruction.text}")
        await self._stream("\n")

    async def cached(self) -> None:
        """Say that an earlier build has done it."""
        await self._stream(" ---> Using cache\n")

    async def container(self, id_: str) -> None:
        """Say where a command runs."""
        await self._stream(f" ---> Running in {short(id_)}\n")

    async def removed(self, id_: str) -> None:
        """Say that this container is gone."""
        await self._stream(f"Removing intermediate container {short(id_)}\n")

    async def wrote(self, data: bytes, *, stderr: bool) -> None:
        """Pass on what a command wrote; what it says on stderr is red, as in Docker."""
        text = data.decode("utf-8", "replace")
        await self._stream(f"{RED}{text}{PLAIN}" if stderr else text)

    async def image(self, id_: str) -> None:
        """Say what a step has led to."""
        await self._stream(f" ---> {short(id_)}\n")

    async def stage_end(self, id_: str) -> None:
        """Tell programs what a stage has led to."""
        if not self._quiet:
            await self._listener.tell({"aux": {"ID": id_}})
        if isinstance(self._listener, Turn):
            await self._listener.end()

    async def failed(self) -> None:
        """Say what is left of the stage at which the build has failed."""
        await self._turns.settle()

    async def done(self, id_: str) -> None:
        """Say that the image is made."""
        if self._quiet:
            await self._listener.tell({"stream": f"{id_}\n"})
        else:
            await self._stream(f"Successfully built {short(id_)}\n")

    def report(self, message: Mapping[str, object]) -> None:
        """Pass on the progress of a pull."""
        if not self._quiet:
            self._listener.report(message)


def short(id_: str) -> str:
    """Return the digits of an id that people see."""
    return id_.removeprefix("sha256:")[:SHORT]


class Frames:
    """A container's output, taken out of its frames."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[tuple[bool, bytes]]:
        """Return the pieces that are whole, and whether each came on stderr."""
        self._rest += data
        found = []
        while len(self._rest) >= FRAME_HEAD:
            end = FRAME_HEAD + int.from_bytes(self._rest[4:FRAME_HEAD], "big")
            if len(self._rest) < end:
                break
            found.append((self._rest[0] == STDERR, self._rest[FRAME_HEAD:end]))
            self._rest = self._rest[end:]
        return found
