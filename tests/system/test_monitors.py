"""Monitors that are free take the next run, and bring nothing of the last one along."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.waiting import wait_for

if TYPE_CHECKING:
    from support.engine import EngineProcess

pytestmark = pytest.mark.berth_only


def launch(engine: EngineProcess, name: str, *flags: str) -> int:
    """Start a container; return its monitor's process id."""
    done = engine.docker(
        *("run", "-d", "--name", name, "--network", "none", *flags, "busybox", "sleep", "600")
    )
    assert done.code == 0, str(done)
    return monitor_of(engine, name)


def monitor_of(engine: EngineProcess, name: str) -> int:
    folder = engine.exec_root / "containers" / engine.inspect(name)["Id"]
    monitor: int = json.loads((folder / "task.json").read_bytes())["monitor"]
    return monitor


def files_of(monitor: int) -> list[str]:
    """Return what a monitor has open; nothing when it is gone."""
    found = []
    for link in Path(f"/proc/{monitor}/fd").glob("*"):
        try:
            found.append(os.readlink(link))
        except FileNotFoundError:
            continue
    return found


def is_busy(monitor: int) -> bool:
    """Say whether a monitor holds anything of a run: an event loop, pipes. A spare is of the next one."""
    return any(
        name == "anon_inode:[eventpoll]" or name.startswith("pipe:") for name in files_of(monitor)
    )


def remove(engine: EngineProcess, *names: str) -> None:
    """Remove containers; returns when their monitors are free, or gone."""
    monitors = [monitor_of(engine, name) for name in names]
    done = engine.docker("rm", "-f", *names)
    assert done.code == 0, str(done)
    wait_for(lambda: not any(map(is_busy, monitors)), "their runs are over")


def pid_of(engine: EngineProcess, name: str) -> int:
    pid: int = engine.inspect(name)["State"]["Pid"]
    return pid


def is_there(pid: int) -> bool:
    return Path(f"/proc/{pid}/fd").exists()


def test_the_next_container_is_taken_by_a_monitor_that_is_free(fresh_engine: EngineProcess) -> None:
    first = launch(fresh_engine, "first", "-e", "SECRET=x", "-h", "one", "-w", "/tmp")
    remove(fresh_engine, "first")
    assert launch(fresh_engine, "second") == first
    pid = pid_of(fresh_engine, "second")
    environment = Path(f"/proc/{pid}/environ").read_bytes()
    assert b"SECRET" not in environment
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    said = fresh_engine.docker(
        "exec", "second", "sh", "-c", "hostname; echo $$; ls -d /proc/[0-9]*"
    )
    assert said.out.split()[0] != "one"


def test_each_container_has_a_monitor_of_its_own(fresh_engine: EngineProcess) -> None:
    monitors = {launch(fresh_engine, f"c{number}") for number in range(4)}
    assert len(monitors) == 4
    remove(fresh_engine, *(f"c{number}" for number in range(4)))


def test_runs_leave_no_descriptor_in_their_monitor(fresh_engine: EngineProcess) -> None:
    def run() -> tuple[int, int]:
        monitor = launch(fresh_engine, "same", "-i")
        fresh_engine.docker("exec", "same", "true")
        count = len(files_of(monitor))
        remove(fresh_engine, "same")
        return monitor, count

    run()
    counts = {}
    for _ in range(10):
        monitor, count = run()
        assert counts.setdefault(monitor, count) == count
    assert len(counts) <= 2


def test_after_an_exec_the_next_container_has_a_pid_namespace_of_its_own(
    fresh_engine: EngineProcess,
) -> None:
    launch(fresh_engine, "other")
    launch(fresh_engine, "joined", "--pid", "container:other")
    fresh_engine.docker("exec", "other", "true")
    remove(fresh_engine, "joined")
    own = os.readlink(f"/proc/{pid_of(fresh_engine, 'other')}/ns/pid")
    for name in ("one", "two", "three"):
        launch(fresh_engine, name)
        pid = pid_of(fresh_engine, name)
        assert os.readlink(f"/proc/{pid}/ns/pid") not in (own, os.readlink("/proc/self/ns/pid"))
        status = Path(f"/proc/{pid}/status").read_text()
        assert next(line for line in status.splitlines() if line.startswith("NSpid")).split() == [
            "NSpid:",
            str(pid),
            "1",
        ]


