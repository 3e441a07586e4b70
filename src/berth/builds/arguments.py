"""Build arguments: what ARG declares and --build-arg gives, by Docker's rules of scope. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from berth.dockerfile.substitution import MAX_PUT_IN, Expansion
from berth.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from berth.dockerfile.instructions import Arguments
    from berth.oci.platform import Platform

PROXIES = tuple(
    name
    for upper in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for name in (upper, upper.lower())
)


EPOCH = "SOURCE_DATE_EPOCH"
SECONDS = re.compile(r"[0-9]{1,11}")
OF_BUILDER = "BUILDKIT_"  # what is for the builder itself begins so
HOSTNAME = "BUILDKIT_SANDBOX_HOSTNAME"
KEEPS_GIT = "BUILDKIT_CONTEXT_KEEP_GIT_DIR"


def automatic_arguments(target: Platform, machine: Platform, stage: str) -> dict[str, str]:
    """Return the arguments that say what is built, for what and where, which FROM sees without ARG."""
    found = {"TARGETSTAGE": stage or "default"}
    for prefix, platform in (("TARGET", target), ("BUILD", machine)):
        found[f"{prefix}PLATFORM"] = str(platform)
        found[f"{prefix}OS"] = platform.os
        found[f"{prefix}ARCH"] = platform.architecture
        found[f"{prefix}VARIANT"] = platform.variant
        found[f"{prefix}OSVERSION"] = ""
    return found


class BuildArguments:
    """The arguments of a build; :meth:`scope` gives those of a stage."""

    def __init__(self, given: Mapping[str, str | None], known: Mapping[str, str]) -> None:
        """``known``: what FROM sees without ARG."""
        self._given = given
        self._globals = {name: given.get(name) or value for name, value in known.items()}
        self.referenced: set[str] = set()

    def value(self, name: str, default: str | None) -> str | None:
        """Return what an argument is: as given, else by default, else as it is before the first FROM."""
        if name in self._given:
            return self._given[name]
        return self._globals.get(name) if default is None else default

    def declare_globals(self, steps: Sequence[Arguments], escape: str) -> None:
        """Take note of the ARGs before the first FROM."""
        put_in = Expansion(self._globals, escape)
        for name, default in (pair for step in steps for pair in step.pairs):
            said = None if default is None else put_in(default)
            value = self._given.get(name) if name in self._given else said
            if value is not None:
                self._globals[name] = value
            elif name in self._given:
                self._globals.pop(name, None)
            self.referenced.add(name)

    def globals(self) -> Mapping[str, str]:
        """Return what FROM sees."""
        return self._globals

    @property
    def epoch(self) -> int | None:
        """The second that everything is to be said to be made in; None for nothing."""
        text = self.value(EPOCH, None)
        if not text:
            return None
        if not SECONDS.fullmatch(text):
            raise InvalidArgument(f"invalid {EPOCH}: {text}")
        return int(text)

    def unused(self) -> list[str]:
        """Return what was given and never asked for."""
        known = {*PROXIES, EPOCH, *self._globals, *self.referenced}
        return [n for n in self._given if n not in known and not n.startswith(OF_BUILDER)]

    def scope(self, above: Scope | None = None) -> Scope:
        """Return the arguments of a new stage: those of the stage that it begins with, if any."""
        return Scope(self, above)


class Scope:
    """The arguments that one stage has declared."""

    def __init__(self, build: BuildArguments, above: Scope | None) -> None:
        self._build = build
        self._defaults: dict[str, str | None] = dict(above.defaults) if above else {}

    @property
    def defaults(self) -> Mapping[str, str | None]:
        """What is declared, and what each is by default."""
        return self._defaults

    def declare(self, step: Arguments, variables: Mapping[str, str], escape: str) -> str:
        """Take note of an ARG; return what history says of it."""
        said, put_in = [], Expansion(variables, escape)
        for key, default in step.pairs:
            name = put_in(key)
            value = None if default is None else put_in(default)
            self._defaults[name] = value
            self._build.referenced.add(name)
            said.append(name if value is None else f"{name}={value}")
        if sum(len(value or "") for value in self._defaults.values()) > MAX_PUT_IN:
            raise InvalidArgument(f"a stage's arguments have more than {MAX_PUT_IN >> 20} MiB")
        return f"ARG {' '.join(said)}"

    def values(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Return the arguments that have a value and no variable of ``environment`` in their way."""
        names = {**self._defaults, **dict.fromkeys(PROXIES)}
        found = {
            name: self._build.value(name, self._defaults.get(name))
            for name in names
            if name not in environment
        }
        return {name: value for name, value in found.items() if value is not None}

    def prefix(self, values: Mapping[str, str]) -> list[str]:
        """Return what is said of arguments before a command of RUN; proxies only where declared."""
        shown = [
            f"{name}={value}"
            for name, value in values.items()
            if name not in PROXIES or name in self._defaults
        ]
        return [f"|{len(shown)}", *sorted(shown)] if values else []
