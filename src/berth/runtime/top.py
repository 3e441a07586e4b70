"""`docker top`: the columns of ps, read from /proc of the host."""

from __future__ import annotations

import os
import pwd
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

from berth.errors import Failed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

TICKS = os.sysconf("SC_CLK_TCK")
PAGE_KB = os.sysconf("SC_PAGE_SIZE") // 1024
MAX_COMMAND_BYTES = 128 << 10  # of one process's arguments, as ps; the kernel takes megabytes
MAX_COMMANDS_BYTES = 4 << 20  # of all processes'; others are shown by their names
EXTRA_FULL = ("UID", "PID", "PPID", "C", "SZ", "RSS", "PSR", "STIME", "TTY", "TIME", "CMD")
JOBS = ("PID", "PGID", "SID", "TTY", "TIME", "CMD")
LISTING = (
    *(
        "F",
        "S",
        "UID",
        "PID",
        "PPID",
        "C",
        "PRI",
        "NI",
        "ADDR",
        "SZ",
        "WCHAN",
        "TTY",
        "TIME",
        "CMD",
    ),
)
SIMPLE = ("PID", "TTY", "STAT", "TIME", "COMMAND")  # BSD's, as LONG
OPTIONS = set("AacdefFghHjlLmMnNopqrstTuUvVwxyZ")
FULL = ("UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD")
LONG = ("USER", "PID", "%CPU", "%MEM", "VSZ", "RSS", "TTY", "STAT", "START", "TIME", "COMMAND")
SHORT = ("PID", "TTY", "TIME", "CMD")


class ProcessStatus:
    """One process, as proc(5) describes it; no more than ``room`` bytes of its arguments."""

    def __init__(self, pid: int, boot_s: int, room: int) -> None:
        folder = Path(f"/proc/{pid}")
        self.pid = pid
        text = (folder / "stat").read_text(errors="replace")
        self.name = text[text.index("(") + 1 : text.rindex(")")]
        fields = text[text.rindex(")") + 2 :].split()
        self.stat, self.ppid = fields[0], int(fields[1])
        self.pgid, self.sid, self.tty = int(fields[2]), int(fields[3]), int(fields[4])
        self.front, self.flags = int(fields[5]), int(fields[6])
        self.priority, self.nice, self.threads = int(fields[15]), int(fields[16]), int(fields[17])
        self.processor = fields[36]
        self.cpu_s = (int(fields[11]) + int(fields[12])) / TICKS
        self.started_s = boot_s + int(fields[19]) // TICKS
        self.virtual_kb, self.resident_kb = int(fields[20]) // 1024, int(fields[21]) * PAGE_KB
        self.uid = folder.stat().st_uid
        with (folder / "cmdline").open("rb") as file:
            words = file.read(room).replace(b"\0", b" ").decode(errors="replace")
        self.command = words.strip() or f"[{self.name}]"

    @property
    def user(self) -> str:
        """The user's name on this host, as Docker shows it."""
        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return str(self.uid)

    @property
    def terminal(self) -> str:
        """The controlling terminal's name."""
        if not self.tty:
            return "?"
        major, minor = os.major(self.tty), os.minor(self.tty)
        return f"pts/{minor}" if major == 136 else f"tty{minor}" if major == 4 else "?"

    @property
    def states(self) -> str:
        """The state with what else is the case, as BSD's ps writes it."""
        found = self.stat
        found += "<" if self.nice < 0 else "N" if self.nice > 0 else ""
        found += "s" if self.sid == self.pid else ""
        found += "l" if self.threads > 1 else ""
        return found + ("+" if self.front == self.pgid else "")

    def share(self) -> float:
        """Return the share of one processor since the start, in percent."""
        return 100 * self.cpu_s / max(1, time.time() - self.started_s)


def _boot_s() -> int:
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith("btime "):
            return int(line.split()[1])
    return 0


def _clock(seconds: float) -> str:
    """Return a start time: hours of today, else the day."""
    form = "%H:%M" if time.time() - seconds < 86_400 else "%b%d"
    return time.strftime(form, time.localtime(seconds))


def _elapsed(seconds: float) -> str:
    whole = int(seconds)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}"


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def _memory_share(process: ProcessStatus) -> str:
    total_kb = os.sysconf("SC_PHYS_PAGES") * PAGE_KB
    return f"{100 * process.resident_kb / total_kb:.1f}"


