"""Instructions with their arguments, read from the lines of a Dockerfile. Pure.

A line becomes one of the classes here, checked as far as it can be without its variables; errors are in
Docker's words.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import msgspec

from berth.dockerfile import mounts, syntax
from berth.dockerfile.healthchecks import healthcheck
from berth.dockerfile.modes import Mode
from berth.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from berth.dockerfile.syntax import Heredoc, Line

STAGE_NAME = re.compile(r"[a-z][a-z0-9-_.]*")
DOCS = "Refer to docs/builds.md for what berth builds"


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """Any instruction: ``text`` is its line as it was written."""

    name: str
    text: str
    line: Line | None = field(default=None, repr=False, compare=False)  # None: nobody wrote it

    @property
    def lines(self) -> tuple[int, int]:
        """Where it begins and ends; zeros when nobody wrote it."""
        return (self.line.number, self.line.last) if self.line else (0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class From(Instruction):
    """FROM: the beginning of a stage."""

    base: str
    stage: str = ""  # its name, in lower case
    platform: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command(Instruction):
    """CMD, ENTRYPOINT, RUN and SHELL: words, or one text for the shell."""

    words: tuple[str, ...]
    is_shell: bool
    heredocs: tuple[Heredoc, ...] = ()
    network: str = ""  # this and those below are of RUN
    mounts: tuple[str, ...] = ()  # as they were written
    origins: tuple[str, ...] = ()  # what their "from" names


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs(Instruction):
    """ENV and LABEL."""

    pairs: tuple[tuple[str, str], ...]
    is_legacy: bool = False  # a name and a value without a sign between them


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments(Instruction):
    """ARG: names, each with a default or None."""

    pairs: tuple[tuple[str, str | None], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Words(Instruction):
    """EXPOSE and VOLUME."""

    words: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Text(Instruction):
    """MAINTAINER, ONBUILD, STOPSIGNAL, USER, WORKDIR and HEALTHCHECK: one text."""

    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy(Instruction):
    """ADD and COPY."""

    sources: tuple[str, ...]
    target: str
    origin: str = ""  # COPY --from
    owner: str = ""
    mode: str = ""
    checksum: str = ""
    excludes: tuple[str, ...] = ()
    parents: bool = False
    link: bool = False
    unpack: bool | None = None  # None: archives of the context, not those from elsewhere
    keep_git: bool | None = None
    heredocs: tuple[Heredoc, ...] = ()

    @property
    def is_add(self) -> bool:
        """Whether archives are extracted and URLs fetched."""
        return self.name == "ADD"


def read(line: Line) -> Instruction:
    """Return the instruction of a line; InvalidArgument in Docker's words."""
    reader = READERS.get(line.name)
    if reader is None:
        raise InvalidArgument(f"unknown instruction: {line.name}")
    return replace(reader(line), line=line)


def _flags(line: Line, known: Iterable[str]) -> dict[str, list[str]]:
    """Return the values of the flags; InvalidArgument for one that the instruction has not."""
    found: dict[str, list[str]] = {}
    for flag in line.flags:
        name, equals, value = flag.removeprefix("--").partition("=")
        if name not in known:
            raise InvalidArgument(f"Unknown flag: {name}")
        if not equals and name not in SWITCHES:
            raise InvalidArgument(f"Missing a value on flag: {name}")
        if name in found and name not in REPEATED:
            raise InvalidArgument(f"Duplicate flag specified: {name}")
        found.setdefault(name, []).append(value if equals else "true")
    return found


SWITCHES = ("link", "parents", "unpack", "keep-git-dir")
REPEATED = ("exclude", "mount")


def _last(flags: dict[str, list[str]], name: str) -> str:
    return flags.get(name, [""])[-1]


def _switch(flags: dict[str, list[str]], name: str) -> bool | None:
    """Return what a switch says, None when it is not there."""
    if name not in flags:
        return None
    value = _last(flags, name).lower()
    if value not in ("true", "false"):
        raise InvalidArgument(f"expecting boolean value for flag {name}, not: {_last(flags, name)}")
    return value == "true"


