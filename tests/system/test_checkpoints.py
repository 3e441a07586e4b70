"""`docker checkpoint` and `docker start --checkpoint`, with the criu that there is."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from pathlib import Path
from urllib.parse import quote

import pytest

from support.engine import EngineProcess
from support.kernel import hierarchies
from support.programs import find
from support.waiting import wait_for

LISTENING, ESTABLISHED = "0A", "01"  # in /proc/net
COUNTS = "i=0; while true; do i=$((i + 1)); echo $i; sleep 0.05; done"


@pytest.fixture
def engine(criu_engine):
    """The engine that finds criu."""
    return criu_engine


@pytest.fixture
def docker(engine):
    """The docker CLI, whose commands succeed."""

    def run(*args, **options):
        done = engine.docker(*args, **options)
        assert done.code == 0, str(done)
        return done.out.strip()

    return run


def start(engine, *flags, name="counting", script=COUNTS):
    """Start a container that counts in its log, and wait until it does."""
    done = engine.docker("run", "-d", "--name", name, *flags, "busybox", "sh", "-c", script)
    assert done.code == 0, str(done)
    if script == COUNTS:
        wait_for(lambda: len(numbers(engine, name)) > 3, "it counts")


def numbers(engine, name="counting"):
    """Return what a container has counted, by its log."""
    return [int(line) for line in engine.docker("logs", name).out.split()]


def assert_goes_on(engine, name="counting"):
    """Wait until it counts on, and assert that it has left nothing out nor begun anew."""
    before = len(numbers(engine, name))
    wait_for(lambda: len(numbers(engine, name)) > before + 2, "it goes on")
    found = numbers(engine, name)
    assert found == list(range(1, len(found) + 1))


def state(engine, name="counting"):
    return engine.inspect(name)["State"]


@pytest.mark.parametrize("network", ["none", "bridge", "host"])
def test_a_container_goes_on_from_its_checkpoint(engine, docker, network):
    start(engine, "--network", network)
    assert docker("checkpoint", "create", "counting", "one") == "one"
    ended = state(engine)
    assert (ended["Status"], ended["ExitCode"]) == ("exited", 137)
    assert docker("checkpoint", "ls", "counting").split()[-1] == "one"
    docker("start", "--checkpoint", "one", "counting")
    assert_goes_on(engine)
    assert state(engine)["Status"] == "running"
    assert docker("kill", "counting") == "counting"
    assert docker("wait", "counting") == "137"
    docker("checkpoint", "rm", "counting", "one")
    assert docker("checkpoint", "ls", "counting") == "CHECKPOINT NAME"


def test_it_may_go_on_after_its_checkpoint_and_from_it_as_often_as_wanted(engine, docker):
    start(engine, "--network", "none")
    docker("checkpoint", "create", "--leave-running", "counting", "one")
    assert_goes_on(engine)
    at = max(numbers(engine))
    for _ in range(2):
        docker("kill", "counting")
        docker("start", "--checkpoint", "one", "counting")
        before = len(numbers(engine))
        wait_for(lambda before=before: len(numbers(engine)) > before + 2, "it goes on")
        assert numbers(engine)[before] < at
    docker("checkpoint", "create", "counting", "two")
    docker("start", "--checkpoint", "two", "counting")
    before = len(numbers(engine))
    wait_for(lambda: len(numbers(engine)) > before + 2, "it goes on")


def test_events_tell_of_it(engine, docker):
    start(engine, "--network", "none")
    docker("checkpoint", "create", "counting", "one")
    docker("start", "--checkpoint", "one", "counting")
    docker("kill", "counting")
    docker("rm", "counting")
    until = ("--since", "0", "--until", str(time.time()))
    lines = docker("events", *until, "--format", "{{.Action}}").split()
    wanted = [line for line in lines if line in ("start", "die", "checkpoint")]
    assert "start die checkpoint start" in " ".join(wanted)


def test_attached_clients_see_and_feed_what_goes_on(engine, docker):
    script = (
        'while read line; do said="$said $line"; echo got$said; [ $line = two ] && exit 3; done'
    )
    start(engine, "-i", "--network", "none", script=script)
    with subprocess.Popen(
        [find("docker"), "-H", engine.host, "attach", "counting"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as first:
        first.stdin.write(b"one\n")
        first.stdin.flush()
        assert first.stdout.readline() == b"got one\n"
        docker("checkpoint", "create", "counting", "one")
        assert first.wait() == 137
    again = [find("docker"), "-H", engine.host, "start", "-ai", "--checkpoint", "one", "counting"]
    with subprocess.Popen(again, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as second:
        second.stdin.write(b"two\n")
        second.stdin.flush()
        assert second.stdout.readline() == b"got one two\n"
        assert second.wait() == 3
    assert docker("logs", "counting") == "got one\ngot one two"
    assert state(engine)["ExitCode"] == 3


def test_a_terminal_is_there_again(engine, docker):
    docker("run", "-dit", "--network", "none", "--name", "shell", "busybox", "sh")
    typed(engine, "shell", "remembered=apples; stty rows 33 cols 77; echo set$((1 + 1))", "set2")
    docker("checkpoint", "create", "shell", "one")
    docker("start", "--checkpoint", "one", "shell")
    said = typed(engine, "shell", "echo $remembered; stty size; tty; echo said$((1 + 1))", "said2")
    for words in ("apples", "33 77", "/dev/pts/0"):
        assert words in said.splitlines(), said
    typed(engine, "shell", "exit 4", "")
    assert docker("wait", "shell") == "4"
    assert "apples" in docker("logs", "shell")


def typed(engine, name, line, until):
    """Attach to a container with a terminal, type a line, and return what it shows till something comes."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(str(engine.socket))
        path = f"/containers/{name}/attach?stream=1&stdin=1&stdout=1"
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nUpgrade: tcp\r\nConnection: Upgrade\r\n\r\n"
        client.sendall(head.encode())
        client.sendall(line.encode() + b"\n")
        said = b""
        while until.encode() not in said or b"\r\n\r\n" not in said:
            said += client.recv(4096)
        return said.decode()


