"""Bytes in and out: pipes, logs, terminals, attach and detach."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pexpect
import pytest

from support.programs import find
from support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.engine import EngineProcess
    from support.programs import Outcome

    Cli = Callable[..., Outcome]
    Terminal = Callable[..., pexpect.spawn[bytes]]

RUN = ("run", "--rm", "--network", "none")
CTRL_P_Q = b"\x10\x11"


@pytest.fixture(params=["docker", "berth"])
def terminal(engine: EngineProcess, request: pytest.FixtureRequest) -> Iterator[Terminal]:
    """Run one of the command lines on a real terminal of 30 rows and 100 columns."""
    engine.docker("version") if request.param == "docker" else engine.berth("version")
    started: list[pexpect.spawn[bytes]] = []

    def spawn(*args: str) -> pexpect.spawn[bytes]:
        if request.param == "docker":
            program, before = find("docker"), ["-H", engine.host]
        else:
            program, before = sys.executable, ["-m", "berth", "-H", engine.host]
        env = {**os.environ, "TERM": "xterm", "DOCKER_CLI_HINTS": "false"}
        child = pexpect.spawn(program, [*before, *args], timeout=20, dimensions=(30, 100), env=env)
        started.append(child)
        return child

    yield spawn
    for child in started:
        child.close(force=True)


def end(child: pexpect.spawn[bytes]) -> int | None:
    child.expect(pexpect.EOF)
    child.wait()
    return child.exitstatus


def test_ten_megabytes_go_through_unchanged(cli: Cli) -> None:
    data = os.urandom(10 << 20)
    done = cli(*RUN, "-i", "busybox", "cat", stdin=data)
    assert done.code == 0, done.err
    assert hashlib.sha256(done.raw).digest() == hashlib.sha256(data).digest()


def test_the_end_of_input_is_passed_on(cli: Cli) -> None:
    done = cli(*RUN, "-i", "busybox", "sh", "-c", "wc -c; echo after", stdin=b"x" * 70000)
    assert done.out.split() == ["70000", "after"]
    assert cli(*RUN, "-i", "busybox", "wc", "-c", stdin=b"").out == "0\n"


def test_without_i_input_is_empty(cli: Cli) -> None:
    assert cli(*RUN, "busybox", "wc", "-c", stdin=b"unseen").out == "0\n"


def test_output_after_the_end_of_input_is_not_lost(cli: Cli) -> None:
    script = "cat >/dev/null; sleep 0.3; dd if=/dev/zero bs=1000 count=1000 2>/dev/null; echo e >&2"
    done = cli(*RUN, "-i", "busybox", "sh", "-c", script, stdin=b"x")
    assert (done.code, len(done.raw), done.err) == (0, 1_000_000, "e\n")


def test_a_client_that_goes_away_does_not_stop_the_container(engine: EngineProcess) -> None:
    client = subprocess.Popen(
        [
            *(find("docker"), "-H", engine.host, "run", "--name", "left", "--network", "none"),
            *("busybox", "sh", "-c", "while :; do echo x; sleep 0.05; done"),
        ],
        stdout=subprocess.PIPE,
    )
    assert client.stdout is not None
    client.stdout.readline()
    client.kill()
    client.wait()
    client.stdout.close()
    size = len(engine.docker("logs", "left").out)
    wait_for(lambda: len(engine.docker("logs", "left").out) > size + 6, "it goes on writing")


def test_a_client_that_does_not_read_does_not_block_the_container(engine: EngineProcess) -> None:
    client = subprocess.Popen(
        [
            *(find("docker"), "-H", engine.host, "run", "--name", "fast", "--network", "none"),
            *("busybox", "sh", "-c", "dd if=/dev/zero bs=1M count=4 2>/dev/null; echo done >&2"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert client.communicate(timeout=60)[0] == bytes(4 << 20)
        assert client.returncode == 0
    finally:
        client.kill()
        client.wait()


def _attach_raw(engine: EngineProcess, name: str) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(engine.socket))
    head = f"POST /containers/{name}/attach?stream=1&stdout=1&stderr=1 HTTP/1.1\r\nHost: x\r\n"
    client.sendall(f"{head}Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n".encode())
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        answer += client.recv(1)
    assert answer.startswith(b"HTTP/1.1 101")
    return client


@pytest.mark.berth_only  # dockerd waits for it for ever
def test_a_stuck_client_does_not_stop_those_who_read(engine: EngineProcess) -> None:
    script = "dd if=/dev/zero bs=1M count=8 2>/dev/null | tr '\\0' x; exit 5"
    words = ("--name", "watched", "--network", "none", "busybox", "sh", "-c", script)
    assert engine.docker("create", *words).code == 0
    with _attach_raw(engine, "watched"):
        done = engine.docker("start", "-a", "watched")
        assert (done.code, len(done.raw)) == (5, 8 << 20)
        assert len(engine.docker("logs", "watched").raw) == 8 << 20
        assert engine.docker("start", "watched").code == 0
        assert engine.docker("wait", "watched").out == "5\n"


def test_a_client_that_reads_late_gets_everything(engine: EngineProcess) -> None:
    script = "dd if=/dev/zero bs=1M count=1 2>/dev/null | tr '\\0' x"
    words = ("--name", "patient", "--network", "none", "busybox", "sh", "-c", script)
    assert engine.docker("create", *words).code == 0
    with _attach_raw(engine, "patient") as client:
        assert engine.docker("start", "patient").code == 0
        assert engine.docker("wait", "patient").out == "0\n"
        assert engine.docker("rm", "patient").code == 0
        data = b""
        while chunk := client.recv(1 << 16):
            data += chunk
    assert data.count(b"x") == 1 << 20


def test_no_exit_code_is_lost_in_a_hundred_runs(engine: EngineProcess) -> None:
    for code in range(1, 101):
        script = f"echo {code}; exit {code}"
        done = engine.docker(*RUN, "busybox", "sh", "-c", script)
        assert (done.code, done.out) == (code, f"{code}\n")


# Logs


@pytest.fixture
def spoken(engine: EngineProcess) -> EngineProcess:
    script = "for i in 1 2 3; do echo out $i; sleep 0.02; echo err $i >&2; sleep 0.02; done"
    args = ("run", "--name", "speaker", "--network", "none", "busybox", "sh", "-c", script)
    assert engine.docker(*args).code == 0
    return engine


def test_logs_keep_streams_apart_and_in_order(spoken: EngineProcess, cli: Cli) -> None:
    done = cli("logs", "speaker")
    assert done.out == "out 1\nout 2\nout 3\n"
    assert done.err == "err 1\nerr 2\nerr 3\n"


def test_logs_take_tail_timestamps_and_since(spoken: EngineProcess, cli: Cli) -> None:
    tail = cli("logs", "--tail", "2", "speaker")
    assert (tail.out, tail.err) == ("out 3\n", "err 3\n")
    stamped = cli("logs", "-t", "speaker").lines
    assert all(
        re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z out \d$", line) for line in stamped
    )
    third = stamped[2].split()[0]
    assert cli("logs", "--since", third, "speaker").out == "out 3\n"
    assert "out 3" not in cli("logs", "--until", stamped[1].split()[0], "speaker").out


def test_logs_follow_until_the_end(cli: Cli, engine: EngineProcess) -> None:
    script = "for i in 1 2 3 4 5; do echo line $i; sleep 0.1; done"
    engine.docker("run", "-d", "--name", "slow", "--network", "none", "busybox", "sh", "-c", script)
    assert cli("logs", "-f", "slow").out == "".join(f"line {i}\n" for i in range(1, 6))


def test_a_last_line_without_a_newline_is_kept(cli: Cli) -> None:
    cli("run", "--name", "rest", "--network", "none", "busybox", "printf", "no newline")
    assert cli("logs", "rest").out == "no newline"


def test_long_lines_and_bytes_that_are_no_text_survive(cli: Cli, engine: EngineProcess) -> None:
    script = "dd if=/dev/zero bs=40000 count=1 2>/dev/null | tr '\\0' a; echo"
    cli("run", "--name", "long", "--network", "none", "busybox", "sh", "-c", script)
    assert cli("logs", "long").out == "a" * 40000 + "\n"


def test_logs_rotate(cli: Cli, engine: EngineProcess) -> None:
    script = "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done"
    options = ("--log-opt", "max-size=20k", "--log-opt", "max-file=2")
    done = engine.docker(
        *("run", "--name", "rotated", "--network", "none", *options, "busybox", "sh", "-c", script)
    )
    assert done.code == 0, done.err
    lines = cli("logs", "rotated").lines
    assert lines[-1] == "line 2999"
    assert 100 < len(lines) < 1500
    numbers = [int(line.split()[1]) for line in lines]
    assert numbers == list(range(numbers[0], 3000))


# Terminals


@pytest.mark.berth_only  # dockerd 20.10 gets to know the size too late
def test_a_terminal_is_a_terminal_with_our_size(terminal: Terminal) -> None:
    child = terminal(*RUN, "-it", "busybox", "sh", "-c", "test -t 0 && test -t 1 && stty size")
    child.expect(b"30 100")
    assert end(child) == 0


def test_a_shell_answers_and_its_code_comes_back(terminal: Terminal) -> None:
    child = terminal(*RUN, "-it", "busybox", "sh")
    child.expect(b"# ")
    child.sendline(b"echo $((6 * 7)); exit 11")
    child.expect(b"42")
    assert end(child) == 11


def test_a_resize_reaches_the_process(terminal: Terminal) -> None:
    child = terminal(*RUN, "-it", "busybox", "sh")
    child.expect(b"# ")

    def resized() -> bool:
        # Again and again: the docker CLI listens for the signal only after it has the start's answer.
        child.setwinsize(43, 132)
        child.setwinsize(44, 133)
        child.sendline(b"stty size")
        return child.expect([b"44 133", b"30 100", b"43 132"]) == 0

    wait_for(resized, "the terminal has its new size")
    child.sendline(b"exit")
    assert end(child) == 0


def test_ctrl_c_interrupts_the_process_in_the_container(terminal: Terminal) -> None:
    child = terminal(
        *RUN, "-it", "busybox", "sh", "-c", "trap 'exit 77' INT; echo ready; sleep 60 & wait"
    )
    child.expect(b"ready")
    child.sendintr()
    assert end(child) == 77


def test_detach_keys_leave_and_attach_returns(terminal: Terminal, engine: EngineProcess) -> None:
    child = terminal("run", "-it", "--name", "kept", "--network", "none", "busybox", "sh")
    child.expect(b"# ")
    child.sendline(b"X=remembered")
    child.expect(b"# ")
    child.send(CTRL_P_Q)
    assert end(child) == 0
    assert engine.inspect("kept")["State"]["Running"] is True
    again = terminal("attach", "kept")
    again.sendline(b"echo still $X")
    again.expect(b"still remembered")
    again.sendline(b"exit 5")
    assert end(again) == 5


def test_detach_keys_can_be_chosen(terminal: Terminal, engine: EngineProcess) -> None:
    child = terminal(
        *("run", "-it", "--detach-keys", "ctrl-x,x", "--name", "own-keys", "--network", "none"),
        *("busybox", "sh"),
    )
    child.expect(b"# ")
    child.send(b"\x18x")
    assert end(child) == 0
    assert engine.inspect("own-keys")["State"]["Running"] is True


def test_exec_has_a_terminal_too(terminal: Terminal, engine: EngineProcess) -> None:
    engine.docker("run", "-d", "--name", "target", "--network", "none", "busybox", "sleep", "600")
    child = terminal("exec", "-it", "target", "sh")
    child.expect(b"# ")
    child.sendline(b"stty size")
    child.expect(b"30 100")
    child.sendline(b"exit 8")
    assert end(child) == 8


def test_signals_to_an_attached_client_reach_the_process(engine: EngineProcess) -> None:
    client = subprocess.Popen(
        [
            *(find("docker"), "-H", engine.host, *RUN, "busybox", "sh", "-c"),
            "trap 'exit 66' TERM; echo ready; while :; do sleep 0.1; done",
        ],
        stdout=subprocess.PIPE,
    )
    try:
        assert client.stdout is not None
        assert client.stdout.readline() == b"ready\n"
        client.send_signal(signal.SIGTERM)
        assert client.wait(20) == 66
    finally:
        client.kill()
        client.wait()
        client.stdout.close()


def test_whoever_follows_a_log_gets_a_frame_a_line_of_one_that_has_ended_too(
    engine: EngineProcess,
) -> None:
    words = ("--network", "none", "busybox", "sh", "-c", "echo one; echo two")
    assert engine.docker("run", "--name", "box", *words).code == 0
    data = engine.exchange("GET", "/containers/box/logs?stdout=1&follow=1")[2]
    head = b"\1\0\0\0\0\0\0\4"
    assert data == head + b"one\n" + head + b"two\n"
