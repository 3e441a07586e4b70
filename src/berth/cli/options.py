"""Flags as the docker CLI reads them, from a table.

A table is a tuple of rows (name, shorthand, kind, help). Kinds: ``bool``, ``true`` (a bool that is on by
default), ``string``, ``list``, ``strings`` (with commas between several), ``map`` and ``filter`` (may be
repeated), ``int``, ``bytes``, ``decimal``, ``duration``.
``--name value``, ``--name=value``, ``-n value``, ``-nvalue``, ``-n=value``, ``-abn value``;
``--`` ends the flags.
"""

from __future__ import annotations

from berth.cli import units
from berth.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    Flag = tuple[str, str, str, str]
    Value = bool | str | int | list[str]

SWITCHES = ("bool", "true")
REPEATED = ("list", "strings", "map", "filter")
TRUTHS = {
    **dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True),
    **dict.fromkeys(("0", "f", "F", "FALSE", "false", "False"), False),
}


class UsageError(InvalidArgument):
    """A flag is unknown or its value is wrong: exit code 125, and the usage is shown."""


class FlagError(InvalidArgument):
    """Flags do not go together, or say what cannot be: exit code 125, and where help is to be had."""


class HelpWanted(Exception):
    """``--help`` was among the flags."""


class Options:
    """The values given, by flag name; the getters know the defaults."""

    __slots__ = ("_values",)

    def __init__(self, values: dict[str, Value]) -> None:
        self._values = values

    def given(self, name: str) -> bool:
        """Say whether the flag was on the command line."""
        return name in self._values

    def names(self) -> set[str]:
        """Return the flags that were on the command line."""
        return set(self._values)

    def on(self, name: str, *, default: bool = False) -> bool:
        """Return a switch."""
        value = self._values.get(name, default)
        return value is True

    def text(self, name: str, default: str = "") -> str:
        """Return a string; the last one given wins."""
        value = self._values.get(name, default)
        return value if isinstance(value, str) else default

    def number(self, name: str, default: int = 0) -> int:
        """Return an int, bytes, decimal (in billionths) or duration (in ns) flag."""
        value = self._values.get(name, default)
        return value if isinstance(value, int) else default

    def all(self, name: str) -> list[str]:
        """Return every value of a repeated flag."""
        value = self._values.get(name)
        return value if isinstance(value, list) else []

    def pairs(self, name: str) -> dict[str, str]:
        """Return a repeated ``key=value`` flag; a bare key has an empty value."""
        found = {}
        for item in self.all(name):
            key, _, value = item.partition("=")
            found[key] = value
        return found


class _Reader:
    """One pass over the arguments."""

    def __init__(self, flags: Sequence[Flag], arguments: Sequence[str]) -> None:
        self.long = {flag[0]: flag for flag in flags}
        self.short = {flag[1]: flag for flag in flags if flag[1]}
        self.rest = list(arguments)
        self.values: dict[str, Value] = {}

    def take_long(self, argument: str) -> None:
        name, equals, value = argument[2:].partition("=")
        if name == "help" and name not in self.long:
            raise HelpWanted
        flag = self.long.get(name)
        if flag is None:
            raise UsageError(f"unknown flag: --{name}")
        if equals:
            self.keep(flag, value)
        elif flag[2] in SWITCHES:
            self.keep(flag, "true")
        elif self.rest:
            self.keep(flag, self.rest.pop(0))
        else:
            raise UsageError(f"flag needs an argument: --{name}")

    def take_short(self, argument: str) -> None:
        letters = argument[1:]
        while letters:
            letter, after = letters[0], letters[1:]
            flag = self.short.get(letter)
            if flag is None:
                if letter == "h":
                    raise HelpWanted
                raise UsageError(f"unknown shorthand flag: {letter!r} in {argument}")
            if after.startswith("="):
                self.keep(flag, after[1:])
                return
            if flag[2] in SWITCHES:
                self.keep(flag, "true")
                letters = after
                continue
            if not after and not self.rest:
                raise UsageError(f"flag needs an argument: {letter!r} in {argument}")
            self.keep(flag, after or self.rest.pop(0))
            return

    def keep(self, flag: Flag, text: str) -> None:
        name, short, kind, _ = flag
        shown = f"-{short}, --{name}" if short else f"--{name}"
        if kind == "filter" and "=" not in text:
            why = "bad format of filter (expected name=value)"
            raise UsageError(f'invalid argument "{text}" for "{shown}" flag: {why}')
        if kind in REPEATED:
            found = self.values.setdefault(name, [])
            assert isinstance(found, list)
            found += _fields(text) if kind == "strings" else [text]
            return
        try:
            self.values[name] = convert(kind, text)
        except ValueError as error:
            raise UsageError(f'invalid argument "{text}" for "{shown}" flag: {error}') from None


def _fields(text: str) -> list[str]:
    """Return what stands between commas; what has some of its own is quoted."""
    if '"' not in text:
        return text.split(",") if text else []
    import csv

    return next(csv.reader([text]))


def convert(kind: str, text: str) -> Value:
    """Return the value of one flag; ValueError says what is wrong with it in Docker's words."""
    if kind in SWITCHES:
        if text not in TRUTHS:
            raise ValueError(f'strconv.ParseBool: parsing "{text}": invalid syntax')
        return TRUTHS[text]
    if kind == "int":
        return units.integer(text)
    if kind == "bytes":
        return units.size(text)
    if kind == "decimal":
        return units.billionths(text)
    if kind == "duration":
        return units.duration_ns(text)
    return text


def parse(
    flags: Sequence[Flag], arguments: Sequence[str], *, mixed: bool = True
) -> tuple[Options, list[str]]:
    """Split the arguments into options and the rest.

    ``mixed`` allows flags after positional arguments; without it the first positional ends the flags.
    """
    reader = _Reader(flags, arguments)
    positional: list[str] = []
    while reader.rest:
        argument = reader.rest.pop(0)
        if argument == "--":
            positional += reader.rest
            break
        if not argument.startswith("-") or argument == "-":
            positional.append(argument)
            if not mixed:
                positional += reader.rest
                break
        elif argument.startswith("--"):
            reader.take_long(argument)
        else:
            reader.take_short(argument)
    return Options(reader.values), positional
