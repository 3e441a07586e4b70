"""What a build says to its client: a stream of JSON messages in Docker's words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from berth.errors import BerthError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from berth.dockerfile.instructions import Instruction

SHORT = 12
FRAME_HEAD = 8
STDERR = 2
RED, PLAIN = "\x1b[91m", "\x1b[0m"


class CommandFailed(BerthError):
    """A command of RUN ended with another code than 0, which is ``exit_code``."""

    code = "failed"

    def __init__(self, command: str, exit_code: int) -> None:
        super().__init__(f"The command '{command}' returned a non-zero code: {exit_code}")
        self.exit_code = exit_code


class Listener(Protocol):
    """Who gets the messages."""

    async def tell(self, message: Mapping[str, object]) -> None:
        """Take a message; waits while the client does not read."""

    def report(self, message: Mapping[str, object]) -> None:
        """Take a message without waiting, for it counts bytes."""


class Output:
    """One build's messages."""

    def __init__(self, listener: Listener, *, quiet: bool) -> None:
        self._listener = listener
        self._quiet = quiet
        self._step = 0
        self.steps = 0  # in all

    async def say(self, text: str) -> None:
        """Say a text."""
        if not self._quiet:
            await self._listener.tell({"stream": text})

    async def step(self, instruction: Instruction) -> None:
        """Say that an instruction begins."""
        self._step += 1
        await self.say(f"Step {self._step}/{self.steps} : {instruction.text}")
        await self.say("\n")

    async def image(self, id_: str) -> None:
        """Say what a step has led to."""
        await self.say(f" ---> {short(id_)}\n")

    async def stage_end(self, id_: str) -> None:
        """Tell programs what a stage has led to."""
        if not self._quiet:
            await self._listener.tell({"aux": {"ID": id_}})

    async def done(self, id_: str) -> None:
        """Say that the image is made."""
        if self._quiet:
            await self._listener.tell({"stream": f"{id_}\n"})
        else:
            await self.say(f"Successfully built {short(id_)}\n")

    def report(self, message: Mapping[str, object]) -> None:
        """Pass on the progress of a pull."""
        if not self._quiet:
            self._listener.report(message)


def short(id_: str) -> str:
    """Return the digits of an id that people see."""
    return id_.removeprefix("sha256:")[:SHORT]


class Frames:
    """A container's output, taken out of its frames; what it says on stderr is red, as in Docker."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        """Return the texts that are whole."""
        self._rest += data
        found = []
        while len(self._rest) >= FRAME_HEAD:
            end = FRAME_HEAD + int.from_bytes(self._rest[4:FRAME_HEAD], "big")
            if len(self._rest) < end:
                break
            text = self._rest[FRAME_HEAD:end].decode("utf-8", "replace")
            found.append(f"{RED}{text}{PLAIN}" if self._rest[0] == STDERR else text)
            self._rest = self._rest[end:]
        return found
