"""Containers' lives: start, stop, restart, kill, pause, wait, rename, and what lists and reports say."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from support.engine import UnixConnection
from support.programs import find
from support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.engine import EngineProcess
    from support.programs import Outcome

    Cli = Callable[..., Outcome]

TRAP = "trap 'echo bye; exit 9' TERM; echo ready; while :; do sleep 0.1; done"


def start(engine: EngineProcess, name: str, *command: str, flags: tuple[str, ...] = ()) -> str:
    args = ("run", "-d", "--name", name, "--network", "none", *flags, "busybox")
    done = engine.docker(*args, *(command or ("sleep", "600")))
    assert done.code == 0, str(done)
    return done.out.strip()


def state(engine: EngineProcess, name: str) -> dict[str, object]:
    return engine.inspect(name)["State"]


def wait_logged(engine: EngineProcess, name: str, text: str) -> None:
    wait_for(lambda: text in engine.docker("logs", name).out, f"{name} printed {text}")


def test_stop_asks_first(cli: Cli, engine: EngineProcess) -> None:
    start(engine, "polite", "sh", "-c", TRAP)
    wait_logged(engine, "polite", "ready")
    assert cli("stop", "polite").out == "polite\n"
    assert state(engine, "polite")["ExitCode"] == 9
    assert cli("logs", "polite").out == "ready\nbye\n"


def test_stop_kills_after_its_timeout(cli: Cli, engine: EngineProcess) -> None:
    start(engine, "deaf", "sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done")
    wait_logged(engine, "deaf", "ready")
    begin = time.monotonic()
    assert cli("stop", "-t", "1", "deaf").code == 0
    assert 0.9 < time.monotonic() - begin < 8
    assert state(engine, "deaf")["ExitCode"] == 137


def test_the_stop_signal_can_be_chosen(cli: Cli, engine: EngineProcess) -> None:
    script = "trap 'exit 5' USR1; echo ready; while :; do sleep 0.1; done"
    flags = ("--stop-signal", "USR1", "--stop-timeout", "5")
    start(engine, "chosen", "sh", "-c", script, flags=flags)
    wait_logged(engine, "chosen", "ready")
    cli("stop", "chosen")
    assert state(engine, "chosen")["ExitCode"] == 5
    config = engine.inspect("chosen")["Config"]
    assert (config["StopSignal"], config["StopTimeout"]) == ("USR1", 5)


def test_kill_sends_any_signal(cli: Cli, engine: EngineProcess) -> None:
    script = "trap 'echo hup' HUP; echo ready; while :; do sleep 0.1; done"
    start(engine, "hup", "sh", "-c", script)
    wait_logged(engine, "hup", "ready")
    assert cli("kill", "-s", "HUP", "hup").code == 0
    wait_logged(engine, "hup", "hup\n")
    assert state(engine, "hup")["Running"] is True
    assert cli("kill", "--signal", "9", "hup").code == 0
    assert cli("wait", "hup").out == "137\n"
    start(engine, "bad-signal")
    assert cli("kill", "-s", "NONSENSE", "bad-signal").code == 1


def test_a_stopped_container_starts_again_with_its_files(cli: Cli, engine: EngineProcess) -> None:
    cli(
        *["create", "--name", "again", "--network", "none", "busybox", "sh", "-c"],
        "cat /f; echo more >> /f",
    )
    assert cli("start", "-a", "again").out == ""
    assert cli("start", "-a", "again").out == "more\n"
    assert cli("start", "-a", "again").out == "more\nmore\n"


def test_restart_makes_a_new_process(cli: Cli, engine: EngineProcess) -> None:
    start(engine, "renewed")
    before = state(engine, "renewed")
    assert cli("restart", "-t", "1", "renewed").code == 0
    after = state(engine, "renewed")
    assert after["Running"] is True
    assert after["Pid"] != before["Pid"]
    assert after["StartedAt"] > before["StartedAt"]


def test_pause_freezes_and_unpause_thaws(cli: Cli, engine: EngineProcess) -> None:
    start(engine, "frozen", "sh", "-c", "while :; do echo x; sleep 0.05; done")
    wait_logged(engine, "frozen", "x")
    assert cli("pause", "frozen").code == 0
    assert state(engine, "frozen")["Status"] == "paused"
    assert "(Paused)" in cli("ps").out
    size = len(engine.docker("logs", "frozen").out)
    assert "is paused" in cli("exec", "frozen", "true").err
    assert len(engine.docker("logs", "frozen").out) == size
    assert cli("unpause", "frozen").code == 0
    wait_for(lambda: len(engine.docker("logs", "frozen").out) > size, "it goes on")
    cli("pause", "frozen")
    assert cli("rm", "-f", "frozen").code == 0


def test_wait_prints_the_code_when_it_ends(cli: Cli, engine: EngineProcess) -> None:
    start(engine, "waited", "sh", "-c", "read line </fifo; exit 33", flags=())
    assert cli("wait", "waited").code == 0
    start(engine, "late", "sh", "-c", "sleep 0.3; exit 44")
    assert cli("wait", "late").out == "44\n"
    assert cli("wait", "late").out == "44\n"


def test_rename_keeps_the_container(cli: Cli, engine: EngineProcess) -> None:
    id_ = start(engine, "before")
    assert cli("rename", "before", "after").code == 0
    assert engine.inspect("after")["Id"] == id_
    assert cli("inspect", "before").code == 1
    start(engine, "other")
    assert cli("rename", "other", "after").code == 1


def test_rm_of_several_and_volumes(cli: Cli, engine: EngineProcess) -> None:
    for name in ("one", "two"):
        cli("create", "--name", name, "-v", "/anonymous", "busybox", "true")
    done = cli("rm", "-v", "one", "two")
    assert (done.code, done.out) == (0, "one\ntwo\n")
    assert engine.request("GET", "/containers/json?all=1")[1] == []


def test_a_unique_prefix_of_the_id_is_a_name(cli: Cli, engine: EngineProcess) -> None:
    id_ = start(engine, "prefixed")
    assert json.loads(cli("inspect", id_[:6]).out)[0]["Id"] == id_


# Lists and reports


def test_ps_lists_running_ones_and_all(cli: Cli, engine: EngineProcess) -> None:
    start(engine, "runs", flags=("-l", "tier=web"))
    cli("create", "--name", "made", "busybox", "true")
    start(engine, "ended", "sh", "-c", "exit 4")
    cli("wait", "ended")

    def names(*flags: str) -> list[str]:
        return sorted(cli("ps", "--format", "{{.Names}}", *flags).lines)

    assert names() == ["runs"]
    assert names("-a") == ["ended", "made", "runs"]
    assert names("-a", "-f", "status=created") == ["made"]
    assert names("-a", "-f", "exited=4") == ["ended"]
    assert names("-a", "--filter", "name=run") == ["runs"]
    assert names("-f", "label=tier=web") == ["runs"]
    assert names("-f", "label=other") == []
    assert names("-a", "-f", "ancestor=busybox") == ["ended", "made", "runs"]
    assert names("-l") == ["ended"]
    table = cli("ps", "-a").out
    columns = "CONTAINER ID IMAGE COMMAND CREATED STATUS PORTS NAMES"
    assert table.splitlines()[0].split() == columns.split()
    assert "Exited (4)" in table
    assert "Up " in table
    assert '"sleep 600"' in table


def test_top_lists_processes_of_the_container(cli: Cli, engine: EngineProcess) -> None:
    start(engine, "topped", "sh", "-c", "sleep 500 & sleep 600")
    wait_for(lambda: cli("top", "topped").out.count("sleep") >= 2, "both sleep")
    assert "PID" in cli("top", "topped").lines[0]


def test_stats_reports_memory_and_processes(cli: Cli, engine: EngineProcess) -> None:
    start(engine, "measured", flags=("-m", "64m"))
    done = cli("stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}} {{.PIDs}}", "measured")
    assert done.code == 0, str(done)
    assert done.out.split()[0] == "measured"
    assert "64MiB" in done.out
    assert done.out.split()[-1] == "1"


def test_stats_count_what_is_used(cli: Cli, engine: EngineProcess) -> None:
    """Every column of a container that computes, talks and writes; a sample follows the other."""
    work = "while :; do :; done & while :; do ping -c 1 -s 1000 $1 > /dev/null; sleep 0.01; done"
    gate = "$(ip route | sed -n 's/default via \\([^ ]*\\) .*/\\1/p')"
    done = engine.docker(
        *("run", "-d", "--name", "used", "--cpus", "0.5", "-m", "64m", "busybox", "sh", "-c"),
        f"set -- {gate}; {work}",
    )
    assert done.code == 0, str(done)

    def row() -> dict[str, str]:
        shown = cli("stats", "--no-stream", "--format", "json", "used")
        return json.loads(shown.out)

    def talked() -> dict[str, str] | None:
        found = row()
        return None if "0B" in found["NetIO"].split(" / ") else found

    first = wait_for(talked, "it has talked")
    assert 0 < float(first["CPUPerc"].rstrip("%")) < 100
    assert 0 < float(first["MemPerc"].rstrip("%")) < 100
    assert (first["Name"], first["MemUsage"].split()[-1]) == ("used", "64MiB")
    assert int(first["PIDs"]) >= 2
    samples = engine_stream(engine, "/containers/used/stats?stream=true", 3)
    used = [sample["cpu_stats"]["cpu_usage"]["total_usage"] for sample in samples]
    assert used == sorted(set(used))
    before = [sample["precpu_stats"]["cpu_usage"]["total_usage"] for sample in samples]
    assert before[1:] == used[:-1]
    received = [sample["networks"]["eth0"]["rx_bytes"] for sample in samples]
    assert received == sorted(set(received))
    assert all(sample["networks"]["eth0"]["tx_packets"] for sample in samples)


def engine_stream(engine: EngineProcess, path: str, count: int) -> list[dict[str, Any]]:
    """Return the first documents of a stream."""
    with contextlib.closing(UnixConnection(engine.socket)) as connection:
        connection.request("GET", path)
        response = connection.getresponse()
        return [json.loads(response.readline()) for _ in range(count)]


def test_events_tell_a_containers_life(engine: EngineProcess, docker_cli: Cli) -> None:
    since = str(time.time())
    listener = subprocess.Popen(
        [
            *(find("docker"), "-H", engine.host, "events", "--since", since),
            *("--filter", "container=eventful", "--format", "{{.Action}}"),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        args = ["run", "--rm", "--name", "eventful", "--network", "none", "busybox", "sh", "-c"]
        assert docker_cli(*args, "exit 3").code == 3
        seen: list[str] = []
        assert listener.stdout is not None
        for line in listener.stdout:
            seen.append(line.strip())
            if seen[-1] == "destroy":
                break
    finally:
        listener.kill()
        listener.wait()
    kinds = [name for name in seen if name in ("create", "attach", "start", "die", "destroy")]
    assert kinds == ["create", "attach", "start", "die", "destroy"]


def test_events_of_the_past_end_at_until(cli: Cli, engine: EngineProcess) -> None:
    since = str(int(time.time()) - 1)
    cli("create", "--name", "past", "busybox", "true")
    done = cli("events", "--since", since, "--until", str(time.time()), "--format", "{{json .}}")
    assert done.code == 0, str(done)
    events = [json.loads(line) for line in done.lines]
    mine = [
        e for e in events if e["Type"] == "container" and e["Actor"]["Attributes"]["name"] == "past"
    ]
    assert mine[0]["Action"] == "create"
    assert mine[0]["Actor"]["Attributes"]["image"] == "busybox"


# exec


def test_exec_runs_beside_the_process(cli: Cli, engine: EngineProcess) -> None:
    start(engine, "busy", flags=("-e", "A=1", "-w", "/tmp", "-u", "alice"))
    done = cli("exec", "busy", "sh", "-c", "echo $A $(id -u) $(pwd); exit 6")
    assert (done.code, done.out) == (6, "1 1000 /tmp\n")
    flags = ("-u", "root", "-w", "/etc", "-e", "B=2")
    done = cli("exec", *flags, "busy", "sh", "-c", "echo $A $B $(id -u) $(pwd)")
    assert done.out == "1 2 0 /etc\n"


def test_exec_is_inside_every_limit(cli: Cli, engine: EngineProcess) -> None:
    start(engine, "confined", flags=("-m", "32m"))
    own = engine.docker("exec", "confined", "sh", "-c", "cat /proc/1/cgroup; cat /proc/1/status")
    seen = cli("exec", "confined", "sh", "-c", "cat /proc/self/cgroup; cat /proc/self/status")
    assert seen.code == 0, str(seen)
    for key in ("memory", "CapEff", "CapBnd", "Seccomp:", "NoNewPrivs"):
        first = [line for line in own.lines if key in line]
        assert first == [line for line in seen.lines if key in line]


def test_exec_takes_input_and_separates_output(cli: Cli, engine: EngineProcess) -> None:
    start(engine, "piped")
    done = cli("exec", "-i", "piped", "sh", "-c", "cat; echo err >&2", stdin=b"through\n")
    assert (done.code, done.out, done.err) == (0, "through\n", "err\n")


@pytest.mark.berth_only  # dockerd 20.10 says 126 for both
def test_exec_refuses_as_run_does(cli: Cli, engine: EngineProcess) -> None:
    start(engine, "refusing")
    assert cli("exec", "refusing", "no-such").code == 127
    assert cli("exec", "refusing", "/bin/unexecutable").code == 126
    assert cli("exec", "-u", "nobody-here", "refusing", "true").code in (1, 126)


def test_a_detached_exec_goes_on_alone(cli: Cli, engine: EngineProcess) -> None:
    start(engine, "host-of-many")
    assert cli("exec", "-d", "host-of-many", "sh", "-c", "echo done > /tmp/mark").code == 0
    read = ("exec", "host-of-many", "cat", "/tmp/mark")
    wait_for(lambda: engine.docker(*read).out == "done\n", "the exec ran")


# Restart policies


@pytest.mark.parametrize(("policy", "restarts"), [("no", 0), ("on-failure:2", 2)])
def test_the_restart_policy_is_kept_to(
    cli: Cli, engine: EngineProcess, policy: str, restarts: int
) -> None:
    start(engine, "failing", "sh", "-c", "echo try; exit 1", flags=("--restart", policy))

    def ended() -> bool:
        document = engine.inspect("failing")
        return document["State"]["Status"] == "exited" and document["RestartCount"] == restarts

    wait_for(ended, f"it was restarted {restarts} times")
    assert cli("logs", "failing").out == "try\n" * (restarts + 1)


def test_always_restarts_until_stopped(cli: Cli, engine: EngineProcess) -> None:
    start(engine, "ever", "sh", "-c", "sleep 0.1; exit 0", flags=("--restart", "always"))
    wait_for(lambda: engine.inspect("ever")["RestartCount"] >= 2, "it was restarted twice")
    assert cli("stop", "-t", "1", "ever").code == 0
    assert state(engine, "ever")["Status"] == "exited"
    assert cli("update", "--restart", "no", "ever").code == 0


# Waiting for the next start


def waits(engine: EngineProcess, name: str, *, starts: int) -> bool:
    document = engine.inspect(name)
    return document["State"]["Status"] == "restarting" and document["RestartCount"] > starts


def waiting(engine: EngineProcess, *names: str) -> None:
    """Make containers that have failed three times and wait for their next start."""
    for name in names:
        start(engine, name, "sh", "-c", "exit 3", flags=("--restart", "always"))
    for name in names:
        wait_for(lambda name=name: waits(engine, name, starts=3), f"{name} waits")


def test_what_is_stopped_while_it_waits_stays_so(cli: Cli, engine: EngineProcess) -> None:
    waiting(engine, "clock", "to-stop", "to-kill", "to-remove")
    assert (cli("stop", "to-stop").code, cli("kill", "to-kill").code) == (0, 0)
    refused = cli("rm", "to-remove")
    assert refused.code == 1
    assert "restarting" in refused.err
    assert cli("rm", "-f", "to-remove").code == 0
    starts = {name: engine.inspect(name)["RestartCount"] for name in ("to-stop", "to-kill")}
    now = engine.inspect("clock")["RestartCount"]
    wait_for(lambda: waits(engine, "clock", starts=now), "the others would have been started")
    for name, count in starts.items():
        document = engine.inspect(name)
        assert (document["State"]["Status"], document["State"]["ExitCode"]) == ("exited", 3)
        assert document["RestartCount"] == count
    assert cli("inspect", "to-remove").code == 1
    assert cli("start", "to-stop").code == 0
    assert engine.inspect("to-stop")["RestartCount"] <= 2
    assert cli("rm", "-f", "to-stop", "to-kill", "clock").code == 0


def test_a_container_that_waits_is_shown_and_refuses_what_needs_a_process(
    cli: Cli, engine: EngineProcess
) -> None:
    waiting(engine, "waiter")
    # Between two looks it may have been started for a moment.
    wait_for(lambda: "Restarting (3)" in cli("ps").out, "it is listed as waiting")
    wait_for(lambda: "is restarting" in cli("exec", "waiter", "true").err, "exec is refused")
    wait_for(lambda: "is restarting" in cli("top", "waiter").err, "top is refused")
    wait_for(lambda: "is restarting" in cli("pause", "waiter").err, "pause is refused")
    wait_for(lambda: "You cannot attach to a restarting" in cli("attach", "waiter").err, "attach")
    assert cli("start", "waiter").code == 0
    assert cli("cp", "waiter:/etc/passwd", "-").code == 0
    assert cli("logs", "waiter").code == 0
    assert cli("update", "--restart", "no", "waiter").code == 0
    wait_for(lambda: state(engine, "waiter")["Status"] == "exited", "the next end is its last")


@pytest.mark.berth_only  # dockerd 20.10 renames only what has a network sandbox
def test_a_container_that_waits_is_renamed(cli: Cli, engine: EngineProcess) -> None:
    waiting(engine, "first-name")
    before = engine.inspect("first-name")["RestartCount"]
    assert cli("rename", "first-name", "second-name").code == 0
    wait_for(lambda: waits(engine, "second-name", starts=before), "it is started as before")


def test_a_wait_for_the_end_ends_with_the_first_try(cli: Cli, engine: EngineProcess) -> None:
    waiting(engine, "awaited")
    process = subprocess.Popen(
        [find("docker"), "-H", engine.host, "wait", "awaited"], stdout=subprocess.PIPE
    )
    assert cli("stop", "awaited").code == 0
    assert process.communicate(timeout=20)[0] == b"3\n"
