"""What BuildKit's checks find in a Dockerfile. Pure."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from berth.dockerfile import rules, suggestions
from berth.dockerfile.ignore import Patterns
from berth.dockerfile.instructions import Arguments, Command, Copy, From, Pairs, Text, Words
from berth.dockerfile.stages import SCRATCH
from berth.dockerfile.syntax import directive, parse
from berth.errors import InvalidArgument
from berth.oci.platform import Platform
from berth.oci.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from berth.dockerfile.instructions import Instruction
    from berth.dockerfile.rules import Options, Rule
    from berth.dockerfile.stages import Stage
    from berth.dockerfile.survey import Survey, Surveyed

CHECK = "check"
RESERVED = ("context", SCRATCH)
TARGET = "TARGETPLATFORM"
MAX_FINDINGS = 1000
MAX_ROWS = 10_000  # that all findings together are of
MAX_GUESSES = 20  # at what a name was to be
MAX_IGNORED = 1 << 18  # letters of patterns
MAX_PATH = 4096  # of any file
SECRET = re.compile(
    r"(?:_|^)(?:apikey|auth|credentials?|key|password|pword|passwd|secret|token)(?:_|$)",
    re.IGNORECASE,
)
NO_SECRET = re.compile(r"(?:_|^)(?:public|file|version)(?:_|$)", re.IGNORECASE)
EVERYTHING = frozenset(("*", "**", "**/*"))
REMOTE = ("http://", "https://")
# Letters that a pattern is compared with while one is put in, and that are put in while a word is looked at.
CHEAP = DEAR = 16
OF_SCANS = ("BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a rule says of some lines."""

    rule: Rule
    detail: str
    lines: tuple[int, int]

    @property
    def short(self) -> str:
        """All of it in one line."""
        return f"{self.rule.name}: {self.detail} (line {self.lines[0]})"


def options_of(text: str, instead: str) -> Options:
    """Return what a Dockerfile says at its top of checks, or what the client says ``instead``."""
    try:
        return rules.options_of(instead or directive(text, CHECK))
    except InvalidArgument as error:
        why = f"failed to parse check options: {error.message}"
        raise InvalidArgument(error.message if instead else why) from error


