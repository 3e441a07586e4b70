"""Help from the tables that parse."""

from __future__ import annotations

import sys

from berth.cli import commands
from berth.cli.main import GLOBAL, load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from berth.cli.options import Flag

WIDTH = 100
NAME_WIDTH = 10  # of the column of commands, at least
KINDS = {"bool": "", "true": ""}


def show(name: str) -> int:
    """Print the help of a command, a group of commands, or berth."""
    if name in commands.COMMANDS:
        print(command_help(name))
    elif name in commands.GROUPS:
        print(group_help(name))
    elif name:
        print(f"berth: unknown command: berth {name}", file=sys.stderr)
        return 1
    else:
        print(_top_help())
    return 0


def command_help(name: str) -> str:
    """Return what `berth NAME --help` prints."""
    _, usage, summary, _, _ = commands.COMMANDS[name]
    flags, _ = load(name)
    text = f"Usage:  berth {name} {usage}\n\n{summary}"
    return f"{text}\n\nOptions:\n{flag_help(flags)}" if flags else text


def flag_help(flags: Sequence[Flag]) -> str:
    """Return the lines of a table of flags, in columns; flags without a text are aliases and stay hidden."""
    rows = []
    for name, short, kind, text in flags:
        if text:
            head = f"  -{short}, " if short else "      "
            shown = f"{head}--{name} {KINDS.get(kind, kind)}".rstrip()
            rows.append((shown, f"{text} (default true)" if kind == "true" else text))
    column = max(len(shown) for shown, _ in rows) + 3
    return "\n".join(
        line for shown, text in rows for line in _wrapped(shown.ljust(column), text, column)
    )


def _wrapped(start: str, text: str, column: int) -> list[str]:
    lines, line = [], start
    for word in text.split(" "):
        if len(line) + len(word) > WIDTH and len(line.rstrip()) > column:
            lines.append(line.rstrip())
            line = " " * column
        line += word + " "
    return [*lines, line.rstrip()]


def _list(names: list[tuple[str, str]]) -> str:
    column = max(NAME_WIDTH, *(len(name) for name, _ in names)) + 2
    return "\n".join(f"  {name.ljust(column)}{text}" for name, text in names)


def group_help(group: str) -> str:
    """Return what `berth GROUP --help` prints."""
    rows = [
        (name.split(" ")[1], row[2])
        for name, row in commands.COMMANDS.items()
        if name.startswith(f"{group} ")
    ]
    members = commands.MEMBERS.get(group, {})
    rows = sorted([*rows, *((verb, commands.COMMANDS[name][2]) for verb, name in members.items())])
    return (
        f"Usage:  berth {group} COMMAND\n\n{commands.GROUPS[group]}\n\nCommands:\n{_list(rows)}\n\n"
        f"Run 'berth {group} COMMAND --help' for more information on a command."
    )


def _top_help() -> str:
    plain = [(name, row[2]) for name, row in commands.COMMANDS.items() if " " not in name]
    return (
        "Usage:  berth [OPTIONS] COMMAND\n\nA container engine in pure Python\n\n"
        f"Commands:\n{_list(plain)}\n\nManagement commands:\n{_list(list(commands.GROUPS.items()))}\n\n"
        f"Options:\n{flag_help(GLOBAL)}\n\n"
        "Run 'berth COMMAND --help' for more information on a command."
    )
