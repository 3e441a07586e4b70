"""`berth-oci` from create to delete, on bundles of busybox."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import select
import shlex
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from support import kernel
from support.programs import PATH, find, run
from support.waiting import wait_for

FREEZER = Path("/sys/fs/cgroup/freezer")


@pytest.mark.usefixtures("each_door")
def test_run_passes_streams_and_the_exit_code(oci, bundle):
    bundle.shell("cat; echo bad >&2; exit 7")
    done = oci("run", "--bundle", str(bundle.path), "a", stdin=b"through\n")
    assert (done.code, done.out, done.err) == (7, "through\n", "bad\n")
    assert oci("list", "-q").out == ""


@pytest.mark.usefixtures("each_door")
def test_a_signal_that_ends_the_program_is_told_as_the_shell_does(oci, bundle):
    assert oci.run(bundle.shell("kill -9 $$"), "a").code == 0  # pid 1 of its namespace
    bundle.edit(lambda spec: spec["linux"]["namespaces"].remove({"type": "pid"}))
    bundle.edit(lambda spec: spec["mounts"].pop(0))
    bundle.edit(lambda spec: spec["linux"].update(maskedPaths=[], readonlyPaths=[]))
    assert oci.run(bundle, "b").code == 137


def test_a_created_container_waits_for_its_start(oci, bundle, tmp_path):
    bundle.shell("echo done >/work/done; exec sleep 1000")
    bundle.edit(lambda spec: spec["root"].update(readonly=False))
    pid_file = tmp_path / "pid"
    assert oci.create(bundle, "a", "--pid-file", str(pid_file)).code == 0
    state = oci.state("a")
    assert state["status"] == "created"
    assert str(state["pid"]) == pid_file.read_text()
    assert state["bundle"] == str(bundle.path)
    assert not (bundle.root / "work/done").exists()
    assert oci("start", "a").code == 0
    assert oci.status("a") == "running"
    wait_for((bundle.root / "work/done").exists, "the program ran")


@pytest.mark.parametrize("name", ["TERM", "INT", "HUP"])
def test_a_container_that_waits_for_its_start_is_ended_by_a_signal(oci, bundle, name):
    oci.create(bundle.runs("sleep", "1000"), "a")
    assert oci("kill", "a", name).code == 0
    wait_for(lambda: oci.status("a") == "stopped", "it stopped")
    assert oci("delete", "a").code == 0


def test_starting_twice_is_refused(oci, bundle):
    oci.create(bundle.runs("sleep", "1000"), "a")
    assert oci("start", "a").code == 0
    done = oci("start", "a")
    assert done.code == 1
    assert "cannot start an already running container" in done.err


def test_a_start_that_was_killed_is_not_made_up_for_by_ending_the_container(oci, bundle):
    oci.create(bundle.runs("sleep", "1000"), "a")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as killed:  # as far as it came
        killed.connect(str(oci.root / "a/start.sock"))
        assert killed.recv(1) == b""
    done = oci("start", "a")
    assert (done.code, oci.status("a")) == (1, "running")
    assert "cannot start an already running container" in done.err


def test_kill_ends_it_and_delete_removes_it(oci, bundle):
    oci.create(bundle.runs("sleep", "1000"), "a")
    oci("start", "a")
    refused = oci("delete", "a")
    assert refused.code == 1
    assert "cannot delete container a that is not stopped: running" in refused.err
    assert oci("kill", "a", "KILL").code == 0
    wait_for(lambda: oci.status("a") == "stopped", "it stopped")
    assert oci.state("a")["pid"] == 0
    assert oci("kill", "a").code == 1
    assert oci("delete", "a").code == 0
    gone = oci("state", "a")
    assert gone.code == 1
    assert "container does not exist" in gone.err


def has_ended(pid: object) -> bool:
    """Say whether a process is gone, or waits for a parent that is not ours to be seen."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_delete_with_force_ends_any_and_minds_none(oci, bundle):
    oci.create(bundle.runs("sleep", "1000"), "a")
    pid = oci.state("a")["pid"]
    assert oci("delete", "--force", "a").code == 0
    assert has_ended(pid)
    assert oci("delete", "--force", "a").code == 0
    assert oci("delete", "a").code == 1