MINUTES = "TIME of BSD's"
COLUMNS: dict[str, Callable[[ProcessStatus], str]] = {
    "UID": lambda p: p.user,
    "USER": lambda p: p.user,
    "PID": lambda p: str(p.pid),
    "PPID": lambda p: str(p.ppid),
    "PGID": lambda p: str(p.pgid),
    "SID": lambda p: str(p.sid),
    "C": lambda p: str(int(p.share())),
    "%CPU": lambda p: f"{p.share():.1f}",
    "%MEM": _memory_share,
    "VSZ": lambda p: str(p.virtual_kb),
    "RSS": lambda p: str(p.resident_kb),
    "NI": lambda p: str(p.nice),
    "TTY": lambda p: p.terminal,
    "STAT": lambda p: p.states,
    "S": lambda p: p.stat,
    "F": lambda p: str(p.flags >> 6 & 7),
    "PRI": lambda p: str(p.priority + 60),
    "ADDR": lambda _: "-",
    "WCHAN": lambda _: "-",
    "SZ": lambda p: str(p.virtual_kb // PAGE_KB),
    "PSR": lambda p: p.processor,
    "NLWP": lambda p: str(p.threads),
    "STIME": lambda p: _clock(p.started_s),
    "START": lambda p: _clock(p.started_s),
    "TIME": lambda p: _elapsed(p.cpu_s),
    "ELAPSED": lambda p: _elapsed(time.time() - p.started_s),
    MINUTES: lambda p: _minutes(p.cpu_s),
    "CMD": lambda p: p.command,
    "COMMAND": lambda p: p.command,
    "COMM": lambda p: p.name,
}
# The names that -o takes, where they are not the title in lower case.
FORMAT_NAMES = {
    "args": "COMMAND",
    "command": "COMMAND",
    "cmd": "CMD",
    "comm": "COMM",
    "ucmd": "COMM",
    "bsdtime": MINUTES,
    "time": "TIME",
    "euser": "USER",
    "ruser": "USER",
    "sz": "SZ",
    "thcount": "NLWP",
    "pcpu": "%CPU",
    "pmem": "%MEM",
    "state": "S",
    "etime": "ELAPSED",
    "uname": "USER",
    "tt": "TTY",
    "tname": "TTY",
    "vsize": "VSZ",
    "rssize": "RSS",
    "nice": "NI",
    "pgrp": "PGID",
    "sess": "SID",
    "start_time": "STIME",
}


# Titles that are others than the names of the columns here.
TITLES = {"COMM": "COMMAND", MINUTES: "TIME"}


def columns(ps_args: str) -> list[tuple[str, str]]:
    """Return the columns that arguments of ps ask for with their titles; "-ef" is the default."""
    _check(ps_args)
    words = ps_args.split() or ["-ef"]
    for index, word in enumerate(words):
        letters = word.lstrip("-")
        if letters.endswith("o") and index + 1 < len(words):
            return _formats(" ".join(words[index + 1 :]))
        if letters.startswith("o") and len(letters) > 1:
            return _formats(letters[1:])
    names = _standard(words)
    return [(name, TITLES.get(name, name)) for name in names]


def _check(ps_args: str) -> None:
    """Refuse titles that would hide which column has the ids (as Docker, against injection)."""
    for key, value in re.findall(r"\s+(\S*)=\s*(PID\S*)", ps_args):
        if key != "pid":
            raise Failed(f'specifying "{key}={value}" is not allowed')


def _standard(words: Sequence[str]) -> tuple[str, ...]:
    unix = "".join(word[1:] for word in words if word.startswith("-"))
    bsd = "".join(word for word in words if not word.startswith("-"))
    if "x" in unix:  # no option of Unix's: procps takes all of them as BSD's then
        unix, bsd = "", unix + bsd
    if not set(unix + bsd) <= OPTIONS:
        raise Failed("ps: error: unsupported SysV option")
    for letter, names in (("F", EXTRA_FULL), ("f", FULL), ("j", JOBS), ("l", LISTING)):
        if letter in unix:
            return names
    if "u" in bsd:
        return tuple(MINUTES if name == "TIME" else name for name in LONG)
    if bsd:
        return tuple(MINUTES if name == "TIME" else name for name in SIMPLE)
    return SHORT


def _formats(text: str) -> list[tuple[str, str]]:
    found = []
    for word in text.replace(",", " ").split():
        name, equals, title = word.partition("=")
        column = FORMAT_NAMES.get(name, name.upper())
        if column not in COLUMNS:
            raise Failed(f'ps: error: unknown user-defined format specifier "{name}"')
        found.append((column, title if equals else TITLES.get(column, column)))
    if "PID" not in (title for _, title in found):
        raise Failed("Couldn't find PID field in ps output")
    return found


def document(pids: Sequence[int], ps_args: str) -> dict[str, object]:
    """Return the processes in the columns asked for."""
    wanted = columns(ps_args)
    rows = []
    boot_s, left = _boot_s(), MAX_COMMANDS_BYTES
    for pid in sorted(pids):
        try:
            process = ProcessStatus(pid, boot_s, min(left, MAX_COMMAND_BYTES))
        except OSError:  # it has ended
            continue
        left = max(0, left - len(process.command))
        rows.append([COLUMNS[name](process) for name, _ in wanted])
    return {"Titles": [title for _, title in wanted], "Processes": rows}
