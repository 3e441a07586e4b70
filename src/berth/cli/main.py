"""The `berth` command: find the command, read its flags, run it, turn errors into text and exit codes."""

from __future__ import annotations

import os
import sys

from berth.cli import commands, options
from berth.cli.call import Call, report
from berth.client import address
from berth.errors import BerthError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from berth.cli.commands import Verb

USAGE_EXIT = 125
RUNNING_VERBS = ("run",)  # their own failures are told from the payload's by 125
INTERRUPTED = 130
BROKEN_PIPE = 141  # what the shell says of a process that SIGPIPE ended

GLOBAL: tuple[options.Flag, ...] = (
    ("host", "H", "list", "Engine to connect to: unix://PATH or tcp://HOST:PORT"),
    ("version", "v", "bool", "Print version information and quit"),
)


def main(argv: Sequence[str]) -> int:
    """Run the command line; return the exit code."""
    try:
        status = _main(list(argv[1:]))
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is left in the buffer goes nowhere
        return BROKEN_PIPE
    return status


def _main(arguments: list[str]) -> int:
    try:
        given, rest = options.parse(GLOBAL, arguments, mixed=False)
    except options.HelpWanted:
        return _help("")
    except options.UsageError as error:
        return _complain(f"{error}", "", USAGE_EXIT)
    if given.on("version"):
        return _version()
    if not rest or rest[0] == "help":
        return _help(" ".join(rest[1:]))
    name, after = commands.find(rest)
    if name not in commands.COMMANDS:
        return _help(name) if name in commands.GROUPS else _unknown(name, after)
    if name == "serve" and given.given("host"):
        after = [f"--host={host}" for host in given.all("host")] + after
    try:
        return _dispatch(name, after, (given.all("host") or [""])[-1])
    except BerthError as error:
        report(error)
        return USAGE_EXIT if name in RUNNING_VERBS else 1


def _dispatch(name: str, arguments: list[str], host: str) -> int:
    _, _, _, least, most = commands.COMMANDS[name]
    flags, act = load(name)
    mixed = name not in commands.FIRST_POSITIONAL_ENDS
    try:
        given, positional = options.parse(flags, arguments, mixed=mixed)
    except options.HelpWanted:
        return _help(name)
    except options.UsageError as error:
        return _complain(f"{error}", name, USAGE_EXIT)
    if not least <= len(positional) <= most:
        return _complain(_count(name, least, most), name, 1)
    chosen = address.chosen(host) if name != "serve" else None
    return act(Call(name, given, positional, chosen))


def load(name: str) -> Verb:
    """Return the flags and the function of a command, from its module."""
    module = commands.COMMANDS[name][0]
    loaded = __import__(f"berth.cli.{module}", fromlist=["VERBS"])
    verbs: dict[str, Verb] = loaded.VERBS
    return verbs[name]


def _count(name: str, least: int, most: int) -> str:
    if most == 0:
        return f"berth: 'berth {name}' accepts no arguments"
    count = most if least == 0 else least
    how = "requires" if least == most else "requires at least" if least else "requires at most"
    return f"berth: 'berth {name}' {how} {count} argument{'s' if count != 1 else ''}"


def _complain(message: str, name: str, status: int) -> int:
    usage = commands.COMMANDS[name][1] if name else "[OPTIONS] COMMAND"
    command = f"berth {name}" if name else "berth"
    print(
        f"{message}\n\nUsage:  {command} {usage}\n\nRun '{command} --help' for more information",
        file=sys.stderr,
    )
    return status


def _unknown(name: str, after: list[str]) -> int:
    if "--help" in after and not name:
        return _help("")
    group = name.split(" ")[0]
    known = f"berth {group}" if " " in name and group in commands.GROUPS else "berth"
    print(
        f"berth: unknown command: berth {name}\n\nRun '{known} --help' for more information",
        file=sys.stderr,
    )
    return 1


def _help(name: str) -> int:
    from berth.cli import helptext

    return helptext.show(name)


def _version() -> int:
    from berth import __version__

    print(f"berth version {__version__}")
    return 0