@pytest.mark.skipif(not FREEZER.is_dir(), reason="needs cgroup v1's freezer")
def test_a_container_that_somebody_else_has_frozen_is_not_forgotten(oci, bundle):
    oci.create(bundle.runs("sleep", "1000"), "a")
    group = FREEZER / f"test-{os.getpid()}"
    group.mkdir()
    try:
        (group / "cgroup.procs").write_text(str(oci.state("a")["pid"]))
        (group / "freezer.state").write_text("FROZEN")
        done = oci("delete", "--force", "a")
        assert (done.code, "container init still running" in done.err) == (1, True), str(done)
        assert oci.status("a") == "created"
        (group / "freezer.state").write_text("THAWED")
        assert oci("delete", "--force", "a").code == 0
        assert oci("list", "-q").out == ""
    finally:
        (group / "freezer.state").write_text("THAWED")
        wait_for(lambda: not (group / "cgroup.procs").read_text(), "it has ended")
        group.rmdir()


def test_the_same_id_is_refused(oci, bundle):
    oci.create(bundle.runs("sleep", "1000"), "a")
    again = oci.create(bundle, "a")
    assert again.code == 1
    assert "container with given ID already exists" in again.err
    assert oci.status("a") == "created"


@pytest.mark.usefixtures("each_door")
@pytest.mark.parametrize("id_", ["", "..", "a/b", "ä", "a b"])
def test_ids_that_are_no_names_are_refused(oci, bundle, id_):
    done = oci.run(bundle, id_)
    assert done.code == 1
    assert "id" in done.err.lower()


def test_a_program_that_is_not_there_fails_at_create(oci, bundle):
    done = oci.create(bundle.runs("nothing"), "a")
    assert done.code == 1
    assert 'exec: \\"nothing\\": executable file not found in $PATH' in done.err
    assert oci("list", "-q").out == ""


@pytest.mark.usefixtures("each_door")
def test_errors_go_to_the_log_as_json(oci, bundle, tmp_path):
    log = tmp_path / "log.json"
    done = oci(
        "--log", str(log), "--log-format", "json", "run", "--bundle", str(tmp_path / "none"), "a"
    )
    assert done.code == 1
    entry = json.loads(log.read_text())
    assert entry["level"] == "error"
    assert entry["msg"].startswith("berth-oci run failed: bundle")
    assert entry["time"].endswith("Z")


def test_pause_and_resume(oci, bundle):
    oci.create(bundle.runs("sleep", "1000"), "a")
    oci("start", "a")
    assert oci("pause", "a").code == 0
    assert oci.status("a") == "paused"
    refused = oci("exec", "a", "true")
    assert refused.code == 255
    assert "cannot exec in a paused container" in refused.err
    assert oci("resume", "a").code == 0
    assert oci.status("a") == "running"
    assert oci("resume", "a").code == 1


def test_a_container_that_waits_for_its_start_is_paused_and_resumed(oci, bundle):
    oci.create(bundle.runs("sleep", "1000"), "a")
    assert oci("pause", "a").code == 0
    assert oci.status("a") == "paused"
    assert "cannot start a container in the paused state" in oci("start", "a").err
    assert oci("resume", "a").code == 0
    assert oci.status("a") == "created"
    assert oci("start", "a").code == 0


def test_a_paused_container_can_be_deleted(oci, bundle):
    oci.create(bundle.runs("sleep", "1000"), "a")
    oci("start", "a")
    oci("pause", "a")
    assert oci("delete", "--force", "a").code == 0


