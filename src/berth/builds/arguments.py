"""Build arguments: what ARG declares and --build-arg gives, by Docker's rules of scope. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from berth.dockerfile.substitution import expand

if TYPE_CHECKING:
    from collections.abc import Mapping

    from berth.dockerfile.instructions import Arguments
    from berth.oci.platform import Platform

PROXIES = tuple(
    name
    for upper in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for name in (upper, upper.lower())
)


def platform_arguments(target: Platform, machine: Platform) -> dict[str, str]:
    """Return the arguments that say what is built for and where, which FROM sees without ARG."""
    found = {}
    for prefix, platform in (("TARGET", target), ("BUILD", machine)):
        found[f"{prefix}PLATFORM"] = str(platform)
        found[f"{prefix}OS"] = platform.os
        found[f"{prefix}ARCH"] = platform.architecture
        found[f"{prefix}VARIANT"] = platform.variant
    return found


class BuildArguments:
    """The arguments of a build; :meth:`scope` gives those of a stage."""

    def __init__(self, given: Mapping[str, str | None], known: Mapping[str, str]) -> None:
        """``known``: what FROM sees without ARG."""
        self._given = given
        self._globals: dict[str, str | None] = dict(known)
        self.referenced: set[str] = set()

    def value(self, name: str, default: str | None) -> str | None:
        """Return what an argument is: as given, else by default, else as it is before the first FROM."""
        if name in self._given:
            return self._given[name]
        return self._globals.get(name) if default is None else default

    def declare_global(self, step: Arguments, escape: str) -> None:
        """Take note of an ARG before the first FROM."""
        for name, default in step.pairs:
            value = None if default is None else expand(default, self.globals(), escape)
            if name in self._given:
                value = self._given[name]
            elif value is None:
                value = self._globals.get(name)
            self._globals[name] = value
            self.referenced.add(name)

    def globals(self) -> dict[str, str]:
        """Return what FROM sees."""
        return {name: value for name, value in self._globals.items() if value is not None}

    def unused(self) -> list[str]:
        """Return what was given and never asked for."""
        known = (*PROXIES, *self._globals)
        return [name for name in self._given if name not in self.referenced and name not in known]

    def scope(self) -> Scope:
        """Return the arguments of a new stage: none yet."""
        return Scope(self)


class Scope:
    """The arguments that one stage has declared."""

    def __init__(self, build: BuildArguments) -> None:
        self._build = build
        self._defaults: dict[str, str | None] = {}

    def declare(self, step: Arguments, variables: Mapping[str, str], escape: str) -> str:
        """Take note of an ARG; return what history says of it."""
        said = []
        for key, default in step.pairs:
            name = expand(key, variables, escape)
            value = None if default is None else expand(default, variables, escape)
            self._defaults[name] = value
            self._build.referenced.add(name)
            said.append(name if value is None else f"{name}={value}")
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
            if name not in PROXIES or name in self._build.referenced
        ]
        return [f"|{len(shown)}", *sorted(shown)] if values else []
