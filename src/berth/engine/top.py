"""`docker top`: the columns of ps, read from /proc of the host."""

from __future__ import annotations

import os
import pwd
import time
from pathlib import Path
from typing import TYPE_CHECKING

from berth.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

TICKS = os.sysconf("SC_CLK_TCK")
PAGE_KB = os.sysconf("SC_PAGE_SIZE") // 1024
FULL = ("UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD")
LONG = ("USER", "PID", "%CPU", "%MEM", "VSZ", "RSS", "TTY", "STAT", "START", "TIME", "COMMAND")
SHORT = ("PID", "TTY", "TIME", "CMD")


class ProcessStatus:
    """One process, as proc(5) describes it."""

    def __init__(self, pid: int) -> None:
        folder = Path(f"/proc/{pid}")
        self.pid = pid
        text = (folder / "stat").read_text(errors="replace")
        self.name = text[text.index("(") + 1 : text.rindex(")")]
        fields = text[text.rindex(")") + 2 :].split()
        self.stat, self.ppid = fields[0], int(fields[1])
        self.pgid, self.sid, self.tty = int(fields[2]), int(fields[3]), int(fields[4])
        self.nice = int(fields[16])
        self.cpu_s = (int(fields[11]) + int(fields[12])) // TICKS
        self.started_s = _boot_s() + int(fields[19]) // TICKS
        self.virtual_kb, self.resident_kb = int(fields[20]) // 1024, int(fields[21]) * PAGE_KB
        self.uid = folder.stat().st_uid
        words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
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


def _elapsed(seconds: int) -> str:
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def _memory_share(process: ProcessStatus) -> str:
    total_kb = os.sysconf("SC_PHYS_PAGES") * PAGE_KB
    return f"{100 * process.resident_kb / total_kb:.1f}"


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
    "STAT": lambda p: p.stat,
    "S": lambda p: p.stat,
    "STIME": lambda p: _clock(p.started_s),
    "START": lambda p: _clock(p.started_s),
    "TIME": lambda p: _elapsed(p.cpu_s),
    "ELAPSED": lambda p: _elapsed(int(time.time() - p.started_s)),
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


def columns(ps_args: str) -> tuple[str, ...]:
    """Return the titles that arguments of ps ask for; "-ef" is the default."""
    words = ps_args.split()
    for index, word in enumerate(words):
        if word.lstrip("-") in ("o", "eo"):
            return _formats(words[index + 1 : index + 2])
        if word.startswith("-o"):
            return _formats([word[2:]])
    letters = "".join(word.lstrip("-") for word in words)
    if not letters or "f" in letters:
        return FULL
    return LONG if "u" in letters else SHORT


def _formats(words: Sequence[str]) -> tuple[str, ...]:
    names = [name for word in words for name in word.split(",") if name]
    titles = tuple(FORMAT_NAMES.get(name, name.upper()) for name in names)
    for name, title in zip(names, titles, strict=True):
        if title not in COLUMNS:
            raise InvalidArgument(f'unknown user-defined format specifier "{name}"')
    if not titles:
        raise InvalidArgument("Couldn't find PID field in ps output")
    return titles


def document(pids: Sequence[int], ps_args: str) -> dict[str, object]:
    """Return the processes in the columns asked for."""
    titles = columns(ps_args)
    rows = []
    for pid in sorted(pids):
        try:
            process = ProcessStatus(pid)
        except OSError:  # it has ended
            continue
        rows.append([COLUMNS[title](process) for title in titles])
    return {"Titles": list(titles), "Processes": rows}