def test_its_address_and_published_ports_are_the_same(engine, docker):
    docker("network", "create", "--subnet", "10.231.7.0/24", "own")
    try:
        script = (
            "while true; do echo -e 'HTTP/1.0 200 OK\\r\\n\\r\\nhello' | nc -lp 80 >/dev/null; done"
        )
        start(engine, "--network", "own", "-p", "127.0.0.1:18480:80", name="web", script=script)
        wait_for(lambda: is_answered(18480), "it serves")
        address, mac = endpoint(engine, "web")
        docker("checkpoint", "create", "web", "one")
        docker("start", "--checkpoint", "one", "web")
        assert endpoint(engine, "web") == (address, mac)
        shown = docker("exec", "web", "ip", "addr", "show", "eth0")
        assert f"inet {address}/24" in shown
        assert "10.231.7.1" in docker("exec", "web", "ip", "route")
        assert f"{address}" in docker("exec", "web", "cat", "/etc/hosts")
        wait_for(lambda: is_answered(18480), "it serves again")
    finally:
        engine.remove_containers()
        docker("network", "rm", "own")


def test_where_its_address_is_taken_it_gets_another(engine, docker):
    docker("network", "create", "--subnet", "10.231.7.0/24", "own")
    try:
        start(engine, "--network", "own")
        address, _ = endpoint(engine, "counting")
        docker("checkpoint", "create", "counting", "one")
        docker("run", "-d", "--network", "own", "--ip", address, "busybox", "sleep", "1000")
        docker("start", "--checkpoint", "one", "counting")
        now, _ = endpoint(engine, "counting")
        assert now != address
        assert f"inet {now}/24" in docker("exec", "counting", "ip", "addr", "show", "eth0")
        assert_goes_on(engine)
    finally:
        engine.remove_containers()
        docker("network", "rm", "own")


def is_answered(port):
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return b"hello" in connection.recv(1024)
    except OSError:
        return False


def endpoint(engine, name):
    found = engine.inspect(name)["NetworkSettings"]["Networks"]["own"]
    return found["IPAddress"], found["MacAddress"]


def test_it_is_as_limited_and_alone_as_before(engine, docker):
    flags = ["--memory", "64m", "--pids-limit", "77", "--cap-drop", "CHOWN", "--read-only"]
    flags += ["--tmpfs", "/scratch:size=1m", "--security-opt", "no-new-privileges"]
    start(engine, *flags, "--ulimit", "nofile=500:600", "--hostname", "here")
    docker("exec", "counting", "sh", "-c", "echo kept >/scratch/file")
    before = seen(engine)
    docker("checkpoint", "create", "counting", "one")
    docker("start", "--checkpoint", "one", "counting")
    assert seen(engine) == before
    assert docker("exec", "counting", "cat", "/scratch/file") == "kept"
    assert docker("exec", "counting", "hostname") == "here"
    pid = state(engine)["Pid"]
    assert Path(f"/proc/{pid}/cgroup").read_text().count(engine.inspect("counting")["Id"]) > 3
    for kind in ("mnt", "pid", "net", "ipc", "uts"):
        assert os.readlink(f"/proc/{pid}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}")


