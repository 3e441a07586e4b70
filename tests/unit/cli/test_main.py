import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from berth.cli import commands, helptext
from berth.cli.main import load, main
from support.scripted import ScriptedEngine, answers, reply

SOURCE = Path(__file__).parents[3] / "src"
# Each of these costs a cold `berth run` between 5 and 90 ms.
DENIED = (
    *("argparse", "asyncio", "ctypes", "dataclasses", "datetime", "enum", "functools", "hashlib"),
    *("http", "importlib.metadata", "inspect", "json", "logging", "msgspec", "pathlib", "re"),
    *("selectors", "shutil", "signal", "socket", "ssl", "string", "struct", "subprocess"),
    *("tempfile", "threading", "typing", "urllib", "uuid"),
)
MODULES_LIMIT = 40


def berth(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "berth", *arguments],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


def output_of(capsys, *arguments):
    return main(["berth", *arguments]), *capsys.readouterr()


def test_an_unknown_flag_of_run_is_125_with_the_usage(capsys):
    status, out, err = output_of(capsys, "run", "--x", "image")
    assert (status, out) == (125, "")
    assert err == (
        "unknown flag: --x\n\nUsage:  berth run [OPTIONS] IMAGE [COMMAND] [ARG...]\n\n"
        "Run 'berth run --help' for more information\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run"], "berth: 'berth run' requires at least 1 argument\n"),
        (["exec", "a"], "berth: 'berth exec' requires at least 2 arguments\n"),
        (["tag", "a"], "berth: 'berth tag' requires 2 arguments\n"),
        (["ps", "a"], "berth: 'berth ps' accepts no arguments\n"),
        (["images", "a", "b"], "berth: 'berth images' requires at most 1 argument\n"),
        (["nope"], "berth: unknown command: berth nope\n"),
        (["network", "nope"], "berth: unknown command: berth network nope\n"),
        (["-H", "foo://x", "ps"], "berth: invalid host 'foo://x'"),
    ],
)
def test_a_wrong_command_line_is_1(capsys, arguments, message):
    status, out, err = output_of(capsys, *arguments)
    assert (status, out) == (1, "")
    assert err.startswith(message)


def test_an_engine_that_is_not_there_is_125_for_run_and_1_for_others(capsys, tmp_path):
    host = f"unix://{tmp_path}/none.sock"
    status, _, err = output_of(capsys, "-H", host, "run", "image")
    assert status == 125
    assert "Is the engine running (berth serve)?\n" in err
    assert output_of(capsys, "-H", host, "ps")[0] == 1


@pytest.mark.parametrize("name", sorted(commands.COMMANDS))
def test_every_command_has_help_for_every_flag(name):
    text = helptext.command_help(name)
    flags, act = load(name)
    assert callable(act)
    assert text.startswith(f"Usage:  berth {name} ")
    for flag, short, kind, said in flags:
        assert (f"--{flag} " in text) == bool(said)
        assert len(short) <= 1
        assert kind in (
            "bool",
            "true",
            "string",
            "list",
            "strings",
            "map",
            "filter",
            "int",
            "bytes",
            "decimal",
            "duration",
        )
    assert len({flag[0] for flag in flags}) == len(flags)
    shorts = [flag[1] for flag in flags if flag[1]]
    assert len(set(shorts)) == len(shorts)


def test_help_lists_every_command(capsys):
    status, out, _ = output_of(capsys, "--help")
    assert status == 0
    for name in commands.COMMANDS:
        assert f"  {name.split(' ')[0]} " in out
    assert output_of(capsys, "network")[2].startswith("Usage:  berth network COMMAND")
    assert output_of(capsys, "network", "--help")[1].startswith("Usage:  berth network COMMAND")
    assert output_of(capsys, "help", "run")[1] == output_of(capsys, "run", "--help")[1]


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("run x", ("run", ["x"])),
        ("container run x", ("run", ["x"])),
        ("container ls -a", ("ps", ["-a"])),
        ("image rm x", ("rmi", ["x"])),
        ("system info", ("info", [])),
        ("network ls -q", ("network ls", ["-q"])),
        ("volume remove v", ("volume rm", ["v"])),
        ("container nope", ("container nope", [])),
        ("network", ("network", [])),
    ],
)
def test_commands_have_dockers_longer_names(typed, found):
    assert commands.find(typed.split(" ")) == found


def frame(stream, payload):
    return bytes((stream, 0, 0, 0)) + len(payload).to_bytes(4, "big") + payload


def attached(frames):
    def script(engine, connection):
        engine.take(connection)
        connection.sendall(b"HTTP/1.1 101 UPGRADED\r\n\r\n" + frames)

    return script


