"""A Dockerfile as its stages, and which of them an image needs. Pure."""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from berth.dockerfile import instructions, syntax
from berth.dockerfile.instructions import Arguments, Command, Copy, From, Instruction, Text
from berth.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SCRATCH = "scratch"
MAX_DIGITS = 10  # of a stage's number


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """From one FROM to the next."""

    index: int
    head: From
    steps: tuple[Instruction, ...]

    @property
    def name(self) -> str:
        """Its name, or its number when it has none."""
        return self.head.stage or str(self.index)


@dataclass(frozen=True, kw_only=True)
class Dockerfile:
    """A whole file."""

    escape: str
    globals: tuple[Arguments, ...] = ()  # ARG before the first FROM
    stages: tuple[Stage, ...] = field(default=())

    def find(self, name: str, before: int | None = None) -> Stage | None:
        """Return the stage of a name or number among those ``before`` one; the last of a name counts."""
        count = len(self.stages) if before is None else before
        named = self._by_name.get(name.lower(), ())
        if at := bisect.bisect_left(named, count):
            return self.stages[named[at - 1]]
        number = name.lstrip("0") or "0"
        if name.isascii() and name.isdecimal() and len(number) < MAX_DIGITS:
            return self.stages[int(number)] if int(number) < count else None
        return None

    @cached_property
    def _by_name(self) -> Mapping[str, Sequence[int]]:
        """Where the stages of each name are."""
        found: dict[str, list[int]] = {}
        for stage in self.stages:
            if stage.head.stage:
                found.setdefault(stage.head.stage, []).append(stage.index)
        return found

    def target(self, name: str) -> Stage:
        """Return the stage that is to be built, the last one by default."""
        if not name:
            return self.stages[-1]
        found = self.find(name)
        if found is None:
            raise InvalidArgument(f"failed to reach build target {name} in Dockerfile")
        return found

    def needed(self, target: Stage, bases: Sequence[str]) -> list[Stage]:
        """Return the stages that ``target`` builds upon or copies from, in order, and itself.

        ``bases``: what each FROM names, variables put in.
        """
        wanted = {target.index}
        for stage in reversed(self.stages[: target.index + 1]):
            if stage.index not in wanted:
                continue
            names = [bases[stage.index], *copied_from(stage.steps)]
            found = (self.find(name, stage.index) for name in names)
            wanted.update(other.index for other in found if other is not None)
        return [stage for stage in self.stages if stage.index in wanted]


def copied_from(steps: Sequence[Instruction]) -> list[str]:
    """Return what COPY --from and RUN --mount=from= name in a stage."""
    found = [step.origin for step in steps if isinstance(step, Copy) and step.origin]
    for step in steps:
        if isinstance(step, Command):
            found += step.origins
        if isinstance(step, Text) and step.name == "ONBUILD":
            found += copied_from([trigger(step.value)])
    return found


def trigger(text: str) -> Instruction:
    """Return the instruction that ONBUILD has kept."""
    source = syntax.parse(text)
    if len(source.lines) != 1:
        raise InvalidArgument("onbuild trigger should be a single expression")
    return instructions.read(source.lines[0])


def read(text: str) -> Dockerfile:
    """Read a Dockerfile; InvalidArgument in Docker's words, with the line."""
    source = syntax.parse(text)
    before: list[Arguments] = []
    stages: list[tuple[From, list[Instruction]]] = []
    for line in source.lines:
        try:
            step = instructions.read(line)
        except InvalidArgument as error:
            raise syntax.SyntaxFault.at(line.number, error.message, line.last) from error
        if isinstance(step, From):
            stages.append((step, []))
        elif stages:
            stages[-1][1].append(step)
        elif isinstance(step, Arguments):
            before.append(step)
        else:
            why = "no build stage in current context"
            raise syntax.SyntaxFault.at(line.number, why, line.last)
    if not stages:
        raise InvalidArgument("dockerfile parse error: no build stage in current context")
    return Dockerfile(
        escape=source.escape,
        globals=tuple(before),
        stages=tuple(
            Stage(index=index, head=head, steps=tuple(steps))
            for index, (head, steps) in enumerate(stages)
        ),
    )