def seen(engine, name="counting"):
    """Return what a container's process may and sees, as its host knows it."""
    pid = state(engine, name)["Pid"]
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    wanted = ("Uid", "Gid", "Groups", "Cap", "NoNewPrivs", "Seccomp:", "NSpid")
    kept = [line for line in status if line.startswith(wanted) and "NSpid" not in line]
    mounts = []
    for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        mounts.append((fields[4], fields[3], fields[5], after.removesuffix(",uuid=on")))
    limits = Path(f"/proc/{pid}/limits").read_text()
    groups = Path(f"/proc/{pid}/cgroup").read_text()
    return "\n".join([*kept, *map(str, sorted(mounts)), limits, groups])


def test_volumes_and_binds_are_there_again(engine, docker, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("from outside")
    flags = ["-v", f"{outside}:/bound:ro", "-v", "data:/data", "-v", f"{outside}/file:/one"]
    flags += ["--mount", "type=image,source=busybox,target=/image"]
    start(engine, "--network", "none", *flags)
    docker("exec", "counting", "sh", "-c", "echo kept >/data/file; mkdir /data/x")
    before = seen(engine)
    docker("checkpoint", "create", "counting", "one")
    docker("start", "--checkpoint", "one", "counting")
    assert seen(engine) == before
    shown = docker("exec", "counting", "cat", "/bound/file", "/one", "/data/file")
    assert shown == "from outsidefrom outsidekept"
    refused = engine.docker("exec", "counting", "touch", "/bound/x")
    assert (refused.code, "Read-only" in refused.err) == (1, True), str(refused)
    assert docker("exec", "counting", "ls", "/image/bin/busybox") == "/image/bin/busybox"
    engine.remove_containers()
    docker("volume", "rm", "data")


@pytest.mark.parametrize(
    "flags",
    [
        ("--ipc", "host"),
        ("--uts", "host"),
        ("--cgroupns", "private"),
        ("--privileged",),
    ],
    ids=" ".join,
)
def test_other_namespaces_and_powers_come_back(engine, docker, flags):
    start(engine, "--network", "none", *flags)
    docker("checkpoint", "create", "counting", "one")
    docker("start", "--checkpoint", "one", "counting")
    assert_goes_on(engine)


def test_namespaces_of_another_container_are_joined_again(engine, docker):
    docker("run", "-d", "--name", "other", "--ipc", "shareable", "busybox", "sleep", "1000")
    start(engine, "--network", "container:other", "--ipc", "container:other")
    docker("checkpoint", "create", "counting", "one")
    docker("start", "--checkpoint", "one", "counting")
    assert_goes_on(engine)
    pids = [state(engine, name)["Pid"] for name in ("counting", "other")]
    for kind in ("net", "ipc"):
        assert len({os.readlink(f"/proc/{pid}/ns/{kind}") for pid in pids}) == 1


def test_what_exec_has_started_does_not_come_along_but_goes_on(engine, docker):
    start(engine, "--network", "none")
    docker("exec", "-d", "counting", "sleep", "1234")
    docker("checkpoint", "create", "--leave-running", "counting", "one")
    assert "sleep 1234" in docker("top", "counting")
    docker("kill", "counting")
    docker("start", "--checkpoint", "one", "counting")
    assert "sleep 1234" not in docker("top", "counting")
    assert docker("exec", "counting", "echo", "entered") == "entered"


def test_a_paused_container_may_be_checkpointed_and_runs_when_it_goes_on(engine, docker):
    start(engine, "--network", "none")
    docker("pause", "counting")
    docker("checkpoint", "create", "--leave-running", "counting", "one")
    assert state(engine)["Status"] == "paused"
    docker("checkpoint", "create", "counting", "two")
    docker("start", "--checkpoint", "two", "counting")
    assert_goes_on(engine)


def test_the_restart_policy_leaves_a_checkpointed_container_alone_until_it_runs_again(
    engine, docker
):
    start(engine, "--network", "none", "--restart", "always")
    docker("checkpoint", "create", "counting", "one")
    assert (state(engine)["Status"], engine.inspect("counting")["RestartCount"]) == ("exited", 0)
    docker("start", "--checkpoint", "one", "counting")
    assert_goes_on(engine)
    os.kill(state(engine)["Pid"], 9)
    wait_for(lambda: engine.inspect("counting")["RestartCount"] == 1, "it starts anew")
    wait_for(lambda: numbers(engine)[-1] < len(numbers(engine)), "it counts from the beginning")


def test_both_command_lines_say_the_same(engine, docker, tmp_path):
    start(engine, "--network", "none")
    folder = str(tmp_path / "elsewhere/checkpoints")
    own = ("--checkpoint-dir", folder)
    for cli, name in ((engine.docker, "one"), (engine.berth, "two")):
        done = cli("checkpoint", "create", "--leave-running", *own, "counting", name)
        assert (done.code, done.out) == (0, f"{name}\n"), str(done)
    shown = [cli("checkpoint", "ls", *own, "counting") for cli in (engine.docker, engine.berth)]
    assert shown[0].out == shown[1].out == "CHECKPOINT NAME\none\ntwo\n"
    assert engine.berth("checkpoint", "ls", "counting").out == "CHECKPOINT NAME\n"
    docker("kill", "counting")
    for cli in (engine.docker, engine.berth):
        done = cli("start", *own, "--checkpoint", "two", "counting")
        assert (done.code, done.out) == (0, ""), str(done)
        assert cli("kill", "counting").code == 0
    for cli, name in ((engine.docker, "one"), (engine.berth, "two")):
        done = cli("checkpoint", "rm", *own, "counting", name)
        assert (done.code, done.out) == (0, ""), str(done)
    assert os.listdir(folder) == []
    for cli in (engine.docker, engine.berth):
        done = cli("start", "--checkpoint", "one", "counting", "other")
        assert (done.code, "cannot restore multiple containers" in done.err) == (1, True), str(done)


def test_another_container_of_the_image_can_go_on_from_it(engine, docker, tmp_path):
    start(engine, "--network", "none")
    own = ("--checkpoint-dir", str(tmp_path))
    docker("checkpoint", "create", "--leave-running", *own, "counting", "one")
    docker("create", "--name", "second", "--network", "none", "busybox", "sh", "-c", COUNTS)
    docker("start", *own, "--checkpoint", "one", "second")
    wait_for(lambda: numbers(engine, "second"), "it goes on")
    assert numbers(engine, "second")[0] > 3
    pid = state(engine, "second")["Pid"]
    id_ = engine.inspect("second")["Id"]
    groups = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    assert all(line.endswith(id_) for line in groups if not line.startswith("0::")), groups
    goes_on_alone = len(numbers(engine))
    wait_for(lambda: len(numbers(engine)) > goes_on_alone, "the first goes on, too")


def test_engines_with_criu_are_experimental_for_dockers_clients(engine, docker):
    assert engine.exchange("GET", "/_ping")[1]["Docker-Experimental"] == "true"
    assert docker("version", "--format", "{{.Server.Experimental}}") == "true"
    assert docker("info", "--format", "{{.ExperimentalBuild}}") == "true"


# Refusals


def refusal(engine, method, path, body=None):
    status, answer = engine.request(method, path, body)
    return status, answer["message"]


def folder_of(engine, name="counting"):
    """Return where a container's checkpoints are."""
    return engine.data_root / "containers" / engine.inspect(name)["Id"] / "checkpoints"


@pytest.mark.parametrize("name", ["", "x", ".x", "a/b", "..", "a.", "ä1", "-a"])
def test_a_bad_name_is_refused(engine, docker, name):
    docker("create", "--name", "idle", "busybox")
    words = f'invalid checkpoint ID "{name}", only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed'
    body = {"CheckpointID": name, "Exit": True}
    assert refusal(engine, "POST", "/containers/idle/checkpoints", body) == (400, words)
    if name:
        path = f"/containers/idle/start?checkpoint={quote(name)}"
        assert refusal(engine, "POST", path) == (400, words)


def test_what_does_not_run_cannot_be_checkpointed(engine, docker):
    docker("create", "--name", "idle", "busybox")
    id_ = engine.inspect("idle")["Id"]
    body = {"CheckpointID": "one"}
    told = refusal(engine, "POST", "/containers/idle/checkpoints", body)
    assert told == (409, f"container {id_} is not running")
    nobody = (404, "No such container: nobody")
    assert refusal(engine, "POST", "/containers/nobody/checkpoints", body) == nobody
    assert refusal(engine, "GET", "/containers/nobody/checkpoints") == nobody
    assert refusal(engine, "DELETE", "/containers/nobody/checkpoints/one") == nobody


def test_a_first_process_of_ours_cannot_be_checkpointed(engine, docker):
    docker("run", "-d", "--init", "--name", "init", "busybox", "sleep", "1000")
    path, body = "/containers/init/checkpoints", {"CheckpointID": "one"}
    words = "cannot checkpoint container init: with --init its first process is the engine's"
    assert refusal(engine, "POST", path, body) == (501, words)


def test_names_that_are_taken_or_unknown_and_folders_that_are_none(engine, docker, tmp_path):
    start(engine, "--network", "none")
    docker("checkpoint", "create", "--leave-running", "counting", "one")
    path, body = "/containers/counting/checkpoints", {"CheckpointID": "one"}
    words = "cannot checkpoint container counting: checkpoint with name one already exists"
    assert refusal(engine, "POST", path, body) == (409, f"{words} for container counting")
    unknown = (404, "checkpoint two does not exist for container counting")
    assert refusal(engine, "DELETE", f"{path}/two") == unknown
    assert refusal(engine, "POST", "/containers/counting/start?checkpoint=two") == unknown
    assert engine.request("POST", "/containers/counting/start?checkpoint=one")[0] == 304
    (tmp_path / "file").touch()
    (tmp_path / "mine").mkdir()
    for folder, status in (("file", 400), ("nothing", 404)):
        assert refusal(engine, "GET", f"{path}?dir={tmp_path}/{folder}")[0] == status
    assert refusal(engine, "GET", f"{path}?dir=relative")[0] == 400
    into = {"CheckpointID": "one", "CheckpointDir": f"{tmp_path}/file"}
    assert refusal(engine, "POST", path, into)[0] == 500
    assert refusal(engine, "DELETE", f"{path}/mine?dir={tmp_path}")[0] == 400
    assert (tmp_path / "mine").is_dir()
    only = refusal(engine, "POST", f"/containers/counting/start?checkpoint-dir={tmp_path}")
    assert only[0] == 400
    assert_goes_on(engine)


@pytest.mark.parametrize(
    "record", ["", "[1]", "{", '{"pipes": 1}', "[" * 9999, "\xff", None, "missing"]
)
def test_a_record_that_makes_no_sense_is_refused(engine, docker, tmp_path, record):
    docker("create", "--name", "idle", "busybox")
    folder = tmp_path / "one"
    folder.mkdir()
    if record is None:
        os.mkfifo(folder / "berth.json")
    elif record != "missing":
        (folder / "berth.json").write_text(record, "latin-1")
    for method, path in (
        ("POST", f"start?checkpoint=one&checkpoint-dir={tmp_path}"),
        ("DELETE", f"checkpoints/one?dir={tmp_path}"),
    ):
        status, message = refusal(engine, method, f"/containers/idle/{path}")
        assert (status, "no checkpoint of berth's: berth.json: " in message) == (400, True), message
    assert folder.exists()
    assert state(engine, "idle")["Status"] == "created"


def test_connections_are_refused_and_go_on(engine, docker):
    start(engine, "--network", "none", script=f"nc -lp 90 -e cat & {COUNTS}")

    def is_there(state):
        table = docker("exec", "counting", "cat", "/proc/net/tcp", "/proc/net/tcp6")
        return any(f" {state} " in line and ":005A " in line for line in table.splitlines())

    wait_for(lambda: is_there(LISTENING), "it listens")
    docker("exec", "-d", "counting", "sh", "-c", "tail -f /dev/null | nc 127.0.0.1 90")
    wait_for(lambda: is_there(ESTABLISHED), "they talk")
    done = engine.docker("checkpoint", "create", "counting", "one")
    assert (done.code, "tcp-established" in done.err) == (1, True), str(done)
    assert is_there(ESTABLISHED)
    assert_goes_on(engine)


def test_a_checkpoint_that_fails_says_why_and_leaves_nothing(engine, docker):
    """A file that is nowhere any more, larger than criu takes along."""
    script = "dd if=/dev/zero of=/gone bs=1M count=3; exec 5</gone; rm /gone; echo 1; " + COUNTS
    start(engine, "--network", "none", "--restart", "always", script=script)
    wait_for(lambda: "1\n1\n2" in engine.docker("logs", "counting").out, "the file is open")
    done = engine.docker("checkpoint", "create", "counting", "one")
    assert done.code == 1
    assert "cannot checkpoint container counting: criu failed: type DUMP" in done.err
    assert "ghost" in done.err.lower()
    assert not list(folder_of(engine).iterdir())
    before = docker("logs", "counting")
    wait_for(lambda: docker("logs", "counting") != before, "it goes on")
    os.kill(state(engine)["Pid"], 9)
    wait_for(lambda: engine.inspect("counting")["RestartCount"] == 1, "its policy holds")


def test_a_restore_that_fails_leaves_nothing(engine, docker):
    start(engine, "--network", "bridge")
    docker("checkpoint", "create", "counting", "one")
    (folder_of(engine) / "one/core-1.img").unlink()
    done = engine.docker("start", "--checkpoint", "one", "counting")
    assert (done.code, "criu failed: type RESTORE" in done.err) == (1, True), str(done)
    assert state(engine)["Status"] == "exited"
    parent = engine.instance.cgroup.strip("/")
    groups = [f"{root}/{parent}/std/{engine.inspect('counting')['Id']}" for root in hierarchies()]
    assert not any(map(os.path.exists, groups))
    assert not (engine.exec_root / "containers" / engine.inspect("counting")["Id"]).exists()
    docker("start", "counting")
    assert state(engine)["Running"]


def test_checkpoints_go_with_their_container(engine, docker):
    start(engine, "--network", "none")
    docker("checkpoint", "create", "counting", "one")
    folder = folder_of(engine)
    assert os.stat(folder / "one").st_mode & 0o077 == 0
    docker("rm", "counting")
    wait_for(lambda: not folder.exists(), "they are gone")


def test_berthd_may_be_killed_while_one_is_made(engine, docker):
    start(engine, "--network", "none")
    folder = folder_of(engine)
    command = [find("docker"), "-H", engine.host, "checkpoint", "create", "counting", "one"]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as asking:
        wait_for(lambda: folder.exists() and os.listdir(folder), "it has begun")
        engine.kill()
        assert asking.wait() != 0
    engine.start()
    # It was completed by who makes it, or nothing is left of it.
    wait_for(lambda: not list(folder.glob(".*")), "it is whole or gone")
    names = docker("checkpoint", "ls", "counting").split()[2:]
    if names:
        wait_for(lambda: state(engine)["Status"] == "exited", "it has ended")
        docker("start", "--checkpoint", "one", "counting")
    before = len(numbers(engine))
    wait_for(lambda: len(numbers(engine)) > before, "it goes on")


def test_a_restored_container_outlives_berthd(engine, docker):
    start(engine, "--network", "bridge")
    docker("checkpoint", "create", "counting", "one")
    docker("start", "--checkpoint", "one", "counting")
    engine.restart()
    assert_goes_on(engine)
    docker("checkpoint", "create", "counting", "two")
    docker("start", "--checkpoint", "two", "counting")
    assert_goes_on(engine)


@pytest.fixture
def engine_without_criu(busybox_tar, tmp_path):
    """An engine on whose PATH there is nothing, with the image `busybox`."""
    engine = EngineProcess(environment={"PATH": str(tmp_path)}).start()
    try:
        assert engine.docker("import", "-", "busybox", stdin=busybox_tar).code == 0
        yield engine
    finally:
        engine.close()


def test_without_criu_it_is_said(engine_without_criu):
    engine = engine_without_criu
    done = engine.docker("run", "-d", "--name", "idle", "busybox", "/bin/sleep", "1000")
    assert done.code == 0, str(done)
    words = "criu is not installed: checkpoints are made and restored by it"
    body = {"CheckpointID": "one"}
    told = refusal(engine, "POST", "/containers/idle/checkpoints", body)
    assert told == (501, f"cannot checkpoint container idle: {words}")
    assert engine.exchange("GET", "/_ping")[1]["Docker-Experimental"] == "false"
    folder = folder_of(engine, "idle") / "one"
    folder.mkdir(parents=True)
    assert refusal(engine, "POST", "/containers/idle/start?checkpoint=one") == (501, words)
    assert engine.berth("checkpoint", "create", "idle", "two").err.count(words) == 1
