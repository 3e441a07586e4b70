"""What the machine or somebody does in the wrong moment: one clear line, and nothing is left of it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support import kernel
from support.programs import find
from support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.engine import EngineProcess

pytestmark = pytest.mark.berth_only
SLEEP = ("busybox", "sleep", "600")


def zygote_of(engine: EngineProcess) -> int:
    (zygote,) = wait_for(lambda: kernel.zygotes(engine.pid), "there is a zygote")
    return zygote


def monitors(engine: EngineProcess) -> list[int]:
    """Return the monitors of containers, those that are prepared included."""
    found = []
    for pid in kernel.children().get(zygote_of(engine), ()):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/{pid}/cwd").startswith(f"{engine.exec_root}/containers/"):
                found.append(pid)
    return found


def client(engine: EngineProcess, *words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [find("docker"), "-H", engine.host, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def launch(engine: EngineProcess, name: str, *flags: str) -> int:
    """Start a container; return its monitor."""
    done = engine.docker("run", "-d", "--name", name, "--network", "none", *flags, *SLEEP)
    assert done.code == 0, str(done)
    folder = engine.exec_root / "containers" / done.out.strip()
    return json.loads((folder / "task.json").read_bytes())["monitor"]


def status(engine: EngineProcess, name: str) -> object:
    return engine.inspect(name)["State"]["Status"]


# No process is left for it


@contextlib.contextmanager
def no_more_forks(pid: int, allowed: int) -> Iterator[None]:
    """Let a process, with what it forks, have only so many processes beside itself."""
    root = next((root for root in kernel.hierarchies() if root.name == "pids"), None)
    if root is None:
        pytest.skip("needs cgroup v1 for pids")
    group, home = root / f"berth-test-{pid}", root / own_group(pid)
    group.mkdir()
    try:
        (group / "pids.max").write_text(str(1 + allowed))
        (group / "cgroup.procs").write_text(str(pid))
        yield
    finally:
        for left in (group / "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                (home / "cgroup.procs").write_text(left)
        wait_for(lambda: removed(group), "the group is empty")


def own_group(pid: int) -> str:
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "pids":
            return path.lstrip("/")
    raise AssertionError("it is in no group of pids")


def removed(group: Path) -> bool:
    with contextlib.suppress(OSError):
        group.rmdir()
    return not group.exists()


@pytest.mark.parametrize("allowed", [0, 1], ids=["no-monitor", "no-process"])
def test_a_machine_without_a_process_left_refuses_in_one_line(
    fresh_engine: EngineProcess, allowed: int
) -> None:
    launch(fresh_engine, "up")
    with no_more_forks(zygote_of(fresh_engine), allowed):
        for words in (
            ("run", "--name", "no-room", *SLEEP),
            ("run", "--rm", "-p", "127.0.0.1::80", *SLEEP),
            ("start", "no-room"),
            ("exec", "up", "true"),
        ):
            done = fresh_engine.docker(*words)
            assert done.code in (1, 125, 126), str(done)
            said = done.err + done.out  # of an exec, Docker says it there
            assert "resource temporarily unavailable" in said, str(done)
            assert "Traceback" not in said
            assert "Errno" not in said
    assert fresh_engine.docker("ps", "-a", "--format", "{{.Names}} {{.State}}").lines == [
        "no-room created",
        "up running",
    ]
    assert fresh_engine.docker("exec", "up", "true").code == 0
    assert fresh_engine.docker("start", "no-room").code == 0


def test_no_worker_left_is_an_error_of_what_needs_one(fresh_engine: EngineProcess) -> None:
    launch(fresh_engine, "up")
    with no_more_forks(zygote_of(fresh_engine), 0):
        for words in (
            ("cp", "up:/etc/passwd", "-"),
            ("export", "up"),
            ("diff", "up"),
            ("commit", "up"),
        ):
            done = fresh_engine.docker(*words)
            assert done.code == 1, str(done)
            assert "Traceback" not in done.err
    assert fresh_engine.docker("diff", "up").code == 0


# What is prepared and does not come to its start


def prepared(engine: EngineProcess, name: str, *flags: str) -> None:
    """Create a container and wait until it is prepared."""
    assert engine.docker("create", "--name", name, *flags, *SLEEP).code == 0
    wait_for(lambda: monitors(engine), "it is prepared")


def test_what_is_prepared_and_not_started_is_undone(fresh_engine: EngineProcess) -> None:
    prepared(fresh_engine, "idle")
    wait_for(lambda: not monitors(fresh_engine), "it is undone")
    wait_for(lambda: kernel.cgroups(fresh_engine.instance.cgroup) == [], "its groups are gone")
    assert status(fresh_engine, "idle") == "created"
    assert fresh_engine.docker("start", "idle").code == 0


def test_what_is_prepared_goes_with_its_container(fresh_engine: EngineProcess) -> None:
    prepared(fresh_engine, "removed")
    assert fresh_engine.docker("rm", "removed").code == 0
    assert monitors(fresh_engine) == []
    fresh_engine.wait_settled()


def test_berthd_killed_between_create_and_start_leaves_the_container(
    fresh_engine: EngineProcess,
) -> None:
    prepared(fresh_engine, "between", "-p", "127.0.0.1::80")
    left = monitors(fresh_engine)
    fresh_engine.kill()
    for pid in left:
        wait_for(lambda pid=pid: not Path(f"/proc/{pid}").exists(), "the preparation is undone")
    assert kernel.cgroups(fresh_engine.instance.cgroup) == []
    fresh_engine.start()
    assert status(fresh_engine, "between") == "created"
    assert fresh_engine.docker("start", "between").code == 0


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (("--sysctl", "net.ipv4.ip_forward=banana"), "/proc/sys/net/ipv4/ip_forward"),
        (("-w", "/etc/passwd"), "/etc/passwd"),
        (("-v", "/proc/version:/etc"), "/etc"),
    ],
)
def test_a_preparation_that_fails_is_told_by_the_start(
    fresh_engine: EngineProcess, flags: tuple[str, ...], complaint: str
) -> None:
    assert fresh_engine.docker("create", "--name", "bad", *flags, *SLEEP).code == 0
    for _ in range(2):  # prepared before, and not
        failed = fresh_engine.docker("start", "bad")
        assert failed.code == 1
        assert complaint in failed.err, str(failed)
        document = fresh_engine.inspect("bad")["State"]
        assert (document["Status"], document["Pid"]) == ("created", 0)
        assert document["ExitCode"] in (126, 127, 128)
        assert complaint in document["Error"]
    assert fresh_engine.docker("rm", "bad").code == 0
    fresh_engine.wait_settled()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_a_monitor_killed_before_the_start_does_not_hinder_the_next(
    fresh_engine: EngineProcess, number: signal.Signals
) -> None:
    prepared(fresh_engine, "bereft")
    for pid in monitors(fresh_engine):
        os.kill(pid, number)
    fresh_engine.docker("start", "bereft")
    if status(fresh_engine, "bereft") != "running":
        assert fresh_engine.docker("start", "bereft").code == 0
    assert fresh_engine.docker("rm", "-f", "bereft").code == 0
    fresh_engine.wait_settled()


def test_a_client_that_vanishes_has_started_what_it_asked_for(fresh_engine: EngineProcess) -> None:
    for number in range(5):
        name = f"left-{number}"
        assert fresh_engine.docker("create", "--name", name, "--network", "none", *SLEEP).code == 0
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(fresh_engine.socket))
            sock.sendall(f"POST /containers/{name}/start HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        wait_for(lambda name=name: status(fresh_engine, name) == "running", "it was started")


# Many at once


def test_a_zygote_killed_during_twenty_runs_leaves_what_is_listed(
    fresh_engine: EngineProcess,
) -> None:
    for moment_s in (0.05, 0.2):
        clients = [client(fresh_engine, "run", "-d", "--name", f"n{i}", *SLEEP) for i in range(20)]
        with contextlib.suppress(subprocess.TimeoutExpired):
            clients[0].wait(moment_s)
        os.kill(zygote_of(fresh_engine), signal.SIGKILL)
        said = {one.args[6]: (one.wait(60), one.communicate()[1]) for one in clients}
        assert not [text for _, text in said.values() if b"Traceback" in text]
        listed = fresh_engine.docker("ps", "-a", "--format", "{{.Names}} {{.State}}").lines
        states = dict(line.split() for line in listed)
        for name, (code, text) in said.items():
            assert (states.get(name) == "running") == (code == 0), (
                name,
                code,
                text,
                states.get(name),
            )
        for name, shown in states.items():
            pid = fresh_engine.inspect(name)["State"]["Pid"]
            assert Path(f"/proc/{pid or 'none'}").exists() == (shown == "running")
        fresh_engine.remove_containers()
        fresh_engine.wait_settled()


# A monitor that does not answer


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_monitor_that_is_stopped_holds_up_nobody_else(fresh_engine: EngineProcess) -> None:
    monitor = launch(fresh_engine, "held")
    with stopped(monitor):
        attached = client(fresh_engine, "attach", "held")
        killed = client(fresh_engine, "kill", "held")
        stopping = client(fresh_engine, "stop", "-t", "0", "held")
        assert fresh_engine.docker("run", "--rm", "--network", "none", "busybox", "true").code == 0
        assert "held" in fresh_engine.docker("ps").out
        assert fresh_engine.docker("top", "held").code in (0, 1)
        assert fresh_engine.docker("logs", "held").code == 0
    assert (killed.wait(30), stopping.wait(30)) == (0, 0)
    assert attached.wait(30) in (0, 137)
    assert status(fresh_engine, "held") == "exited"
    for one in (attached, killed, stopping):
        one.communicate()


def test_an_engine_starts_although_a_monitor_is_stopped(fresh_engine: EngineProcess) -> None:
    monitor = launch(fresh_engine, "held")
    launch(fresh_engine, "other")
    with stopped(monitor):
        fresh_engine.restart()
        assert fresh_engine.docker("exec", "other", "true").code == 0
        assert status(fresh_engine, "held") == "running"
    assert fresh_engine.docker("exec", "held", "true").code == 0
    assert fresh_engine.docker("stop", "-t", "0", "held").code == 0
    assert status(fresh_engine, "held") == "exited"


def test_an_exec_whose_monitor_is_killed_ends_for_its_client(fresh_engine: EngineProcess) -> None:
    launch(fresh_engine, "up")
    running = client(fresh_engine, "exec", "up", "sleep", "700")
    wait_for(lambda: fresh_engine.inspect("up")["ExecIDs"], "it runs")
    (id_,) = fresh_engine.inspect("up")["ExecIDs"]
    task = json.loads((fresh_engine.exec_root / "execs" / id_ / "task.json").read_bytes())
    os.kill(task["monitor"], signal.SIGKILL)
    running.communicate(timeout=20)
    assert running.returncode == 137
    wait_for(lambda: "sleep 700" not in fresh_engine.docker("top", "up").out, "its process ended")
    wait_for(lambda: fresh_engine.inspect("up")["ExecIDs"] is None, "its end is known")
    assert fresh_engine.request("GET", f"/exec/{id_}/json")[1]["ExitCode"] == 137
    assert fresh_engine.docker("exec", "up", "true").code == 0


# What a container does to the machine


def test_a_fork_bomb_stays_in_its_container(fresh_engine: EngineProcess) -> None:
    """It fills its own limit; others are served meanwhile, and it can be looked at, entered and stopped."""
    engine = fresh_engine
    bomb = "b() { while :; do b & done; }; b 2> /dev/null & exec sleep 600"
    run = ("run", "--network", "none")
    limits = ("--pids-limit", "64", "--cpus", "0.3")
    done = engine.docker(*run, "-d", "--name", "bomb", *limits, "busybox", "sh", "-c", bomb)
    assert done.code == 0, str(done)

    def processes() -> int:
        stats = engine.request("GET", "/containers/bomb/stats?stream=false&one-shot=true")[1]
        return stats["pids_stats"]["current"]

    wait_for(lambda: processes() >= 60, "the bomb has gone off")
    assert engine.docker(*run, "--rm", "busybox", "echo", "fine").out == "fine\n"
    assert engine.docker("top", "bomb", "-o", "pid,comm").code == 0
    assert engine.docker("exec", "bomb", "true").code in (0, 1, 126), "an exec of a full group ends"
    assert status(engine, "bomb") == "running"
    assert engine.docker("kill", "bomb").code == 0
    assert engine.docker("wait", "bomb").out == "137\n"
    assert engine.docker("rm", "bomb").code == 0
