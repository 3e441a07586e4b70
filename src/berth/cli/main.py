"""The `berth` command: find the command, read its flags, run it, turn errors into text and exit codes."""

from __future__ import annotations

import os
import sys

from berth.cli import commands, options
from berth.cli.call import Call, report
from berth.client import address
from berth.errors import BerthError, Failed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from berth.cli.commands import Verb

USAGE_EXIT = 125
RUNNING_VERBS = ("run",)  # their own failures are told from the payload's by 125
INTERRUPTED = 130
BROKEN_PIPE = 141  # what the shell says of a process that SIGPIPE ended

GLOBAL: tuple[options.Flag, ...] = (
    (
        *("host", "H", "list"),
        "Engine to connect to: unix://PATH, tcp://HOST:PORT or ssh://[USER@]HOST",
    ),
    ("tls", "", "bool", "Speak TLS with the engine"),
    ("tlscacert", "", "string", "Certificates of those who sign engines' certificates"),
    ("tlscert", "", "string", "Certificate to show to the engine"),
    ("tlskey", "", "string", "Its private key"),
    ("tlsverify", "", "bool", "Speak TLS, and with the right engine only"),
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


def leave(argv: Sequence[str]) -> None:
    """Run the command line and end the process; skips the interpreter's tear-down, which takes 2 ms."""
    status = main(argv)
    try:
        sys.stderr.flush()
    finally:
        os._exit(status)


def _main(arguments: list[str]) -> int:
    try:
        given, rest = options.parse(GLOBAL, arguments, mixed=False)
    except options.HelpWanted:
        return _help("")
    except options.UsageError as error:
        return _complain(f"{error}", "", USAGE_EXIT, "Run")
    if given.on("version"):
        return _version()
    if not rest or rest[0] == "help":
        return _help(" ".join(rest[1:]))
    name, after = commands.find(rest)
    if name not in commands.COMMANDS:
        return _group(name, after) if name in commands.GROUPS else _unknown(name, after)
    if name == "serve":  # the same names, but there they are the engine's
        return _try(name, arguments[: len(arguments) - len(rest)] + after, None)
    return _try(name, after, given)


def _try(name: str, arguments: list[str], given: options.Options | None) -> int:
    """Run a command; say what went wrong."""
    is_request = name in RUNNING_VERBS
    try:
        return _dispatch(name, arguments, given)
    except BerthError as error:
        report(error)
        is_request = is_request or isinstance(error, options.FlagError)
    except BrokenPipeError:
        raise
    except OSError as error:
        report(Failed(str(error)))
    if not is_request:
        return 1
    print(f"\n{more_help(name)}", file=sys.stderr)
    return USAGE_EXIT


def _dispatch(name: str, arguments: list[str], globally: options.Options | None) -> int:
    _, _, _, least, most = commands.COMMANDS[name]
    flags, act = load(name)
    mixed = name not in commands.FIRST_POSITIONAL_ENDS
    try:
        given, positional = options.parse(flags, arguments, mixed=mixed)
        if not least <= len(positional) <= most:
            verb = "See" if least < most == commands.MANY else "Run"
            return _complain(_count(name, least, most), name, 1, verb)
        chosen = engine_address(globally) if globally is not None else None
        return act(Call(name, given, positional, chosen))
    except options.HelpWanted:
        return _help(name)
    except options.UsageError as error:
        return _complain(f"{error}", name, USAGE_EXIT, "Run")


def engine_address(given: options.Options) -> address.Address | None:
    """Return which engine the global flags and the environment mean; None: the default one."""
    chosen = address.chosen((given.all("host") or [""])[-1])
    if chosen is None or not chosen.host or chosen.ssh:
        return chosen
    verify = given.on("tlsverify", default=bool(os.environ.get("BERTH_TLS_VERIFY")))
    if verify or given.on("tls"):
        from berth.client.tls import TlsFiles

        folder = os.environ.get("BERTH_CERT_PATH") or os.path.expanduser("~/.berth")
        chosen.tls = TlsFiles(
            ca=given.text("tlscacert", f"{folder}/ca.pem"),
            cert=given.text("tlscert", f"{folder}/cert.pem"),
            key=given.text("tlskey", f"{folder}/key.pem"),
            verify=verify,
        )
    return chosen


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
    if 0 < least < most < commands.MANY:
        how, count = f"requires at least {least} and at most", most
    return f"berth: 'berth {name}' {how} {count} argument{'s' if count != 1 else ''}"


def _complain(message: str, name: str, status: int, verb: str) -> int:
    usage = commands.COMMANDS[name][1] if name else "[OPTIONS] COMMAND"
    command = f"berth {name}" if name else "berth"
    print(f"{message}\n\nUsage:  {command} {usage}\n\n{more_help(name, verb)}", file=sys.stderr)
    return status


def more_help(name: str, verb: str = "Run") -> str:
    """Return where more is said."""
    return f"{verb} '{f'berth {name}'.strip()} --help' for more information"


def _unknown(name: str, after: list[str]) -> int:
    if "--help" in after and not name:
        return _help("")
    group = name.split(" ")[0]
    known = group if " " in name and group in commands.GROUPS else ""
    usage = f"Usage:  berth {known}\n\n" if known else ""
    print(f"berth: unknown command: berth {name}\n\n{usage}{more_help(known)}", file=sys.stderr)
    return 1


def _group(name: str, after: list[str]) -> int:
    """Help with a group of commands: on stderr when it was not asked for."""
    from berth.cli import helptext

    print(helptext.group_help(name), file=sys.stdout if after else sys.stderr)
    return 0


def _help(name: str) -> int:
    from berth.cli import helptext

    return helptext.show(name)


def _version() -> int:
    from berth import __version__

    print(f"berth version {__version__}")
    return 0
