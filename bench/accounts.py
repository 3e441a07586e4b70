"""CPU time by control group: an engine, its clients and its containers in groups below one of ours."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


def _hierarchy() -> tuple[Path, bool]:
    """Return the cgroup tree that counts CPU time, and whether it is version 2."""
    unified = None
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        if kind == "cgroup" and "cpuacct" in options.rpartition(" ")[2].split(","):
            return Path(left.split()[4]), False
        if kind == "cgroup2":
            unified = Path(left.split()[4])
    if unified is None:
        raise SystemExit("bench: no cgroup hierarchy counts CPU time here")
    return unified, True


ROOT, IS_V2 = _hierarchy()


def _home() -> Path:
    """Return the group that the benchmark itself was started in."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        number, controllers, path = line.split(":", 2)
        if "cpuacct" in controllers.split(",") or (IS_V2 and number == "0"):
            return ROOT / path.strip("/")
    return ROOT


# An engine rests when it used less than this share of a processor for this long.
REST_S, REST_SHARE, SETTLED_AT_LAST_S = 0.05, 0.01, 2.0


class Account:
    """The CPU time of everything that ever ran in some groups."""

    def __init__(self, name: str, *more: str) -> None:
        """``name``: our group, with children for daemons and for clients; ``more``: others'."""
        self.own = ROOT / name
        self.programs = self.own / "programs"
        self.clients = self.own / "clients"
        self._groups = (self.own, *(ROOT / other for other in more))
        for group in (self.programs, self.clients):
            group.mkdir(parents=True, exist_ok=True)

    def used_s(self) -> float:
        """Return the seconds used so far by the groups and all below them."""
        return sum(map(self._read, self._groups))

    def clients_s(self) -> float:
        """Return how many of them the clients used."""
        return self._read(self.clients)

    def settled_s(self) -> float:
        """Return the seconds used once the groups have come to rest: work put off is work too."""
        used, end = self.used_s(), time.monotonic() + SETTLED_AT_LAST_S
        while time.monotonic() < end:
            time.sleep(REST_S)
            used, before = self.used_s(), used
            if used - before < REST_S * REST_SHARE:
                break
        return used

    @staticmethod
    def _read(group: Path) -> float:
        with contextlib.suppress(FileNotFoundError):
            if not IS_V2:
                return int((group / "cpuacct.usage").read_text()) / 1e9
            return int((group / "cpu.stat").read_text().split()[1]) / 1e6
        return 0.0

    def processes(self) -> set[int]:
        """Return the processes in our group and below it."""
        found: set[int] = set()
        for folder, _, _ in os.walk(self.own):
            with contextlib.suppress(FileNotFoundError):
                found.update(map(int, (Path(folder) / "cgroup.procs").read_text().split()))
        return found

    def enter(self) -> None:
        """Put the calling process (a fork before its exec) into our group."""
        (self.programs / "cgroup.procs").write_text("0")

    def start(self, command: Sequence[str], **options: object) -> subprocess.Popen[bytes]:
        """Start a program that is counted."""
        return subprocess.Popen(command, preexec_fn=self.enter, **options)  # type: ignore[call-overload]


@dataclass(frozen=True)
class Cost:
    """What one run took."""

    wall_s: float
    cpu_s: float
    client_s: float = 0.0  # of the CPU time, what the clients took


class Spawner:
    """Starts short programs inside one account, at the price of a posix_spawn."""

    def __init__(self, account: Account, env: Mapping[str, str]) -> None:
        self._account = account
        self._env = dict(env)
        self._complaints = os.memfd_create("stderr")
        self._null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        self._procs = os.open(account.clients / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
        self._home = os.open(_home() / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)

    def __enter__(self) -> Spawner:
        """Join the group, so that what we spawn is born there: no attach inside the measurement."""
        os.write(self._procs, b"0")
        return self

    def __exit__(self, *_: object) -> None:
        os.write(self._home, b"0")

    def spawn(self, command: Sequence[str]) -> int:
        """Start a program with no input and its output thrown away."""
        actions = [(os.POSIX_SPAWN_DUP2, self._null, fd) for fd in (0, 1)]
        actions.append((os.POSIX_SPAWN_DUP2, self._complaints, 2))
        return os.posix_spawn(command[0], command, self._env, file_actions=actions)

    def cost(self, command: Sequence[str]) -> Cost:
        """Run a program to its end; RuntimeError for an exit code other than 0."""
        return self.cost_in_turn([command])

    def cost_of(self, act: Callable[[], int]) -> Cost:
        """Do something in this process, which belongs to the account meanwhile; it returns an exit code."""
        return self._cost(lambda: [act() << 8], [["this process"]])

    def cost_in_turn(self, commands: Sequence[Sequence[str]]) -> Cost:
        """Run programs one after the other."""
        return self._cost(lambda: [os.waitpid(self.spawn(c), 0)[1] for c in commands], commands)

    def cost_of_many(self, commands: Sequence[Sequence[str]]) -> Cost:
        """Start all at once; the cost until the last has ended."""

        def together() -> list[int]:
            pids = [self.spawn(command) for command in commands]
            return [os.waitpid(pid, 0)[1] for pid in pids]

        return self._cost(together, commands)

    def _cost(self, run: Callable[[], list[int]], commands: Sequence[Sequence[str]]) -> Cost:
        os.ftruncate(self._complaints, 0)
        os.lseek(self._complaints, 0, os.SEEK_SET)
        with self:
            client, cpu = self._account.clients_s(), self._account.used_s()
            begin = time.perf_counter()
            statuses = run()
            wall = time.perf_counter() - begin
        used = self._account.settled_s() - cpu
        client = self._account.clients_s() - client
        if any(statuses):
            codes = [os.waitstatus_to_exitcode(status) for status in statuses if status]
            raise RuntimeError(
                f"{' '.join(commands[0])}: {len(codes)} failed, first with {codes[0]}: {self._said()}"
            )
        return Cost(wall, used, client)

    def _said(self) -> str:
        text = os.pread(self._complaints, 1 << 16, 0).decode(errors="replace")
        return " ".join(text[-400:].split())
