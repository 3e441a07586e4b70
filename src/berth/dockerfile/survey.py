"""What is in the stages of a Dockerfile once variables are put in, without any being built. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from berth.dockerfile import mounts
from berth.dockerfile.instructions import Arguments, Command, Copy, Pairs, Text, Words
from berth.dockerfile.substitution import Expansion
from berth.dockerfile.syntax import Fault
from berth.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from berth.dockerfile.instructions import Instruction
    from berth.dockerfile.stages import Dockerfile, Stage
    from berth.oci.image import ImageConfig
    from berth.oci.platform import Platform

MAX_WORK = 64 << 20  # letters and names that all stages together put in, look at and hand on
SET = 4  # letters that are put in while a name is
PATH = "PATH"


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """An image that stages begin with."""

    config: ImageConfig
    platform: Platform


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of a build beside its Dockerfile."""

    given: Mapping[str, str | None]  # arguments
    automatic: Mapping[str, str]  # what FROM sees without ARG
    target: Platform
    bases: Mapping[int, Base]  # by the stages that begin with them, as far as they are known
    replaced: frozenset[int] = frozenset()  # stages in whose place something else is taken
    ignored: Sequence[str] = ()  # patterns of .dockerignore


@dataclass(frozen=True, slots=True, kw_only=True)
class Argument:
    """A build argument as ARG declares it."""

    name: str
    value: str
    description: str
    lines: tuple[int, int]
    needs: frozenset[str] = frozenset()  # other arguments that its default is made of


@dataclass(frozen=True, slots=True, kw_only=True)
class Loan:
    """A secret or an agent that a RUN wants to be lent."""

    name: str
    required: bool
    lines: tuple[int, int]


@dataclass(slots=True, kw_only=True)
class Surveyed:
    """A stage; what it has is of the point that the survey has come to."""

    stage: Stage
    above: Surveyed | None
    is_known: bool  # what it begins with is
    environment: dict[str, str]
    declared: set[str]  # by ARG
    shell: bool  # there is one that somebody has chosen
    arguments: dict[str, Argument]
    used: set[str]
    secrets: dict[str, Loan] = field(default_factory=dict)
    agents: dict[str, Loan] = field(default_factory=dict)
    origins: list[int] = field(default_factory=list)  # stages that it copies from


def descriptions_of(step: Instruction) -> Mapping[str, str]:
    """Return what comments before an instruction say, by the names that they begin with."""
    assert step.line is not None
    found: dict[str, str] = {}
    for comment in step.line.comments:
        name, blank, text = comment.partition(" ")
        if blank:
            found.setdefault(name, text)
    return found


def description_of(step: Instruction, name: str) -> str:
    """Return what comments before an instruction say of a name."""
    return descriptions_of(step).get(name, "")


