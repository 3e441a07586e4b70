"""Crashes of berthd, the zygote, monitors and the machine: containers go on, or their end is known."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pexpect
import pytest

from support import kernel
from support.programs import find
from support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.engine import EngineProcess

pytestmark = pytest.mark.berth_only
LOOP = "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.02; done"


def launch(engine: EngineProcess, name: str, *command: str, flags: tuple[str, ...] = ()) -> str:
    network = () if "--network" in flags else ("--network", "none")
    args = ("run", "-d", "--name", name, *network, *flags, "busybox")
    done = engine.docker(*args, *(command or ("sleep", "600")))
    assert done.code == 0, str(done)
    return done.out.strip()


def state(engine: EngineProcess, name: str) -> dict[str, object]:
    return engine.inspect(name)["State"]


def status(engine: EngineProcess, name: str) -> object:
    return state(engine, name)["Status"]


def monitor_of(engine: EngineProcess, name: str) -> int:
    folder = engine.exec_root / "containers" / engine.inspect(name)["Id"]
    return json.loads((folder / "task.json").read_bytes())["monitor"]


def wait_started(engine: EngineProcess, name: str) -> None:
    """Output may come before the start is answered; a client needs that answer from the same berthd."""
    wait_for(lambda: status(engine, name) == "running", "it runs")
    engine.docker("version")


def wait_ended(pid: int) -> None:
    wait_for(lambda: not Path(f"/proc/{pid}/stat").exists(), f"process {pid} ended")


def release(engine: EngineProcess, name: str) -> None:
    """Let a container go on that waits for the file /go, whoever is there to ask."""
    Path(f"/proc/{state(engine, name)['Pid']}/root/go").touch()


WAIT_GO = "while ! test -e /go; do sleep 0.02; done; "


@pytest.fixture(params=["docker", "berth"])
def command_line(request: pytest.FixtureRequest) -> Callable[[EngineProcess], list[str]]:
    def words(engine: EngineProcess) -> list[str]:
        if request.param == "docker":
            return [find("docker"), "-H", engine.host]
        return [sys.executable, "-m", "berth", "-H", engine.host]

    return words


# berthd is killed


def test_a_terminal_session_goes_on(
    fresh_engine: EngineProcess, command_line: Callable[[EngineProcess], list[str]]
) -> None:
    program, *before = command_line(fresh_engine)
    args = [*before, "run", "-it", "--name", "session", "--network", "none", "busybox", "sh"]
    child = pexpect.spawn(program, args, timeout=20, env={**os.environ, "TERM": "xterm"})
    try:
        child.expect(b"# ")
        wait_started(fresh_engine, "session")
        fresh_engine.kill()
        child.sendline(b"echo $((6 * 7)) alone")
        child.expect(b"42 alone")
        fresh_engine.start()
        child.sendline(b"echo $((6 * 7)) again; exit 19")
        child.expect(b"42 again")
        child.expect(pexpect.EOF)
        child.wait()
        assert child.exitstatus == 19
    finally:
        child.close(force=True)
    wait_for(lambda: status(fresh_engine, "session") == "exited", "its end is known")
    assert state(fresh_engine, "session")["ExitCode"] == 19


@pytest.mark.parametrize("back", [True, False], ids=["restarted", "gone"])
def test_a_piped_session_goes_on(
    fresh_engine: EngineProcess, command_line: Callable[[EngineProcess], list[str]], back: bool
) -> None:
    args = ["run", "-i", "--name", "piped", "--network", "none", "busybox", "sh", "-c"]
    client = subprocess.Popen(
        [*command_line(fresh_engine), *args, "cat; exit 23"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert client.stdin is not None
    assert client.stdout is not None
    try:
        client.stdin.write(b"first\n")
        client.stdin.flush()
        assert client.stdout.readline() == b"first\n"
        wait_started(fresh_engine, "piped")
        fresh_engine.kill()
        if back:
            fresh_engine.start()
        out, _ = client.communicate(b"second\n", timeout=20)
        assert (out, client.returncode) == (b"second\n", 23)
    finally:
        client.kill()
        client.wait()
    if not back:
        fresh_engine.start()
    wait_for(lambda: status(fresh_engine, "piped") == "exited", "its end is known")
    assert fresh_engine.docker("logs", "piped").out == "first\nsecond\n"


def test_what_was_written_meanwhile_is_in_the_log(fresh_engine: EngineProcess) -> None:
    script = WAIT_GO + "yes 0123456789abcde | head -c 3000000; echo end; exit 4"
    launch(fresh_engine, "writer", "sh", "-c", script)
    pid = state(fresh_engine, "writer")["Pid"]
    release(fresh_engine, "writer")
    fresh_engine.kill()
    wait_ended(pid)
    now = time.time()
    fresh_engine.start()
    document = state(fresh_engine, "writer")
    assert (document["Status"], document["ExitCode"], document["Pid"]) == ("exited", 4, 0)
    assert document["FinishedAt"] > document["StartedAt"]
    finished = document["FinishedAt"].partition(".")[0]
    assert finished <= time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
    log = fresh_engine.docker("logs", "writer").raw
    assert log == (b"0123456789abcde\n" * 187500)[:3000000] + b"end\n"
    assert "Exited (4)" in fresh_engine.docker("ps", "-a").out


def test_containers_that_ended_meanwhile_are_dealt_with(fresh_engine: EngineProcess) -> None:
    script = WAIT_GO + "exit 3"
    policies = {"gone": ("--rm",), "no": (), "always": ("--restart", "always")}
    policies |= {"failed": ("--restart", "on-failure:3"), "kept": ("--restart", "unless-stopped")}
    for name, flags in policies.items():
        launch(fresh_engine, f"c-{name}", "sh", "-c", script, flags=flags)
    pids = [state(fresh_engine, f"c-{name}")["Pid"] for name in policies]
    roots = [os.open(f"/proc/{pid}/root", os.O_PATH) for pid in pids]
    fresh_engine.kill()
    for pid, root in zip(pids, roots, strict=True):
        os.close(os.open("go", os.O_CREAT | os.O_WRONLY, dir_fd=root))
        os.close(root)
        wait_ended(pid)
    fresh_engine.start()
    assert fresh_engine.request("GET", "/containers/c-gone/json")[0] == 404
    assert state(fresh_engine, "c-no")["ExitCode"] == 3
    for name in ("always", "kept"):
        assert status(fresh_engine, f"c-{name}") in ("running", "restarting")
    wait_for(lambda: status(fresh_engine, "c-failed") == "exited", "its retries are used up")


def test_a_wait_is_answered_whatever_becomes_of_berthd(fresh_engine: EngineProcess) -> None:
    launch(fresh_engine, "awaited", "sh", "-c", WAIT_GO + "exit 31")
    go = os.open(f"/proc/{state(fresh_engine, 'awaited')['Pid']}/root", os.O_PATH)
    waiters = []
    before = _sockets_of_monitor(fresh_engine)
    for count in range(1, 4):  # one of each berthd
        waiters.append(
            subprocess.Popen(
                [find("docker"), "-H", fresh_engine.host, "wait", "awaited"],
                stdout=subprocess.PIPE,
            )
        )
        wait_for(lambda n=count: _sockets_of_monitor(fresh_engine) == before + n, "it waits")
        fresh_engine.restart()
    os.close(os.open("go", os.O_CREAT | os.O_WRONLY, dir_fd=go))
    os.close(go)
    assert [w.communicate(timeout=20)[0] for w in waiters] == [b"31\n"] * 3


def _sockets_of_monitor(engine: EngineProcess) -> int:
    pid = monitor_of(engine, "awaited")
    links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
    return sum(link.startswith("socket:") for link in links)


def test_execs_go_on_and_their_codes_are_known(fresh_engine: EngineProcess) -> None:
    launch(fresh_engine, "host-of-execs")
    client = subprocess.Popen(
        [
            *(find("docker"), "-H", fresh_engine.host, "exec", "-i", "host-of-execs"),
            *("sh", "-c", "cat; exit 12"),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert client.stdin is not None
    assert client.stdout is not None
    client.stdin.write(b"one\n")
    client.stdin.flush()
    assert client.stdout.readline() == b"one\n"
    fresh_engine.restart()
    ids = fresh_engine.inspect("host-of-execs")["ExecIDs"]
    assert len(ids) == 1
    out, _ = client.communicate(b"two\n", timeout=20)
    assert (out, client.returncode) == (b"two\n", 12)
    assert fresh_engine.request("GET", f"/exec/{ids[0]}/json")[1]["ExitCode"] == 12


def test_a_paused_container_stays_paused(fresh_engine: EngineProcess) -> None:
    launch(fresh_engine, "frozen", "sh", "-c", LOOP)
    fresh_engine.docker("pause", "frozen")
    fresh_engine.restart()
    assert status(fresh_engine, "frozen") == "paused"
    assert fresh_engine.docker("unpause", "frozen").code == 0
    size = len(fresh_engine.docker("logs", "frozen").out)
    wait_for(lambda: len(fresh_engine.docker("logs", "frozen").out) > size, "it goes on")


def consistent(engine: EngineProcess, name: str) -> None:
    """After a crash: what is listed can be removed, the name used, and nothing is left."""
    code, listed = engine.request("GET", "/containers/json?all=1")
    assert code == 200
    for container in listed:
        document = engine.inspect(container["Id"])
        running = document["State"]["Running"]
        assert running == (document["State"]["Pid"] != 0)
        if not running:
            done = engine.docker("start", container["Id"])
            assert done.code == 0, str(done)
    engine.remove_containers()
    done = engine.docker("run", "--rm", "--name", name, "busybox", "echo", "fine")
    assert (done.code, done.out) == (0, "fine\n"), str(done)
    engine.wait_settled()


VERBS = {
    "create": ([], ["create", "--name", "victim", "-v", "/v", "busybox", "sleep", "600"]),
    "run": (
        [],
        ["run", "-d", "--name", "victim", "-p", "127.0.0.1::80", "busybox", "sleep", "600"],
    ),
    "start": ([["create", "--name", "victim", "busybox", "sleep", "600"]], ["start", "victim"]),
    "stop": (
        [["run", "-d", "--name", "victim", "busybox", "sleep", "600"]],
        ["stop", "-t", "0", "victim"],
    ),
    "remove": (
        [["run", "-d", "--name", "victim", "busybox", "sleep", "600"]],
        ["rm", "-f", "victim"],
    ),
}


@pytest.mark.parametrize("verb", VERBS)
def test_berthd_killed_at_any_moment_leaves_nothing_half_done(
    fresh_engine: EngineProcess, verb: str
) -> None:
    before, words = VERBS[verb]
    for delay_ms in range(0, 60, 5):
        for earlier in before:
            assert fresh_engine.docker(*earlier).code == 0
        client = subprocess.Popen(
            [find("docker"), "-H", fresh_engine.host, *words],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        threading.Event().wait(0.01 + delay_ms / 1000)
        fresh_engine.kill()
        client.wait(20)
        fresh_engine.start()
        consistent(fresh_engine, "victim")


# The zygote is killed


def zygote_of(engine: EngineProcess) -> int:
    (zygote,) = wait_for(lambda: kernel.zygotes(engine.pid), "there is a zygote")
    return zygote


def test_the_zygote_keeps_no_descriptor_of_starts_that_ended_or_failed(
    fresh_engine: EngineProcess,
) -> None:
    folder = Path(f"/proc/{zygote_of(fresh_engine)}/fd")
    before = len(list(folder.iterdir()))
    run = ("run", "--rm", "busybox")
    for _ in range(3):
        assert fresh_engine.docker(*run, "true").code == 0
        assert fresh_engine.docker(*run, "no-such-program").code == 127
        assert fresh_engine.docker("run", "--cpuset-cpus", "4096", "busybox", "true").code == 125
    assert fresh_engine.docker("run", "-d", "--name", "up", "busybox", "sleep", "600").code == 0
    for _ in range(3):
        assert fresh_engine.docker("exec", "up", "true").code == 0
        assert fresh_engine.docker("exec", "up", "no-such-program").code != 0
    # A job that the import has left to do may have been on its way when they were counted.
    wait_for(
        lambda: len(list(folder.iterdir())) <= before, "the zygote has closed what it was given"
    )
    # What berthd was started with (its end of --ready-fd) is not inherited either.
    assert not [fd for fd in folder.iterdir() if os.readlink(fd).startswith("pipe:")]


def test_another_zygote_takes_the_place_of_a_dead_one(fresh_engine: EngineProcess) -> None:
    launch(fresh_engine, "witness", "sh", "-c", LOOP)
    for _ in range(3):
        zygote = zygote_of(fresh_engine)
        os.kill(zygote, signal.SIGKILL)
        wait_ended(zygote)
        done = fresh_engine.docker("run", "--rm", "busybox", "echo", "fine")
        assert (done.code, done.out) == (0, "fine\n"), str(done)
    assert "zygote" in fresh_engine.log.read_text()
    assert status(fresh_engine, "witness") == "running"
    assert fresh_engine.docker("exec", "witness", "true").code == 0
    assert fresh_engine.docker("rm", "-f", "witness").code == 0


def test_a_zygote_killed_in_the_middle_of_starts_leaves_nothing(
    fresh_engine: EngineProcess,
) -> None:
    for delay_ms in range(0, 60, 6):
        client = subprocess.Popen(
            [find("docker"), "-H", fresh_engine.host, "run", "-d", "busybox", "sleep", "600"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        threading.Event().wait(0.01 + delay_ms / 1000)
        os.kill(zygote_of(fresh_engine), signal.SIGKILL)
        client.wait(20)
        consistent(fresh_engine, "victim")
    assert fresh_engine.docker("run", "--rm", "busybox", "true").code == 0


# A monitor is killed


def test_a_dead_monitor_is_reported_and_nothing_leaks(fresh_engine: EngineProcess) -> None:
    launch(
        fresh_engine, "bereft", "sh", "-c", "sleep 500 & sleep 600", flags=("--network", "bridge")
    )
    pid = state(fresh_engine, "bereft")["Pid"]
    os.kill(monitor_of(fresh_engine, "bereft"), signal.SIGKILL)
    wait_for(lambda: status(fresh_engine, "bereft") == "dead", "it is reported")
    document = state(fresh_engine, "bereft")
    assert (document["ExitCode"], document["Dead"]) == (137, True)
    assert "monitor" in document["Error"]
    wait_ended(pid)
    assert kernel.cgroups(fresh_engine.instance.cgroup) == []
    assert fresh_engine.docker("start", "bereft").code == 0
    assert status(fresh_engine, "bereft") == "running"
    assert fresh_engine.docker("rm", "-f", "bereft").code == 0


def test_the_restart_policy_applies_after_a_dead_monitor(fresh_engine: EngineProcess) -> None:
    launch(fresh_engine, "revived", flags=("--restart", "always"))
    pid = state(fresh_engine, "revived")["Pid"]
    os.kill(monitor_of(fresh_engine, "revived"), signal.SIGKILL)
    wait_for(lambda: state(fresh_engine, "revived")["Pid"] not in (0, pid), "it runs again")
    assert fresh_engine.inspect("revived")["RestartCount"] == 1


def test_a_monitor_killed_in_the_middle_of_a_start_leaves_nothing(
    fresh_engine: EngineProcess,
) -> None:
    for delay_ms in range(0, 30, 3):
        assert (
            fresh_engine.docker("create", "--name", "victim", "busybox", "sleep", "600").code == 0
        )
        client = subprocess.Popen(
            [find("docker"), "-H", fresh_engine.host, "start", "victim"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        threading.Event().wait(delay_ms / 1000)
        killed = kill_monitors(fresh_engine)
        client.wait(20)
        if not killed:  # it was not there yet, or not to be told from its parent
            wait_for(lambda: kill_monitors(fresh_engine), "a monitor to kill")
        wait_for(lambda: status(fresh_engine, "victim") in ("created", "exited", "dead"), "its end")
        assert kernel.cgroups(fresh_engine.instance.cgroup) == []
        consistent(fresh_engine, "victim")


def kill_monitors(engine: EngineProcess) -> list[int]:
    """Kill the monitors of all containers; return their process ids."""
    killed = []
    for pid in kernel.children().get(zygote_of(engine), ()):
        try:
            if os.readlink(f"/proc/{pid}/cwd").startswith(f"{engine.exec_root}/containers/"):
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
        except OSError:
            continue
    return killed


# The machine starts again


def reboot(engine: EngineProcess) -> None:
    engine.kill()
    kernel.end_processes(engine.instance.cgroup, [engine.exec_root])
    for root in kernel.hierarchies():
        for folder, _, _ in os.walk(root / engine.instance.cgroup, topdown=False):
            os.rmdir(folder)
    shutil.rmtree(engine.exec_root)
    engine.start()


def test_after_a_reboot_those_that_need_others_start_after_them(
    fresh_engine: EngineProcess,
) -> None:
    always = ("--restart", "always")
    launch(fresh_engine, "owner", flags=(*always, "--network", "bridge"))
    launch(fresh_engine, "guest", flags=(*always, "--network", "container:owner"))
    launch(fresh_engine, "third", flags=(*always, "--network", "container:guest"))
    launch(fresh_engine, "linked", flags=(*always, "--network", "bridge", "--link", "owner"))
    reboot(fresh_engine)
    names = ("owner", "guest", "third", "linked")
    assert [status(fresh_engine, name) for name in names] == ["running"] * 4
    show = ("readlink", "/proc/self/ns/net")
    spaces = {fresh_engine.docker("exec", name, *show).out for name in names[:3]}
    assert len(spaces) == 1


def test_after_a_reboot_policies_apply(fresh_engine: EngineProcess) -> None:
    policies = ("no", "always", "unless-stopped", "on-failure:2")
    for policy in policies:
        for kind in ("ran", "stopped"):
            name = f"{kind}-{policy.partition(':')[0]}"
            flags = ("--restart", policy, "--network", "bridge")
            launch(fresh_engine, name, "sh", "-c", "echo x >> /f; exec sleep 600", flags=flags)
    stopped = [f"stopped-{policy.partition(':')[0]}" for policy in policies]
    assert fresh_engine.docker("stop", "-t", "0", *stopped).code == 0
    reboot(fresh_engine)

    def found(kind: str) -> dict[str, object]:
        names = {p: f"{kind}-{p.partition(':')[0]}" for p in policies}
        return {p: status(fresh_engine, name) for p, name in names.items()}

    ran = {"no": "exited", "always": "running", "unless-stopped": "running"}
    assert found("ran") == {**ran, "on-failure:2": "running"}
    assert found("stopped") == {
        **dict.fromkeys(policies, "exited"),
        "always": "running",
    }
    assert state(fresh_engine, "ran-no")["ExitCode"] == 255
    assert fresh_engine.docker("exec", "ran-always", "cat", "/f").out == "x\nx\n"
    assert fresh_engine.docker("start", "ran-no").code == 0
    addresses = [
        fresh_engine.inspect(f"ran-{p}")["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
        for p in ("no", "always", "unless-stopped", "on-failure")
    ]
    assert len(set(addresses)) == 4


def test_what_was_stopped_while_it_waited_for_its_start_stays_so(
    fresh_engine: EngineProcess,
) -> None:
    policies = {"always": "always", "kept": "unless-stopped", "failing": "on-failure:50"}
    for kind in ("waits", "stopped", "killed"):
        for name, policy in policies.items():
            launch(
                fresh_engine, f"{kind}-{name}", "sh", "-c", "exit 3", flags=("--restart", policy)
            )
    for name in policies:
        for kind in ("waits", "stopped", "killed"):
            wait_for(
                lambda ref=f"{kind}-{name}": fresh_engine.inspect(ref)["RestartCount"] >= 2,
                "it waits",
            )
        assert fresh_engine.docker("stop", f"stopped-{name}").code == 0
        assert fresh_engine.docker("kill", f"killed-{name}").code == 0
    counts = {name: fresh_engine.inspect(f"waits-{name}")["RestartCount"] for name in policies}
    fresh_engine.restart()
    for kind in ("stopped", "killed"):
        for name in ("kept", "failing"):
            assert status(fresh_engine, f"{kind}-{name}") == "exited", (kind, name)
    for name, count in counts.items():  # those go on, and so does their count
        wait_for(
            lambda ref=f"waits-{name}", n=count: fresh_engine.inspect(ref)["RestartCount"] > n,
            "it is started again",
        )