class Linter:
    """Looks through a Dockerfile; ``findings`` has what it has found so far."""

    def __init__(self, survey: Survey, options: Options) -> None:
        self._survey = survey
        self._options = options
        self._dockerfile = survey.dockerfile
        self._facts = survey.facts
        self._known = {*survey.globals, *survey.arguments}
        ignored = survey.facts.ignored
        self._ignored = Patterns(ignored if sum(map(len, ignored)) <= MAX_IGNORED else ())
        self._chosen: dict[int, Options] = {}  # by the lines of instructions
        self._guesses, self._rows_left = MAX_GUESSES, MAX_ROWS
        self._placed: set[int] = set()  # stages that have had a WORKDIR
        self._said: dict[tuple[int, str], Instruction] = {}  # of what only the last counts
        self.findings: list[Finding] = []

    def run(self, text: str, stages: Sequence[Stage]) -> None:
        """Look at a whole file and at the steps of some stages. InvalidArgument: a step is wrong."""
        self._rows(text)
        for step in self._all():
            self._written(step)
        self._names()
        self._casing()
        self._defaults()
        for stage in self._dockerfile.stages:
            self._head(stage)
        for stage in stages:
            self._platform(stage)
        for found, step, missing in self._survey.walk(stages):
            self._missing(found, step, missing)
            self._step(found, step)

    def check_fails(self) -> None:
        """InvalidArgument, in BuildKit's words: what was found is to end the build."""
        if self._options.fails and self.findings:
            names = dict.fromkeys(finding.rule.name for finding in self.findings)
            raise InvalidArgument(f"lint violation found for rules: {', '.join(names)}")

    def _find(
        self, rule: Rule, step: Instruction, detail: str, lines: tuple[int, int] | None = None
    ) -> None:
        number, _ = step.lines
        if number not in self._chosen:
            self._chosen[number] = self._options_for(step)
        if self._chosen[number].wants(rule):
            self._add(rule, detail, lines or step.lines)

    def _options_for(self, step: Instruction) -> Options:
        """Return the options with what a comment before an instruction says."""
        for comment in step.line.comments if step.line else ():
            if text := directive(f"# {comment}", CHECK):
                try:
                    return self._options.with_more(rules.options_of(text.split()[0]))
                except InvalidArgument:
                    continue
        return self._options

    def _add(self, rule: Rule, detail: str, lines: tuple[int, int]) -> None:
        """Note what was found, as much as somebody may read; with too many rows it is of its first one."""
        if len(self.findings) == MAX_FINDINGS:
            return
        rows = lines[1] - lines[0]
        if rows > self._rows_left:
            lines, rows = (lines[0], lines[0]), 0
        self._rows_left -= rows
        self.findings.append(Finding(rule=rule, detail=detail, lines=lines))

    def _filled(self, variables: Mapping[str, str], text: str) -> tuple[str, set[str]]:
        """Return a text with variables put in, and their names. The work counts."""
        put_in = self._survey.expansion(variables)
        found = put_in(text)
        self._survey.spend(put_in.spent + 1)
        return found, put_in.asked

    def _nearest(self, name: str, known: Collection[str]) -> str:
        """Return what a name was to be, "" when that was asked too often."""
        self._guesses -= 1
        return suggestions.nearest(name, sorted(known)) if self._guesses >= 0 else ""

    def _all(self) -> Iterator[Instruction]:
        yield from self._dockerfile.globals
        for stage in self._dockerfile.stages:
            yield stage.head
            yield from stage.steps

    # What needs no variables

    def _rows(self, text: str) -> None:
        for line in parse(text).lines:
            if line.empty_at and self._options.wants(rules.NO_EMPTY_CONTINUATION):
                place = line.empty_at, line.empty_at
                self._add(rules.NO_EMPTY_CONTINUATION, "Empty continuation line", place)

    def _written(self, step: Instruction) -> None:
        assert step.line is not None
        if step.name == "MAINTAINER":
            why = "Maintainer instruction is deprecated in favor of using label"
            self._find(rules.MAINTAINER_DEPRECATED, step, why)
        if isinstance(step, Arguments):
            self._described(step, "ARG", [name for name, _ in step.pairs])
        if isinstance(step, From):
            self._from(step, step.line.written, step.line.rest.split())

    def _from(self, step: From, written: str, words: list[str]) -> None:
        if len(words) == 3:
            _, keyword, name = words
            if name != name.lower():
                detail = f"Stage name '{name}' should be lowercase"
                self._find(rules.STAGE_NAME_CASING, step, detail)
            wanted = {written.lower(): keyword.lower(), written.upper(): keyword.upper()}
            if wanted.get(written, keyword) != keyword:
                detail = f"'{keyword}' and '{written}' keywords' casing do not match"
                self._find(rules.FROM_AS_CASING, step, detail)
        if step.stage:
            self._described(step, "FROM", [step.stage])

    def _described(self, step: Instruction, what: str, names: Sequence[str]) -> None:
        assert step.line is not None
        if step.line.comments and step.line.comments[-1].split(" ")[0] not in names:
            shown = names[0] if len(names) == 1 else "<arg_key>"
            detail = f"Comment for {what} should follow the format: `# {shown} <description>`"
            self._find(rules.INVALID_DEFINITION_DESCRIPTION, step, detail)

    def _names(self) -> None:
        seen: set[str] = set()
        for stage in self._dockerfile.stages:
            name = stage.head.stage
            if name in RESERVED:
                detail = f'Stage name should not use the same name as reserved stage "{name}"'
                self._find(rules.RESERVED_STAGE_NAME, stage.head, detail)
            if name and name in seen:
                detail = f'Duplicate stage name "{name}", stage names should be unique'
                self._find(rules.DUPLICATE_STAGE_NAME, stage.head, detail)
            seen.add(name)

    def _casing(self) -> None:
        steps = [step for stage in self._dockerfile.stages for step in (stage.head, *stage.steps)]
        names = [step.line.written for step in steps if step.line]
        lower = sum(name == name.lower() for name in names)
        upper = sum(name == name.upper() for name in names)
        what, right = ("lowercase", str.lower) if lower > upper else ("uppercase", str.upper)
        for step, name in zip(steps, names, strict=True):
            if name != right(name):
                detail = f"Command '{name}' should match the case of the command majority ({what})"
                self._find(rules.CONSISTENT_INSTRUCTION_CASING, step, detail)

    # The beginnings of stages

    def _defaults(self) -> None:
        for stage in self._dockerfile.stages:
            put_in = self._survey.expansion(self._survey.defaults)
            try:
                Reference.parse(put_in(stage.head.base))
            except InvalidArgument:
                detail = (
                    f"Default value for ARG {stage.head.base} results in empty or invalid base"
                    " image name"
                )
                self._find(rules.INVALID_DEFAULT_ARG_IN_FROM, stage.head, detail)
            self._survey.spend(put_in.spent + 1)

    def _head(self, stage: Stage) -> None:
        known = self._survey.globals
        self._undeclared(stage.head, stage.head.base)
        if not stage.head.platform:
            return
        self._undeclared(stage.head, stage.head.platform)
        text, asked = self._filled(known, stage.head.platform)
        if asked == {TARGET} and text == known.get(TARGET):
            detail = (
                f"Setting platform to predefined {stage.head.platform} in FROM is redundant as this is"
                " the default behavior"
            )
            self._find(rules.REDUNDANT_TARGET_PLATFORM, stage.head, detail)
        if not asked and not _names_platform(stage.head.stage, text):
            detail = f'FROM --platform flag should not use constant value "{text}"'
            self._find(rules.FROM_PLATFORM_FLAG_CONST_DISALLOWED, stage.head, detail)

    def _undeclared(self, head: From, text: str) -> None:
        _, asked = self._filled(self._survey.globals, text)
        for name in sorted(asked - self._known):
            meant = _meant(self._nearest(name, self._known))
            detail = f"FROM argument '{name}' is not declared{meant}"
            self._find(rules.UNDEFINED_ARG_IN_FROM, head, detail)

    def _platform(self, stage: Stage) -> None:
        base = self._facts.bases.get(stage.index)
        name, _ = self._filled(self._survey.globals, stage.head.base)
        if base is None or name == SCRATCH:
            return
        asked, _ = self._filled(self._survey.globals, stage.head.platform)
        wanted = Platform.parse(asked) if asked else self._facts.target
        if (wanted.os, wanted.architecture) != (base.platform.os, base.platform.architecture):
            detail = (
                f'Base image {name} was pulled with platform "{base.platform}", expected "{wanted}"'
                " for current build"
            )
            self._find(rules.INVALID_BASE_IMAGE_PLATFORM, stage.head, detail)

    # Steps

    def _missing(self, found: Surveyed, step: Instruction, missing: set[str]) -> None:
        if len(self.findings) >= MAX_FINDINGS:
            return
        for name in sorted(missing.difference(OF_SCANS)):
            near = self._nearest(name, found.environment)
            meant = _meant(f"${near}" if near else "")
            detail = f"Usage of undefined variable '${name}'{meant}"
            self._find(rules.UNDEFINED_VAR, step, detail)

    def _step(self, found: Surveyed, step: Instruction) -> None:
        assert step.line is not None
        match step:
            case Arguments():
                for name, _ in step.pairs:
                    self._secret("ARG", name, step)
            case Pairs():
                self._pairs(step, step.line.written)
            case Command(name="CMD" | "ENTRYPOINT"):
                self._once(found, step)
                if step.is_shell and not found.shell:
                    detail = (
                        f"JSON arguments recommended for {step.line.written} to prevent unintended"
                        " behavior related to OS signals"
                    )
                    self._find(rules.JSON_ARGS_RECOMMENDED, step, detail)
            case Text(name="HEALTHCHECK"):
                self._once(found, step)
            case Text(name="WORKDIR"):
                self._workdir(found, step)
            case Words(name="EXPOSE"):
                self._expose(found, step)
            case Copy() if not step.origin:
                self._copy(found, step)

    def _pairs(self, step: Pairs, written: str) -> None:
        if len(step.pairs) == 1 and step.is_legacy:
            detail = f'"{written} key=value" should be used instead of legacy "{written} key value" format'
            self._find(rules.LEGACY_KEY_VALUE_FORMAT, step, detail)
        for name, _ in step.pairs if step.name == "ENV" else ():
            self._secret("ENV", name, step)

    def _secret(self, what: str, name: str, step: Instruction) -> None:
        if SECRET.search(name) and not NO_SECRET.search(name):
            detail = f'Do not use ARG or ENV instructions for sensitive data ({what} "{name}")'
            self._find(rules.SECRETS_USED_IN_ARG_OR_ENV, step, detail)

    def _once(self, found: Surveyed, step: Instruction) -> None:
        assert step.line is not None
        key = found.stage.index, step.name
        if before := self._said.get(key):
            detail = (
                f"Multiple {step.line.written} instructions should not be used in the same stage because"
                " only the last one will be used"
            )
            self._find(rules.MULTIPLE_INSTRUCTIONS_DISALLOWED, step, detail, before.lines)
        self._said[key] = step

    def _workdir(self, found: Surveyed, step: Text) -> None:
        path, _ = self._filled(found.environment, step.value)
        above = found.above.stage.index if found.above else None
        if above in self._placed:
            self._placed.add(found.stage.index)
        if found.stage.index not in self._placed and not posixpath.isabs(path):
            detail = (
                f'Relative workdir "{path}" can have unexpected results if the base image changes'
            )
            self._find(rules.WORKDIR_RELATIVE_PATH, step, detail)
        self._placed.add(found.stage.index)

    def _expose(self, found: Surveyed, step: Words) -> None:
        put_in = self._survey.expansion(found.environment)
        words = [word for text in step.words for word in put_in.words(text)]
        self._survey.spend(put_in.spent + DEAR * len(words))
        for word in words:
            *mapped, port = word.split(":")
            protocol = port.partition("/")[2]
            if protocol != protocol.lower():
                detail = f"Defined protocol '{word}' in EXPOSE instruction should be lowercase"
                self._find(rules.EXPOSE_PROTO_CASING, step, detail)
            if any(mapped):
                detail = (
                    "EXPOSE instruction should not define an IP address or host-port mapping, found"
                    f" '{word}'"
                )
                self._find(rules.EXPOSE_INVALID_FORMAT, step, detail)

    def _copy(self, found: Surveyed, step: Copy) -> None:
        if self._ignored.has_exceptions:
            return
        put_in = self._survey.expansion(found.environment)
        sources = [put_in(source) for source in step.sources]
        self._survey.spend(put_in.spent)
        for source in sources:
            path = posixpath.normpath(source).lstrip("/")
            if (step.is_add and source.startswith(REMOTE)) or len(path) > MAX_PATH:
                continue
            depth = 1 + path.count("/")
            self._survey.spend(len(self._facts.ignored) * len(path) * depth // CHEAP)
            if path in ("", ".") and EVERYTHING.isdisjoint(self._facts.ignored):
                continue
            if self._ignored.excludes(path):
                what = "Add" if step.is_add else "Copy"
                shown = posixpath.normpath(source)
                detail = f'Attempting to {what} file "{shown}" that is excluded by .dockerignore'
                self._find(rules.COPY_IGNORED_FILE, step, detail)


def _names_platform(stage: str, text: str) -> bool:
    """Say whether the name of a stage says what it is for, or the platform is none."""
    try:
        platform = Platform.parse(text)
    except InvalidArgument:
        return True
    return platform.os in stage or platform.architecture in stage


def _meant(name: str) -> str:
    return f" (did you mean {name}?)" if name else ""