class Survey:
    """Goes through the stages of a Dockerfile."""

    def __init__(self, dockerfile: Dockerfile, facts: Facts) -> None:
        """InvalidArgument, where it is: an ARG before the first FROM is wrong."""
        self.dockerfile = dockerfile
        self.facts = facts
        self.stages: dict[int, Surveyed] = {}
        self._left = MAX_WORK
        overrides = {
            name: facts.given.get(name) or value for name, value in facts.automatic.items()
        }
        self.globals, self.arguments = self._globals(overrides, facts.given)
        self.defaults, _ = self._globals(overrides, {})  # as if no argument were given

    def _globals(
        self, known: Mapping[str, str], given: Mapping[str, str | None]
    ) -> tuple[Mapping[str, str], Mapping[str, Argument]]:
        """Return what FROM sees, and the arguments before the first one."""
        values, found = dict(known), dict[str, Argument]()
        for step in self.dockerfile.globals:
            descriptions = descriptions_of(step)
            for name, default in step.pairs:
                put_in = self.expansion(values)
                said = given.get(name)
                if name not in given and default is not None:
                    said = self._put(step, put_in, default)
                needs = put_in.asked & values.keys()
                if name in needs and name in found:
                    needs |= found[name].needs
                self.spend(SET * len(needs) + 1)
                if said is not None:
                    values[name] = said
                found[name] = Argument(
                    name=name,
                    value=said or "",
                    description=descriptions.get(name, ""),
                    lines=step.lines,
                    needs=frozenset(needs - {name}),
                )
        return values, found

    def expansion(self, variables: Mapping[str, str]) -> Expansion:
        """Return what puts in variables."""
        return Expansion(variables, self.dockerfile.escape)

    def base_of(self, stage: Stage) -> str:
        """Return what a stage begins with. Fault: that cannot be said."""
        return self._put(stage.head, self.expansion(self.globals), stage.head.base)

    def _put(self, step: Instruction, put_in: Expansion, text: str) -> str:
        assert step.line is not None
        try:
            found = put_in(text)
        except InvalidArgument as error:
            raise Fault.of(error, step.line) from error
        self.spend(put_in.spent + 1)
        return found

    def spend(self, work: int) -> None:
        """Count work. InvalidArgument: it is too much."""
        self._left -= work
        if self._left < 0:
            raise InvalidArgument("the Dockerfile is too much to be looked through")

    def walk(self, stages: Sequence[Stage]) -> Iterator[tuple[Surveyed, Instruction, set[str]]]:
        """Yield every step, before what it says holds, and the variables of it that there are not.

        A stage that another begins with comes before it. InvalidArgument, where it is: a step is wrong.
        """
        for stage in stages:
            found = self.stages[stage.index] = self._begun(stage)
            for step in stage.steps if stage.index not in self.facts.replaced else ():
                assert step.line is not None
                try:
                    if isinstance(step, Arguments):
                        missing, said = self._declared(found, step), []
                    else:
                        put_in = self.expansion(found.environment)
                        said = _expanded(step, put_in)
                        missing = self._missing(found, put_in)
                    yield found, step, missing
                    self._apply(found, step, said)
                except InvalidArgument as error:
                    raise Fault.of(error, step.line) from error

    def _missing(self, found: Surveyed, put_in: Expansion) -> set[str]:
        """Return the variables that there are not, after something was expanded."""
        self.spend(put_in.spent + 1)
        if not found.is_known:
            return set()
        known, declared = found.environment, found.declared
        return {name for name in put_in.asked if name not in known and name not in declared}

    def _begun(self, stage: Stage) -> Surveyed:
        """Return a stage before its first step."""
        put_in = self.expansion(self.globals)
        name = self._put(stage.head, put_in, stage.head.base)
        self._put(stage.head, put_in, stage.head.platform)
        other = self.dockerfile.find(name, stage.index)
        above = self.stages.get(other.index) if other else None
        base = self.facts.bases.get(stage.index)
        environment = dict(above.environment if above else ())
        if base is not None:
            environment |= dict(entry.partition("=")[::2] for entry in base.config.env or ())
        environment.setdefault(PATH, "")
        self.spend(len(environment) + len(self.arguments) + 1)
        return Surveyed(
            stage=stage,
            above=above,
            is_known=above.is_known if above else base is not None,
            environment=environment,
            declared=set(above.declared) if above else set(),
            shell=above.shell if above else bool(base and base.config.shell),
            arguments=dict(self.arguments),
            used=put_in.asked & self.globals.keys(),
        )

    def _apply(self, found: Surveyed, step: Instruction, said: Sequence[str]) -> None:
        match step:
            case Pairs(name="ENV"):
                found.environment |= dict(zip(said[::2], said[1::2], strict=True))
            case Command(name="SHELL"):
                found.shell = True
            case Command(name="RUN"):
                self._lend(found, step)
                self._take(found, step.origins)
            case Copy() if step.origin:
                self._take(found, [step.origin])
            case _:
                pass

    def _declared(self, found: Surveyed, step: Arguments) -> set[str]:
        """Declare arguments one after the other; return the variables that there are not."""
        missing: set[str] = set()
        descriptions = descriptions_of(step)
        for name, default in step.pairs:
            put_in = self.expansion(found.environment)
            value = None if default is None else put_in(default)
            missing |= self._missing(found, put_in)
            argument = Argument(
                name=name,
                value=value or "",
                description=descriptions.get(name, ""),
                lines=step.lines,
            )
            self._declare(found, argument, value)
        return missing

    def _declare(self, found: Surveyed, argument: Argument, default: str | None) -> None:
        name = argument.name
        given, inherited = name in self.facts.given, self.globals.get(name)
        value = self.facts.given[name] if given else default
        if given or default is not None or inherited is None:
            found.arguments[name] = replace(argument, value=value or "")
        else:
            value = inherited
        if value is not None:
            found.environment[name] = value
        found.declared.add(name)
        found.used.add(name)

    def _lend(self, found: Surveyed, step: Command) -> None:
        put_in = self.expansion(found.environment)
        asked = [mounts.read(text, put_in) for text in step.mounts]
        for mount in mounts.settled(asked, "/"):
            loan = Loan(name=mount.id, required=mount.required, lines=step.lines)
            if mount.kind == mounts.SECRET:
                found.secrets[mount.id] = loan
            elif mount.kind == mounts.SSH:
                found.agents[mount.id] = loan

    def _take(self, found: Surveyed, names: Sequence[str]) -> None:
        others = (self.dockerfile.find(name, found.stage.index) for name in names)
        found.origins += [other.index for other in others if other is not None]


def _expanded(step: Instruction, put_in: Expansion) -> list[str]:
    """Return the texts of a step that variables are put into, those of pairs in turn."""
    match step:
        case Pairs():
            return [put_in(text) for pair in step.pairs for text in pair]
        case Copy():
            for heredoc in step.heredocs:
                if heredoc.expands:
                    put_in.document(heredoc.content)
            texts = (step.owner, step.mode, step.checksum, *step.sources, step.target)
            return [put_in(text) for text in texts]
        case Command(name="RUN"):
            for text in step.mounts:
                mounts.read(text, put_in)
        case Words(name="VOLUME"):
            return [put_in(word) for word in step.words]
        case Text(name="STOPSIGNAL" | "USER" | "WORKDIR"):
            return [put_in(step.value)]
        case _:
            pass
    return []