def test_one_that_was_killed_is_not_asked(fresh_engine: EngineProcess) -> None:
    first = launch(fresh_engine, "first")
    remove(fresh_engine, "first")
    os.kill(first, signal.SIGKILL)
    assert launch(fresh_engine, "second") != first


def test_they_leave_with_their_berthd(fresh_engine: EngineProcess) -> None:
    busy = launch(fresh_engine, "busy")
    free = launch(fresh_engine, "gone")
    remove(fresh_engine, "gone")
    assert is_there(free)
    fresh_engine.kill()
    wait_for(lambda: not is_there(free), "it left")
    assert is_there(busy)
    fresh_engine.start()
    remove(fresh_engine, "busy")
    wait_for(lambda: not is_there(busy), "so did the one that a later berthd had settled")


def test_one_that_is_stopped_keeps_no_berthd_from_leaving(fresh_engine: EngineProcess) -> None:
    free = launch(fresh_engine, "gone")
    remove(fresh_engine, "gone")
    os.kill(free, signal.SIGSTOP)
    try:
        fresh_engine.stop()
        assert not fresh_engine.is_running
    finally:
        os.kill(free, signal.SIGCONT)
    wait_for(lambda: not is_there(free), "it left")


def test_one_that_is_stopped_is_not_asked(fresh_engine: EngineProcess) -> None:
    free = launch(fresh_engine, "first")
    remove(fresh_engine, "first")
    os.kill(free, signal.SIGSTOP)
    try:
        assert launch(fresh_engine, "second") != free
    finally:
        os.kill(free, signal.SIGCONT)
    wait_for(lambda: not is_there(free), "it left")


LOOK = r"""
import sys
found = 0
with open("/proc/1/maps") as maps, open("/proc/1/mem", "rb", 0) as memory:
    for line in maps:
        area, rights = line.split()[:2]
        if "r" in rights and "[v" not in line:
            first, end = (int(number, 16) for number in area.split("-"))
            memory.seek(first)
            data = memory.read(end - first)
            found += sum(data.count(bytes.fromhex(word)) for word in sys.argv[1:])
print("seen", found)
"""


def test_a_first_process_of_ours_has_nothing_of_other_containers(
    fresh_engine: EngineProcess,
) -> None:
    """One of a container that may trace it can read its memory."""
    secret, own, output = (os.urandom(12).hex() for _ in range(3))
    words = [word.encode().hex() for word in (secret, output)]
    look = ("run", "--rm", "--network", "none", "--init", "--cap-add", "SYS_PTRACE")
    program = ("host", "python3", "-c", LOOK)
    for number in range(3):
        launch(fresh_engine, f"other{number}", "-e", f"SECRET={secret}")
    said = f"yes {output} | head -c 300000; exec sleep 600"
    done = fresh_engine.docker("run", "-d", "--name", "loud", "busybox", "sh", "-c", said)
    assert done.code == 0, str(done)
    fresh_engine.docker("exec", "-e", f"SECRET={secret}", "other0", "true")
    seen = fresh_engine.docker(*look, *program, *words)  # by a monitor from the zygote
    assert seen.out == "seen 0\n", str(seen)
    remove(fresh_engine, "loud", "other0")
    seen = fresh_engine.docker(*look, *program, *words)  # while others are free
    assert seen.out == "seen 0\n", str(seen)
    seen = fresh_engine.docker(*look, "-e", f"SECRET={own}", *program, own.encode().hex())
    assert seen.out not in ("seen 0\n", ""), str(seen)