def test_run_attaches_and_waits_before_it_starts(tmp_path):
    created = reply(json.dumps({"Id": "c" * 64, "Warnings": ["careful"]}).encode(), status="201 C")
    order = []

    def main_connection(engine, connection):
        engine.take(connection)
        connection.sendall(created)
        streams, _ = engine._socket.accept()
        wait, _ = engine._socket.accept()
        with streams, wait:
            engine.take(streams)
            engine.take(wait)
            streams.sendall(b"HTTP/1.1 101 UPGRADED\r\n\r\n")
            wait.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            engine.take(connection)
            order.extend(line.split(b" ")[1].rpartition(b"/")[2] for line in engine.sent)
            streams.sendall(frame(1, b"out\n") + frame(2, b"err\n"))
            connection.sendall(reply(status="204 No Content"))
            wait.sendall(b'11\r\n{"StatusCode": 7}\r\n0\r\n\r\n')

    with ScriptedEngine(tmp_path / "s", main_connection) as engine:
        done = berth("-H", engine.url, "run", "--rm", "image", "x")
    assert (done.returncode, done.stdout) == (7, "out\n")
    assert done.stderr == "WARNING: careful\nerr\n"
    names = [name.partition(b"?")[0] for name in order]
    assert names == [b"create", b"attach", b"wait", b"start"]
    assert order[2] == b"wait?condition=removed"


@pytest.mark.parametrize(
    ("message", "status"),
    [
        ({"message": "x", "code": "command-not-found"}, 127),
        ({"message": "x", "code": "command-not-executable"}, 126),
        ({"message": 'exec: "x": executable file not found in $PATH: unknown'}, 127),
        ({"message": 'exec: "/x": permission denied: unknown'}, 126),
        ({"message": "port is already allocated"}, 125),
    ],
)
def test_a_failed_start_tells_what_failed(tmp_path, message, status):
    replies = (
        reply(b'{"Id": "c"}', status="201 Created"),
        reply(json.dumps(message).encode(), status="400 Bad Request"),
    )
    with ScriptedEngine(tmp_path / "s", answers(*replies)) as engine:
        done = berth("-H", engine.url, "run", "-d", "image")
    assert done.returncode == status
    more = "Run 'berth run --help' for more information"
    assert done.stderr == f"berth: {message['message']}\n\n{more}\n"


def test_a_missing_image_is_pulled_and_the_container_created(tmp_path):
    progress = b'{"status":"Pulling fs layer","id":"abc"}\r\n{"status":"Status: done"}\r\n'
    replies = (
        reply(b'{"message": "No such image: image:latest"}', status="404 Not Found"),
        reply(progress),
        reply(b'{"Id": "cc"}', status="201 Created"),
    )
    with ScriptedEngine(tmp_path / "s", answers(*replies)) as engine:
        done = berth("-H", engine.url, "create", "image")
    assert (done.returncode, done.stdout) == (0, "cc\n")
    assert done.stderr == (
        "Unable to find image 'image:latest' locally\nabc: Pulling fs layer\nStatus: done\n"
    )
    assert b"/images/create?fromImage=image&tag=latest " in engine.sent[1]


def test_a_missing_image_is_not_pulled_when_told_never(tmp_path):
    refusal = reply(b'{"message": "No such image: image:latest"}', status="404 Not Found")
    with ScriptedEngine(tmp_path / "s", answers(refusal)) as engine:
        done = berth("-H", engine.url, "run", "--pull=never", "image")
    assert done.returncode == 125
    assert done.stderr.startswith("berth: No such image: image:latest\n")


def test_a_reader_that_left_is_no_error(tmp_path):
    rows = [{"Id": f"{index:064}", "Created": 0} for index in range(20000)]
    with ScriptedEngine(tmp_path / "s", answers(reply(json.dumps(rows).encode()))) as engine:
        read, write = os.pipe()
        os.close(read)
        process = subprocess.run(
            [sys.executable, "-m", "berth", "-H", engine.url, "ps", "-q"],
            env={**os.environ, "PYTHONPATH": str(SOURCE)},
            stdout=write,
            stderr=subprocess.PIPE,
            check=False,
        )
        os.close(write)
    assert (process.returncode, process.stderr) == (141, b"")


def test_a_cold_run_loads_few_modules_and_no_slow_one(tmp_path):
    """Every module costs; a test holds the line."""
    refusal = reply(b'{"message": "No such image: image:latest"}', status="404 Not Found")
    script = tmp_path / "probe.py"
    script.write_text(
        "import sys\n"
        "before = set(sys.modules)\n"
        "from berth.cli.main import main\n"
        "import berth.cli.run\n"
        "main(sys.argv)\n"
        "print(*sorted(set(sys.modules) - before))\n"
    )
    with ScriptedEngine(tmp_path / "s", answers(refusal)) as engine:
        done = subprocess.run(
            [
                *(sys.executable, "-S", str(script), "-H", engine.url),
                *("run", "--rm", "-it", "--pull=never", "-p1:1", "-v/a:/b", "image", "x"),
            ],
            env={"PYTHONPATH": str(SOURCE), "PATH": os.environ["PATH"]},
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            check=False,
        )
        if not engine.sent:  # refused before it asked: let the engine's thread end
            berth("-H", engine.url, "ps")
    loaded = done.stdout.split()
    assert "berth.cli.session" in loaded
    denied = {name for name in loaded if name in DENIED or name.split(".")[0] in DENIED}
    assert not denied
    assert len(loaded) < MODULES_LIMIT, loaded
