"""Several clients at one container: what each sees, writes and ends."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from support.programs import find
from support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.engine import EngineProcess
    from support.programs import Outcome

    Cli = Callable[..., Outcome]

ECHO = ("sh", "-c", "while read line; do echo got $line; done; echo end of input; exit 4")


class Client:
    """A hijacked connection to a container without a terminal."""

    def __init__(self, engine: EngineProcess, name: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(20)
        self.socket.connect(str(engine.socket))
        query = "stream=1&stdin=1&stdout=1&stderr=1"
        self.socket.sendall(
            f"POST /containers/{name}/attach?{query} HTTP/1.1\r\nHost: x\r\n"
            "Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n".encode()
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.socket.recv(1)
        assert head.startswith(b"HTTP/1.1 101"), head

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def write(self, text: str) -> None:
        self.socket.sendall(text.encode())

    def end_input(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def frame(self) -> str:
        """Return the next frame's text; empty at the end."""
        head = self.socket.recv(8, socket.MSG_WAITALL)
        size = int.from_bytes(head[4:], "big")
        return self.socket.recv(size, socket.MSG_WAITALL).decode() if size else ""

    def settle(self) -> None:
        """Return when what it writes comes back: its connection is served, not only accepted."""
        self.write(f"{id(self)}\n")
        while self.frame() != f"got {id(self)}\n":
            continue

    def rest(self) -> str:
        text = ""
        while frame := self.frame():
            text += frame
        return text


def start(engine: EngineProcess, name: str, *flags: str, command: tuple[str, ...] = ECHO) -> None:
    done = engine.docker(
        "run", "-d", "--name", name, "--network", "none", *flags, "busybox", *command
    )
    assert done.code == 0, str(done)


def test_every_client_may_write_and_sees_everything(engine: EngineProcess) -> None:
    start(engine, "shared", "-i")
    with Client(engine, "shared") as one, Client(engine, "shared") as two:
        two.settle()
        one.settle()
        assert two.frame() == f"got {id(one)}\n"
        for number, client in enumerate((one, two)):
            client.write(f"{number}\n")
            assert [c.frame() for c in (one, two)] == [f"got {number}\n"] * 2
        with Client(engine, "shared") as late:
            late.settle()
            two.socket.close()
            one.write("after\n")
            assert late.frame() == "got after\n"
            assert engine.docker("kill", "shared").code == 0
            assert (one.rest().endswith("got after\n"), late.rest()) == (True, "")


def test_input_stays_open_for_others_when_one_client_ends_its_own(engine: EngineProcess) -> None:
    start(engine, "open", "-i")
    with Client(engine, "open") as one, Client(engine, "open") as two:
        two.settle()
        one.settle()
        one.end_input()
        assert one.rest() == ""  # as in Docker: such a client is let go
        assert two.frame() == f"got {id(one)}\n"
        two.write("second\n")
        assert two.frame() == "got second\n"
        two.end_input()
        with Client(engine, "open") as late:
            late.settle()
    assert engine.inspect("open")["State"]["Running"] is True


def test_input_that_is_for_one_client_ends_with_it(engine: EngineProcess) -> None:
    flags = ("--name", "once", "-i", "--network", "none")
    assert engine.docker("create", *flags, "busybox", *ECHO).code == 0
    with Client(engine, "once") as one, Client(engine, "once") as two:
        assert engine.docker("start", "once").code == 0
        two.settle()
        assert one.frame() == f"got {id(two)}\n"
        one.end_input()
        assert (one.rest(), two.rest()) == ("end of input\n", "end of input\n")
    assert engine.docker("wait", "once").out == "4\n"


def attached(engine: EngineProcess, which: str, *words: str) -> subprocess.Popen[bytes]:
    program = [find("docker")] if which == "docker" else [sys.executable, "-m", "berth"]
    return subprocess.Popen(
        [*program, "-H", engine.host, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )


@pytest.fixture(params=["docker", "berth"])
def which(request: pytest.FixtureRequest, engine: EngineProcess) -> str:
    if request.param == "berth":
        engine.berth("version")
    return request.param


COUNT = "trap 'echo term' TERM; trap 'echo int' INT; i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done"


def test_attached_clients_pass_signals_on_unless_told_not_to(
    engine: EngineProcess, which: str
) -> None:
    start(engine, "signalled", command=("sh", "-c", COUNT))
    quiet = attached(engine, which, "attach", "--sig-proxy=false", "signalled")
    loud = attached(engine, which, "attach", "signalled")
    assert quiet.stdout is not None
    assert loud.stdout is not None
    try:
        quiet.stdout.readline()
        quiet.send_signal(signal.SIGTERM)
        loud.stdout.readline()
        loud.send_signal(signal.SIGINT)
        wait_for(lambda: "int\n" in engine.docker("logs", "signalled").out, "it got the signal")
        assert "term" not in engine.docker("logs", "signalled").out
        assert loud.poll() is None
        assert engine.docker("kill", "signalled").code == 0
        loud.stdout.read()
        assert loud.wait(20) == 137
    finally:
        for client in (quiet, loud):
            client.kill()
            client.wait()
            client.stdout.close()


def test_an_attach_without_input_does_not_take_any(cli: Cli, engine: EngineProcess) -> None:
    start(engine, "listened", "-i", command=("sh", "-c", "read line; echo got $line"))
    listener = attached(engine, "docker", "attach", "--no-stdin", "listened")
    done = cli("attach", "listened", stdin=b"hello\n")
    assert done.code == 0, str(done)
    assert engine.docker("wait", "listened").out == "0\n"
    assert engine.docker("logs", "listened").out == "got hello\n"
    assert listener.communicate(timeout=20)[0] in (b"got hello\n", b"")


def test_top_shows_what_exec_started(cli: Cli, engine: EngineProcess) -> None:
    start(engine, "topped", command=("sleep", "600"))
    assert cli("exec", "-d", "topped", "sh", "-c", "sleep 700; true").code == 0
    wait_for(lambda: "sleep 700" in cli("top", "topped").out, "the exec's child is listed")
    shown = cli("top", "topped", "-o", "pid,comm")
    assert len(shown.lines) == 4
    assert sorted(line.split()[1] for line in shown.lines[1:]) == ["sh", "sleep", "sleep"]


def test_a_size_that_is_set_while_it_starts_is_no_error_or_counts(engine: EngineProcess) -> None:
    words = ("create", "-it", "--name", "sized", "--network", "none", "busybox", "sh")
    assert engine.docker(*words).code == 0
    answers = set()
    client = subprocess.Popen([find("docker"), "-H", engine.host, "start", "sized"])
    while client.poll() is None:
        answers.add(engine.request("POST", "/containers/sized/resize?h=33&w=77")[0])
    assert client.returncode == 0
    assert answers <= {200, 409}
    assert engine.request("POST", "/containers/sized/resize?h=33&w=77")[0] == 200
    with_size = engine.docker("exec", "sized", "sh", "-c", "stty size < /proc/1/fd/0")
    assert with_size.out == "33 77\n"
    for query in ("h=0&w=0", "h=x&w=1", "", "h=70000&w=1"):
        assert engine.request("POST", f"/containers/sized/resize?{query}")[0] in (200, 400), query


def test_a_client_without_input_sees_a_terminals_output_to_the_end(cli: Cli) -> None:
    for _ in range(3):
        done = cli("run", "--rm", "-t", "busybox", "sh", "-c", "tty; sleep 0.2; echo end")
        assert (done.code, done.raw) == (0, b"/dev/pts/0\r\nend\r\n"), str(done)
