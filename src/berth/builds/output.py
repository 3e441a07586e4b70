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
    """Who is told of one build. Steps come one after the other; what is told belongs to the last one."""

    async def plan(self, plan: Plan) -> None:
        """Take note of what is going to be done."""

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


class Messages(Output):
    """A build in Docker's messages."""

    def __init__(self, listener: Listener, *, quiet: bool) -> None:
        self._listener = listener
        self._quiet = quiet
        self._step = 0
        self._steps = 0  # in all

    async def plan(self, plan: Plan) -> None:
        """Count the steps."""
        self._steps = plan.before + plan.after
        self._steps += sum(1 + len(stage.steps) for stage in plan.stages)

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