def json_words(text: str) -> tuple[str, ...] | None:
    """Return the words of a JSON array; None when the text is none."""
    if not text.startswith("["):
        return None
    try:
        found = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return None
    if not isinstance(found, list):
        return None
    if not all(isinstance(word, str) for word in found):
        raise InvalidArgument(
            "When using JSON array syntax, arrays must be comprised of strings only."
        )
    return tuple(found)


def _exactly_one(line: Line) -> None:
    if not line.rest:
        raise InvalidArgument(f"{line.name} requires exactly one argument")


def _at_least_one(line: Line) -> None:
    if not line.rest:
        raise InvalidArgument(f"{line.name} requires at least one argument")


def _from(line: Line) -> From:
    flags = _flags(line, ("platform",))
    words = line.rest.split()
    if len(words) == 3 and words[1].upper() == "AS":
        stage = words[2].lower()
        if not STAGE_NAME.fullmatch(stage):
            raise InvalidArgument(
                f'invalid name for build stage: "{words[2]}", name can\'t start with a number or'
                " contain symbols"
            )
    elif len(words) == 1:
        stage = ""
    else:
        raise InvalidArgument("FROM requires either one or three arguments")
    platform = _last(flags, "platform")
    return From(
        name=line.name,
        text=line.text,
        base=words[0],
        stage=stage,
        platform=platform,
    )


def _command(line: Line) -> Command:
    known = ("mount", "network", "security", "device") if line.name == "RUN" else ()
    flags = _flags(line, known)
    if "device" in flags:
        raise InvalidArgument(f"--device={_last(flags, 'device')} is not allowed. {DOCS}")
    _check_security(_last(flags, "security"))
    network = _last(flags, "network")
    if network not in ("", "default", "none", "host"):
        raise InvalidArgument(f'unsupported network mode "{network}"')
    words = json_words(line.rest)
    _at_least_one(line)
    if line.name == "SHELL":
        if words is None:
            raise InvalidArgument("SHELL requires the arguments to be in JSON form")
        if not words:
            raise InvalidArgument("SHELL requires at least one argument")
    return Command(
        name=line.name,
        text=line.text,
        words=(line.rest,) if words is None else words,
        is_shell=words is None,
        heredocs=line.heredocs,
        network="" if network == "default" else network,
        mounts=tuple(flags.get("mount", ())),
        origins=tuple(filter(None, map(mounts.origin_of, flags.get("mount", ())))),
    )


def _check_security(value: str) -> None:
    if value == "insecure":
        raise InvalidArgument(f"security.insecure is not allowed. {DOCS}")
    if value not in ("", "sandbox"):
        raise InvalidArgument(f'security "{value}" is not valid')


def _legacy_pair(line: Line) -> tuple[tuple[str, str], ...]:
    """Return the one pair of the older form."""
    parts = re.split(r"\s+", line.rest, maxsplit=1)
    if len(parts) < 2:
        raise InvalidArgument(f"{line.name} must have two arguments")
    return ((parts[0], parts[1]),)


def _read_pairs(line: Line) -> tuple[tuple[str, str], ...]:
    pairs = []
    for word in syntax.split_words(line.rest, line.escape):
        key, equals, value = word.partition("=")
        if not equals:
            quoted = msgspec.json.encode(word).decode()
            raise InvalidArgument(
                f"Syntax error - can't find = in {quoted}. Must be of the form: name=value"
            )
        if not key:
            raise InvalidArgument(f"{line.name} names can not be blank")
        pairs.append((key, value))
    return tuple(pairs)


def _pairs(line: Line) -> Pairs:
    _flags(line, ())
    _at_least_one(line)
    is_legacy = "=" not in syntax.split_words(line.rest, line.escape)[0]
    pairs = _legacy_pair(line) if is_legacy else _read_pairs(line)
    return Pairs(name=line.name, text=line.text, pairs=pairs, is_legacy=is_legacy)


