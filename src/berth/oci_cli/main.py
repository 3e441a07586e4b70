"""The `berth-oci` command: global flags, the command and its flags, errors to the log and to stderr."""

from __future__ import annotations

import os
import sys

from berth import pack
from berth.bundle import deputies, warnings
from berth.cli import options
from berth.errors import BerthError
from berth.oci_cli import commands
from berth.oci_cli.invocation import Declined, Invocation
from berth.oci_cli.log import Log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from berth.oci_cli.callers import Caller

GLOBAL: tuple[options.Flag, ...] = (
    ("debug", "", "bool", "enable debug logging"),
    ("log", "", "string", "set the log file to write logs to (default is stderr)"),
    ("log-format", "", "string", "set the log format ('text' (default), or 'json')"),
    ("root", "", "string", "root directory for storage of container state"),
    ("criu", "", "string", "(obsolete; it is looked for on PATH)"),
    ("systemd-cgroup", "", "bool", "take cgroupsPath as systemd's SLICE:PREFIX:NAME"),
    ("rootless", "", "string", "ignore cgroup permission errors ('true', 'false', or 'auto')"),
    ("help", "h", "bool", "show help"),
    ("version", "v", "bool", "print the version"),
)
EXIT_FAILURE = 1
EXIT_NO_COMMAND = 3


def leave(argv: Sequence[str]) -> None:
    """Run the command line and end the process."""
    status = EXIT_FAILURE
    try:
        status = main(list(argv[1:]))
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        pass
    finally:
        try:
            deputies.dismiss()
            pack.complete()
        finally:
            os._exit(status)


def main(arguments: list[str], caller: Caller | None = None) -> int:
    """Run the command line, in the zygote's worker for ``caller``; return the exit code."""
    log = Log()
    try:
        given, rest = options.parse(GLOBAL, doubled(GLOBAL, arguments), mixed=False)
        log.configure(given.text("log"), given.text("log-format"), debug=given.on("debug"))
    except (BerthError, OSError) as error:
        log.failure(str(error))
        return EXIT_FAILURE
    warnings.listen(log.warning)
    if given.on("version"):
        return commands.show_version()
    wants_help = given.on("help") or not rest or rest[0] in ("help", "h")
    words = rest[1:] if wants_help else rest
    name = commands.ALIASES.get(words[0], words[0]) if words else ""
    if name and name not in commands.COMMANDS:
        log.failure(f"No help topic for '{words[0]}'")
        return EXIT_NO_COMMAND
    if wants_help:
        return commands.show_help(GLOBAL, name)
    return _run(name, rest[1:], given, log, caller)


def doubled(flags: Sequence[options.Flag], arguments: Sequence[str]) -> list[str]:
    """Write ``-name`` as ``--name``: both are the same to callers of runc."""
    names = {flag[0] for flag in flags}
    found = list(arguments)
    for place, argument in enumerate(found):
        if argument == "--":
            break
        if (
            len(argument) > 2
            and argument[0] == "-" != argument[1]
            and argument[1:].split("=")[0] in names
        ):
            found[place] = f"-{argument}"
    return found


def _run(
    name: str, arguments: list[str], given: options.Options, log: Log, caller: Caller | None
) -> int:
    if caller is not None and name != "run":
        raise Declined
    command = commands.COMMANDS[name]
    try:
        flags = (*command.flags, ("help", "h", "bool", "show help"))
        wanted = doubled(flags, arguments) if command.mixed else arguments
        own, positional = options.parse(flags, wanted, mixed=command.mixed)
    except BerthError as error:
        log.failure(f"Incorrect Usage: {error}")
        return EXIT_FAILURE
    if own.on("help"):
        return commands.show_help(GLOBAL, name)
    if not command.least <= len(positional) <= command.most:
        log.failure(f'{commands.program()}: "{name}" {command.count()}')
        return EXIT_FAILURE
    log.debug(f"berth-oci {name} {' '.join(positional)}")
    try:
        if given.on("systemd-cgroup") and name in commands.MAKERS:
            from berth.bundle import systemd

            systemd.check_running()
        return command.load(name)(Invocation(given, own, positional, log, caller))
    except (BerthError, OSError) as error:
        failure = describe(error)
    except Exception as error:  # noqa: BLE001 - a bug of ours; callers read the log, not a traceback
        failure = f"internal error: {error!r}"
    log.failure(f"{command.failure.format(commands.program())}{failure}")
    return command.exit_on_failure


def describe(error: BerthError | OSError) -> str:
    """Return one line for the log."""
    if isinstance(error, BerthError):
        return f"{error.message} ({error.hint})" if error.hint else error.message
    call, colon, reason = (error.strerror or str(error)).rpartition(": ")
    text = f"{call}{colon}{reason.lower()}"
    return f"{os.fsdecode(error.filename)}: {text}" if error.filename else text