def test_exec_runs_beside_the_program(oci, bundle):
    oci.create(bundle.runs("sleep", "1000"), "a")
    oci("start", "a")
    done = oci("exec", "a", "sh", "-c", "echo $$; ps; exit 5", stdin=b"")
    assert done.code == 5
    assert "sleep 1000" in done.out
    both = oci("exec", "a", "cat", "/proc/1/cgroup", "/proc/self/cgroup").lines
    assert both[: len(both) // 2] == both[len(both) // 2 :]


def test_exec_takes_user_environment_and_directory(oci, bundle):
    oci.create(bundle.runs("sleep", "1000"), "a")
    oci("start", "a")
    script = "id -u; id -g; id -G; echo $A; pwd; umask"
    done = oci(
        *("exec", "--user", "5:6", "-g", "7", "--env", "A=b", "--cwd", "/tmp", "a"),
        *("sh", "-c", script),
    )
    assert done.lines == ["5", "6", "6 7", "b", "/tmp", "0022"]


def test_exec_takes_a_document(oci, bundle, tmp_path):
    oci.create(bundle.runs("sleep", "1000"), "a")
    oci("start", "a")
    process = {"args": ["/bin/id", "-u"], "cwd": "/", "user": {"uid": 42, "gid": 0}, "env": []}
    (tmp_path / "process.json").write_text(json.dumps(process))
    done = oci("exec", "--process", str(tmp_path / "process.json"), "a")
    assert (done.code, done.out) == (0, "42\n"), str(done)


@pytest.mark.parametrize(
    ("more", "found"),
    [({}, ["0000000020000420", "1000"]), ({"capabilities": {}, "rlimits": []}, ["0" * 16, "1000"])],
)
def test_what_a_document_leaves_out_is_the_containers(oci, bundle, tmp_path, more, found):
    limits = [{"type": "RLIMIT_NOFILE", "soft": 1000, "hard": 1000}]
    bundle.edit(lambda spec: spec["process"].update(rlimits=limits))
    oci.create(bundle.runs("sleep", "1000"), "a")
    oci("start", "a")
    script = "grep CapPrm /proc/self/status | cut -f2; ulimit -n"
    process = {"args": ["/bin/sh", "-c", script], "cwd": "/", "env": ["PATH=/bin"], **more}
    (tmp_path / "process.json").write_text(json.dumps(process))
    assert oci("exec", "--process", str(tmp_path / "process.json"), "a").lines == found


def test_a_detached_exec_writes_its_pid(oci, bundle, tmp_path):
    oci.create(bundle.runs("sleep", "1000"), "a")
    oci("start", "a")
    with open(os.devnull, "r+b") as null:
        process = oci.background(
            *("exec", "--detach", "--pid-file", str(tmp_path / "pid"), "a", "sleep", "999"),
            stdin=null, stdout=null, stderr=null,
        )  # fmt: skip
        assert process.wait() == 0
    pid = int((tmp_path / "pid").read_text())
    assert Path(f"/proc/{pid}/cmdline").read_bytes() == b"sleep\0999\0"
    assert pid in json.loads(oci("ps", "--format", "json", "a").out)


@pytest.mark.usefixtures("each_door")
def test_signals_are_passed_on_in_the_foreground(oci, bundle):
    bundle.shell("trap 'echo got; exit 3' TERM; echo ready; while true; do sleep 0.1; done")
    process = oci.background(
        "run", "--bundle", str(bundle.path), "a", stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.stdout.read() == b"got\n"
    assert process.wait() == 3


@pytest.mark.parametrize("after_s", [0, 0.5])
def test_descriptors_are_preserved_where_the_deputy_is_another_one(oci, bundle, tmp_path, after_s):
    (tmp_path / "unshare").write_text(f"#!/bin/sh\nsleep {after_s}; exit 1\n")
    (tmp_path / "unshare").chmod(0o755)
    (tmp_path / "given").write_text("beside\n")
    bundle.shell("cat <&12; ls /proc/self/fd | wc -l")
    words = oci.command("run", "--preserve-fds", "10", "--bundle", str(bundle.path), "a")
    given = " ".join(f"{fd}<{tmp_path}/given" for fd in range(3, 13))
    shell = (find("bash"), "-c", f'exec "$@" {given}', "bash")
    done = run(*shell, *words, env={"PATH": f"{tmp_path}:{PATH}"})
    assert (done.out, done.code) == ("beside\n14\n", 0), str(done)


@pytest.mark.parametrize("command", ["run", "exec"])
def test_a_gap_among_preserved_descriptors_is_refused(oci, bundle, tmp_path, command):
    (tmp_path / "given").touch()
    words = ["run", "--preserve-fds", "4", "--bundle", str(bundle.runs("true").path), "b"]
    if command == "exec":
        oci.create(bundle.runs("sleep", "1000"), "a")
        oci("start", "a")
        words = ["exec", "--preserve-fds", "4", "a", "true"]
    done = run("sh", "-c", f'exec "$@" 3<{tmp_path}/given', "sh", *oci.command(*words))
    assert "unable to preserve descriptor 4 (of 4): it is not open" in done.err


@pytest.mark.parametrize(("to", "shown"), [("$$", "beside\n1 1\n"), ("1", "\n"), ("", "\n")])
def test_sockets_are_passed_on_that_were_passed_to_the_command(oci, bundle, tmp_path, to, shown):
    (tmp_path / "given").write_text("beside\n")
    bundle.shell("test -e /proc/self/fd/3 && cat <&3; echo $LISTEN_FDS $LISTEN_PID")
    words = oci.command("run", "--bundle", str(bundle.path), "a")
    script = f'LISTEN_FDS=1 LISTEN_PID={to} exec "$@" 3<{tmp_path}/given'
    done = run("sh", "-c", script, "sh", *words)
    assert (done.out, done.code) == (shown, 0), str(done)


@pytest.mark.usefixtures("each_door")
def test_descriptors_are_preserved_when_asked_for(oci, bundle):
    bundle.shell("cat <&3; ls /proc/self/fd | wc -l")
    reader, writer = os.pipe()
    os.write(writer, b"beside\n")
    os.close(writer)
    words = oci.command("run", "--preserve-fds", "1", "--bundle", str(bundle.path), "a")
    process = subprocess.Popen(
        [find("bash"), "-c", f'exec "$@" 3<&{reader}', "bash", *words],
        pass_fds=[reader],
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    )
    os.close(reader)
    assert process.stdout is not None
    assert (
        process.stdout.read() == b"beside\n5\n"
    )  # 0 to 3, and the one that ls reads the directory by
    assert process.wait() == 0


@pytest.mark.usefixtures("each_door")
def test_a_terminal_is_sent_to_the_console_socket(oci, bundle, tmp_path):
    from support.consoles import Console

    bundle.edit(lambda spec: spec["process"].update(terminal=True))
    bundle.edit(
        lambda spec: spec["process"].update(consoleSize={"height": 11, "width": 22}),
    )
    bundle.shell("stty size; tty; ls /dev/console; read line; echo got $line")
    with Console(tmp_path / "console.sock") as console:
        done = oci.run(bundle, "a", "--detach", "--console-socket", str(console.path))
        assert done.code == 0, str(done)
        console.write(b"word\n")
        text = console.read_to_end()
    shown = text.replace("word\r\n", "", 1)  # what was typed is shown wherever it comes between
    assert shown.splitlines()[:3] == ["11 22", "/dev/pts/0", "/dev/console"]
    assert text.endswith("got word\r\n")


def test_a_terminal_can_be_taken_to_the_foreground_later(oci, bundle):
    pexpect = pytest.importorskip("pexpect")
    bundle.shell("echo here").edit(lambda spec: spec["process"].update(terminal=True))
    shell = pexpect.spawn(find("bash"), ["--norc", "-i"], timeout=30)
    shell.sendline(shlex.join(oci.command("run", "--bundle", str(bundle.path), "a")) + " &")
    shell.sendline(
        'until grep -q "^State:.*stopped" /proc/$!/status; do :; done; fg; echo code $?.'
    )
    shell.expect(r"code (\d+)\.\r\n")
    assert shell.match[1] == b"0", shell.before
    assert b"here\r\n" in shell.before
    shell.close()


@pytest.mark.usefixtures("each_door")
def test_a_terminal_in_the_foreground(oci, bundle):
    pexpect = pytest.importorskip("pexpect")
    bundle.edit(lambda spec: spec["process"].update(terminal=True))
    bundle.shell("tty; stty size; read line; echo got $line; exit 4")
    program, *words = oci.command("run", "--bundle", str(bundle.path), "a")
    child = pexpect.spawn(program, words, dimensions=(33, 44), timeout=30)
    child.expect_exact("/dev/pts/0\r\n33 44\r\n")
    child.sendline("word")
    child.expect_exact("got word\r\n")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 4


def test_a_terminal_is_shown_while_nobody_reads_what_is_typed(oci, bundle):
    pexpect = pytest.importorskip("pexpect")
    bundle.edit(lambda spec: spec["process"].update(terminal=True))
    bundle.shell("stty raw -echo; echo ready; sleep 1; seq 1 100000; echo en''d")
    program, *words = oci.command("run", "--bundle", str(bundle.path), "a")
    child = pexpect.spawn(program, words, timeout=30)
    child.expect_exact("ready")
    typing = threading.Thread(target=child.send, args=("x" * 400_000,), daemon=True)
    typing.start()
    child.expect_exact("99999\r\n100000\r\nend")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


def test_a_stream_that_does_not_wait_is_waited_for(oci, bundle):
    bundle.edit(lambda spec: spec["process"].update(terminal=True))
    bundle.shell("seq 1 100000")
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    process = oci.background(
        "run", "--bundle", str(bundle.path), "a", stdin=subprocess.DEVNULL, stdout=writer
    )
    os.close(writer)
    with open(reader) as file:
        wait_for(lambda: select.select([reader], (), (), 0)[0], "more than it holds")
        assert file.read().split() == [str(number) for number in range(1, 100_001)]
    assert process.wait() == 0


def test_update_sets_limits(oci, bundle):
    oci.create(bundle.runs("sleep", "1000"), "a")
    oci("start", "a")
    wanted = {"memory": {"limit": 32 << 20}, "cpu": {"shares": 512}}
    done = oci("update", "--resources", "-", "a", stdin=json.dumps(wanted).encode())
    assert done.code == 0, str(done)
    assert oci("update", "--pids-limit", "33", "a").code == 0
    stats = json.loads(oci("events", "--stats", "a").out)
    assert stats["type"] == "stats"
    assert stats["data"]["memory"]["usage"]["limit"] == 32 << 20
    assert stats["data"]["pids"]["limit"] == 33
    assert stats["data"]["pids"]["current"] == 1


def test_an_update_leaves_devices_as_they_are(oci, bundle, tmp_path):
    oci.create(bundle.runs("sleep", "1000"), "a")
    oci("start", "a")
    wanted = {"devices": [{"allow": False, "access": "rwm"}], "pids": {"limit": 20}}
    (tmp_path / "resources.json").write_text(json.dumps(wanted))
    assert oci("update", "--resources", str(tmp_path / "resources.json"), "a").code == 0
    done = oci("exec", "a", "sh", "-c", "echo x >/dev/null; cat /sys/fs/cgroup/pids/pids.max")
    assert (done.code, done.err) == (0, "")


def test_list_and_ps(oci, bundle):
    oci.create(bundle.runs("sleep", "1000"), "a")
    oci("start", "a")
    (entry,) = json.loads(oci("list", "--format", "json").out)
    assert entry["id"] == "a"
    assert entry["status"] == "running"
    assert entry["owner"] == "root"
    row = oci("list").lines[1].split()
    assert row[:3] == ["a", str(entry["pid"]), "running"]
    assert row[-1] == "root"
    assert json.loads(oci("ps", "--format", "json", "a").out) == [entry["pid"]]
    assert "sleep 1000" in oci("ps", "a").lines[1]


def test_features_are_what_this_kernel_has(oci):
    found = json.loads(oci("features").out)
    assert set(found["hooks"]) >= {"prestart", "poststop"}
    assert "pid" in found["linux"]["namespaces"]
    assert "rro" in found["mountOptions"]
    assert found["linux"]["seccomp"]["enabled"]


def test_a_damaged_record_does_not_hide_other_containers(oci, bundle):
    oci.create(bundle.runs("true"), "a")
    (oci.root / "b").mkdir()
    (oci.root / "b/state.json").touch()
    done = oci("list", "-q")
    assert (done.code, done.out) == (0, "a\n")
    assert f"{oci.root}/b/state.json is damaged" in done.err
    assert "is damaged" in oci("state", "b").err


def test_only_what_makes_groups_asks_for_systemd(oci, bundle):
    if Path("/run/systemd/system").is_dir():
        pytest.skip("needs a machine without systemd")
    oci.create(bundle.runs("sleep", "1000"), "a")
    for words in (
        ("state", "a"),
        ("start", "a"),
        ("kill", "a", "KILL"),
        ("delete", "--force", "a"),
    ):
        assert oci("--systemd-cgroup", *words).code == 0
    refused = oci("--systemd-cgroup", "run", "--bundle", str(bundle.path), "a")
    assert "systemd cgroup flag passed" in refused.err


def test_versions_and_help(oci):
    assert re.fullmatch(
        r"berth-oci version \d+\.\d+\.\d+\ncommit: \S+\nspec: 1\.3\.0\n", oci("--version").out
    )
    assert "create" in oci("--help").out
    assert "--bundle" in oci("create", "--help").out
    assert oci("nothing").code == 3
    assert oci("state").code == 1


def test_what_a_killed_create_leaves_is_removed_by_force(oci, bundle):
    runtime = find("sleep")
    slow = {"path": runtime, "args": ["sleep", "1000"]}
    bundle.edit(lambda spec: spec.update(hooks={"createRuntime": [slow]}))
    process = oci.background("create", "--bundle", str(bundle.path), "a", stdin=subprocess.DEVNULL)
    wait_for(lambda: oci("state", "a").code == 0 and oci.state("a")["pid"], "it is being made")
    children = kernel.descendants(process.pid)
    assert oci.status("a") == "creating"
    process.kill()
    process.wait()
    assert oci("delete", "--force", "a").code == 0
    for pid in children:
        if Path(f"/proc/{pid}/comm").exists() and "sleep" in Path(f"/proc/{pid}/comm").read_text():
            os.kill(pid, signal.SIGKILL)  # the hook itself, which nobody waits for any more
    assert oci("list", "-q").out == ""


def test_a_null_device_as_a_stream_is_the_containers(oci, bundle):
    bundle.shell("stat -L -c %d /proc/self/fd/0 /dev/null >/work/devices")
    bundle.edit(lambda spec: spec["root"].update(readonly=False))
    oci.create(bundle, "a")
    oci("start", "a")
    devices = bundle.root / "work/devices"
    wait_for(lambda: devices.exists() and len(devices.read_text().split()) == 2, "it ran")
    assert len(set(devices.read_text().split())) == 1


def test_a_null_device_as_a_stream_of_an_exec_is_the_containers(oci, bundle, tmp_path):
    oci.create(bundle.runs("sleep", "1000"), "a")
    oci("start", "a")
    seen = tmp_path / "seen"
    for _ in ("its own", "none"):
        with open(os.devnull) as null, seen.open("wb") as out:
            script = "stat -L -c %d:%i:%t:%T /proc/self/fd/0; rm -f /dev/null"
            line = ("exec", "a", "sh", "-c", script)
            assert oci.background(*line, stdin=null, stdout=out).wait() == 0
        device, number, *kind = seen.read_text().split()[0].split(":")
        host = os.stat(os.devnull)
        assert [int(device), int(number)] != [host.st_dev, host.st_ino]
        assert kind == ["1", "3"]


def test_it_calls_itself_as_it_is_called(oci, bundle, tmp_path):
    """Some know the runtime that it stands in the place of by name only."""
    (tmp_path / "runc").symlink_to(oci.program)
    oci.program = str(tmp_path / "runc")
    assert oci("--version").lines[0].startswith("runc version ")
    assert oci("--help").lines[1].strip().startswith("runc - Open Container Initiative")
    assert oci("list", "--help").lines[1].strip().startswith("runc list")
    done = oci.run(bundle.runs("/not-there"), "a")
    assert "runc run failed: " in done.err


def test_ps_takes_options_of_either_kind(oci, bundle):
    oci.create(bundle.runs("sleep", "1000"), "a")
    for arguments in (("-e", "-x"), ("ax",), ("-ax",)):
        assert oci("ps", "a", *arguments).lines[0].split() == [
            "PID",
            "TTY",
            "STAT",
            "TIME",
            "COMMAND",
        ]
    assert oci("ps", "a", "-aux").lines[0].split()[:4] == ["USER", "PID", "%CPU", "%MEM"]


def members(session):
    """Return the names of the processes of a session."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            name, _, rest = (folder / "stat").read_text().partition("(")[2].rpartition(")")
            if int(rest.split()[3]) == session:
                found.append(name)
    return found


def test_create_leaves_no_process_but_the_containers(oci, bundle):
    words = oci.command("create", "--bundle", str(bundle.runs("true").path), "a")
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, start_new_session=True)
    assert process.wait() == 0
    assert members(process.pid) == []
    assert oci.state("a")["status"] == "created"


def test_a_deputy_ends_with_the_command_that_is_killed(oci, bundle):
    config = bundle.path / "config.json"
    config.unlink()
    os.mkfifo(config)  # on which the command waits
    words = oci.command("run", "--bundle", str(bundle.path), "a")
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, start_new_session=True)
    wait_for(lambda: "berth-deputy" in members(process.pid), "the deputy")
    process.kill()
    process.wait()
    wait_for(lambda: members(process.pid) == [], "its end")
    assert oci("list", "-q").out == ""


@pytest.fixture
def waiting(oci, bundle, tmp_path):
    """A `create` that waits for its document, and its deputy's pid; what to call for it to go on."""
    config = bundle.path / "config.json"
    document = bundle.runs("true").path.joinpath("config.json").read_bytes()
    config.unlink()
    os.mkfifo(config)
    with (tmp_path / "errors").open("wb") as errors:
        words = oci.command("create", "--bundle", str(bundle.path), "a")
        null = subprocess.DEVNULL
        process = subprocess.Popen(words, stdin=null, stdout=null, stderr=errors)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    deputies = []

    def has_deputy():
        with contextlib.suppress(OSError):  # what the script runs ends soon
            deputies.extend(
                int(pid)
                for pid in children.read_text().split()
                if Path(f"/proc/{pid}/comm").read_text() == "berth-deputy\n"
            )
        return deputies

    wait_for(has_deputy, "the deputy")
    yield process, deputies[0], lambda text=document: config.write_bytes(text)
    process.kill()
    process.wait()


def test_a_deputy_that_is_killed_is_told_of(waiting, tmp_path):
    process, deputy, go_on = waiting
    os.kill(deputy, signal.SIGKILL)
    wait_for(lambda: has_ended(deputy), "its end")
    go_on()
    assert process.wait() == 1
    assert (
        "the process that makes the container's first one was killed"
        in (tmp_path / "errors").read_text()
    )


@pytest.mark.parametrize(("document", "code"), [((), 0), ((b"{",), 1)])
def test_a_deputy_that_somebody_has_stopped_goes_on_with_its_command(waiting, document, code):
    process, deputy, go_on = waiting
    os.kill(deputy, signal.SIGSTOP)
    go_on(*document)
    assert process.wait(timeout=60) == code
    assert has_ended(deputy)


def test_a_deputy_whose_command_was_killed_says_nothing(oci, waiting, tmp_path):
    process, deputy, go_on = waiting
    os.kill(deputy, signal.SIGSTOP)
    go_on()
    status = Path(f"/proc/{process.pid}/stat")
    wait_for((oci.root / "a/start.new").exists, "the plan")
    wait_for(lambda: status.read_text().rpartition(")")[2].split()[0] == "S", "it was told")
    process.kill()
    process.wait()
    os.kill(deputy, signal.SIGCONT)
    wait_for(lambda: has_ended(deputy), "its end")
    assert (tmp_path / "errors").read_text() == ""
    assert oci("delete", "--force", "a").code == 0


@pytest.mark.parametrize("fd", [0, 1, 2])
def test_a_stream_that_is_closed_stays_closed(oci, bundle, tmp_path, fd):
    bundle.edit(lambda spec: spec["root"].update(readonly=False))
    bundle.shell(
        "for fd in 0 1 2; do test -e /proc/self/fd/$fd && echo $fd; done > /tmp/open; true"
    )
    words = oci.command("run", "--bundle", str(bundle.path), "a")
    done = run("sh", "-c", f'exec "$@" {fd}>&-', "sh", *words)
    assert done.code == 0, str(done)
    inside = (bundle.root / "tmp/open").read_text().split()
    assert set(inside) | {"1"} == {"0", "1", "2"} - {str(fd)} | {"1"}  # where the shell writes


def test_a_command_that_fails_leaves_no_process(oci, bundle):
    words = oci.command("create", "--bundle", str(bundle.path / "nowhere"), "a")
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL, start_new_session=True)
    assert process.wait() == 1
    wait_for(lambda: members(process.pid) == [], "the end of all that it started")


@pytest.mark.parametrize(
    "words", [("sh", "-c", "read x; : npm run dev"), ("sh", "-c", "read x", "run")]
)
def test_words_of_a_program_start_no_deputy(oci, bundle, words):
    oci.create(bundle.runs("sleep", "1000"), "a")
    oci("start", "a")
    process = oci.background("exec", "a", *words, stdin=subprocess.PIPE)
    wait_for(lambda: len(json.loads(oci("ps", "--format", "json", "a").out)) == 2, "it reads")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.communicate(b"\n")
    assert len(children) == 1


def test_a_deputy_does_not_wait_for_ever(oci, bundle, tmp_path):
    unshare = tmp_path / "unshare"
    unshare.write_text(f'#!/bin/sh\nkill -STOP $PPID\nexec {find("unshare")} "$@"\n')
    unshare.chmod(0o755)
    process = subprocess.Popen(
        oci.command("create", "--bundle", str(bundle.runs("true").path), "a"),
        env={**os.environ, "PATH": f"{tmp_path}:{PATH}"},
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    wait_for(lambda: children.read_text().split(), "the deputy's start")
    (deputy,) = children.read_text().split()
    wait_for(lambda: has_ended(deputy), "its end")
    process.send_signal(signal.SIGCONT)
    assert process.wait() == 0
    assert oci.status("a") == "created"


def test_what_the_script_says_of_a_deputy_is_not_believed(oci, bundle):
    other = subprocess.Popen(["sleep", "1000"])
    try:
        words = [sys.executable, "-m", "berth.oci_cli", *oci.command("run", "--bundle")[1:]]
        environment = {"BERTH_OCI_DEPUTY": "1 name"}  # which is no child
        done = run(*words, str(bundle.runs("echo", "here").path), "a", env=environment)
        assert (done.out, done.code) == ("here\n", 0)
        environment = {"BERTH_OCI_DEPUTY": f"{other.pid} name"}
        assert run(*words, str(bundle.path / "nowhere"), "a", env=environment).code == 1
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()