def _arguments(line: Line) -> Arguments:
    _flags(line, ())
    _at_least_one(line)
    pairs = []
    for word in syntax.split_words(line.rest, line.escape):
        key, equals, value = word.partition("=")
        if not key:
            raise InvalidArgument("ARG names can not be blank")
        pairs.append((key, value if equals else None))
    return Arguments(name=line.name, text=line.text, pairs=tuple(pairs))


def _words(line: Line) -> Words:
    _flags(line, ())
    _at_least_one(line)
    words = json_words(line.rest) if line.name == "VOLUME" else None
    found = tuple(line.rest.split()) if words is None else words
    if not all(word.strip() for word in found):
        raise InvalidArgument(f"{line.name} specified can not be an empty string")
    return Words(name=line.name, text=line.text, words=found)


def _text(line: Line) -> Text:
    _flags(line, ())
    _exactly_one(line)
    return Text(name=line.name, text=line.text, value=line.rest)


def _healthcheck(line: Line) -> Text:
    if not line.rest:
        raise InvalidArgument("HEALTHCHECK requires at least one argument")
    value = " ".join([*line.flags, line.rest])
    healthcheck(value)
    return Text(name=line.name, text=line.text, value=value)


def _onbuild(line: Line) -> Text:
    _flags(line, ())
    _at_least_one(line)
    trigger = line.rest.split(None, 1)[0].upper()
    if trigger == "ONBUILD":
        raise InvalidArgument("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if trigger in ("MAINTAINER", "FROM"):
        raise InvalidArgument(f"{trigger} isn't allowed as an ONBUILD trigger")
    value = line.rest
    for heredoc in line.heredocs:
        value += f"\n{heredoc.content}{heredoc.name}"
    return Text(name=line.name, text=line.text, value=value)


def _copy(line: Line) -> Copy:
    known = ["chown", "chmod", "link", "exclude"]
    known += ["checksum", "unpack", "keep-git-dir"] if line.name == "ADD" else ["from", "parents"]
    flags = _flags(line, known)
    json = json_words(line.rest)
    words = list(line.rest.split() if json is None else json)
    if not words:
        raise InvalidArgument(f"{line.name} requires at least two arguments")
    if len(words) < 2:
        raise InvalidArgument(
            f"{line.name} requires at least two arguments, but only one was provided. Destination"
            " could not be determined."
        )
    if (mode := _last(flags, "chmod")) and "$" not in mode:
        Mode(mode)  # or it is refused
    if syntax.HEREDOC.fullmatch(words[-1]):
        raise InvalidArgument(f"{line.name} cannot accept a heredoc as a destination")
    documents = {f"<<{heredoc.name}" for heredoc in line.heredocs}
    sources = [word for word in words[:-1] if _plain(word) not in documents]
    return Copy(
        name=line.name,
        text=line.text,
        sources=tuple(sources),
        target=words[-1],
        origin=_last(flags, "from"),
        owner=_last(flags, "chown"),
        mode=mode,
        checksum=_last(flags, "checksum"),
        excludes=tuple(flags.get("exclude", ())),
        parents=bool(_switch(flags, "parents")),
        link=bool(_switch(flags, "link")),
        unpack=_switch(flags, "unpack"),
        keep_git=_switch(flags, "keep-git-dir"),
        heredocs=line.heredocs,
    )


def _plain(word: str) -> str:
    """Return a word that begins a here-document without its dash and quotes."""
    found = syntax.HEREDOC.fullmatch(word)
    return f"<<{found[3] or found[4] or found[5]}" if found else word


READERS: dict[str, Callable[[Line], Instruction]] = {
    "ADD": _copy,
    "ARG": _arguments,
    "CMD": _command,
    "COPY": _copy,
    "ENTRYPOINT": _command,
    "ENV": _pairs,
    "EXPOSE": _words,
    "FROM": _from,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _pairs,
    "MAINTAINER": _text,
    "ONBUILD": _onbuild,
    "RUN": _command,
    "SHELL": _command,
    "STOPSIGNAL": _text,
    "USER": _text,
    "VOLUME": _words,
    "WORKDIR": _text,
}
