"""Exit codes as Docker gives them, and refusals with one clear line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.engine import SOURCE, EngineProcess
from support.programs import run

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.programs import Outcome

    Cli = Callable[..., Outcome]

RUN = ("run", "--rm", "--network", "none")


@pytest.mark.parametrize("code", [0, 1, 42, 125, 255])
def test_the_exit_code_is_the_process(cli: Cli, code: int) -> None:
    assert cli(*RUN, "busybox", "sh", "-c", f"exit {code}").code == code


def test_a_missing_command_is_127(cli: Cli) -> None:
    done = cli(*RUN, "busybox", "no-such-command")
    assert done.code == 127
    assert "no-such-command" in done.err
    assert "executable file not found in $PATH" in done.err
    absolute = cli(*RUN, "busybox", "/no/such")
    assert absolute.code == 127
    assert "no such file or directory" in absolute.err


def test_a_command_that_cannot_be_executed_is_126(cli: Cli) -> None:
    assert cli(*RUN, "busybox", "/bin/unexecutable").code == 126
    directory = cli(*RUN, "busybox", "/etc")
    assert directory.code in (126, 127)
    assert "denied" in cli(*RUN, "busybox", "/bin/unexecutable").err


def test_a_signal_is_128_and_its_number(cli: Cli) -> None:
    assert cli(*RUN, "--init", "busybox", "sh", "-c", "kill -TERM $$").code == 143
    cli("run", "-d", "--network", "none", "--name", "killed", "busybox", "sleep", "60")
    assert cli("kill", "killed").code == 0
    assert cli("wait", "killed").out.strip() == "137"


def test_running_out_of_memory_is_137_and_reported(cli: Cli, engine: EngineProcess) -> None:
    done = cli(
        *("run", "--name", "greedy", "--network", "none", "-m", "8m", "--memory-swap", "8m"),
        *("busybox", "sh", "-c", "dd if=/dev/zero of=/dev/null bs=64M count=1"),
    )
    assert done.code == 137, str(done)
    state = engine.inspect("greedy")["State"]
    assert state["OOMKilled"] is True
    assert state["ExitCode"] == 137


def nothing_made(engine: EngineProcess) -> bool:
    return engine.request("GET", "/containers/json?all=1")[1] == []


def test_an_unknown_image_is_refused(cli: Cli, engine: EngineProcess) -> None:
    done = cli("run", "--pull", "never", "no-such-image:1", "true")
    assert done.code == 125
    assert "No such image: no-such-image:1" in done.err
    assert nothing_made(engine)


@pytest.mark.parametrize(
    "verb", ["start", "stop", "kill", "rm", "inspect", "logs", "pause", "wait", "top"]
)
def test_every_verb_says_that_a_container_is_unknown(cli: Cli, verb: str) -> None:
    done = cli(verb, "no-such")
    assert done.code == 1
    assert "o such" in done.err
    assert "no-such" in done.err


def test_verbs_in_the_wrong_state_are_conflicts(cli: Cli) -> None:
    cli("create", "--name", "still", "--network", "none", "busybox", "sleep", "60")
    assert "is not running" in cli("kill", "still").err
    assert "is not running" in cli("exec", "still", "true").err
    assert "is not running" in cli("pause", "still").err
    assert cli("stop", "still").code == 0
    cli("start", "still")
    assert cli("start", "still").code == 0
    refused = cli("rm", "still")
    assert refused.code == 1
    assert "emove" in refused.err
    assert cli("rm", "-f", "still").code == 0


def test_a_broken_archive_is_refused_and_leaves_nothing(cli: Cli, engine: EngineProcess) -> None:
    before = engine.request("GET", "/images/json")[1]
    for archive in (b"no archive at all" * 100, b"\x1f\x8b broken gzip", b"\0" * 512 + b"x" * 512):
        done = cli("load", stdin=archive)
        assert done.code == 1, str(done)
        assert "Traceback" not in done.err
    assert engine.request("GET", "/images/json")[1] == before


@pytest.mark.berth_only
@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        ("serve -H unix://DIR/s --data-root DIR", 1, "start engine: root is needed (use sudo)"),
        (
            "ps",
            1,
            "no engine answers at unix:///nowhere/berth/berth.sock, and only root may start one",
        ),
        ("run host true", 125, "no engine answers at unix:///nowhere/berth/berth.sock"),
    ],
)
def test_who_is_not_root_is_told_so(tmp_path: Path, words: str, code: int, complaint: str) -> None:
    program = Path(sys.executable).resolve()
    if not os.access(program, os.X_OK) or "/root/" in str(program):
        program = Path("/usr/bin/python3")  # what other users may execute
    path = str(tmp_path)
    done = subprocess.run(
        [str(program), "-m", "berth", *words.replace("DIR", path).split()],
        env={
            "PYTHONPATH": str(SOURCE),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PATH": os.environ["PATH"],
            "XDG_RUNTIME_DIR": "/nowhere",
        },
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: os.setuid(65534),
    )
    assert done.returncode == code, done.stderr
    assert complaint.replace("DIR", path) in done.stderr
    said = [line for line in done.stderr.splitlines() if line and not line.startswith("Run 'berth")]
    assert len([line for line in said if not line.startswith("hint: ")]) == 1


@pytest.mark.berth_only
def test_a_client_says_which_engine_does_not_answer(tmp_path: Path) -> None:
    done = run(sys.executable, "-m", "berth", "-H", f"unix://{tmp_path}/none", "ps")
    assert done.code == 1
    assert f"{tmp_path}/none" in done.err
    assert len(done.err.strip().splitlines()) == 1
