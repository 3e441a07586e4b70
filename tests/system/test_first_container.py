"""A container through every layer, by the real docker CLI."""

from __future__ import annotations

import os
import signal
import subprocess

import docker as docker_py
import pexpect
import pytest

from tests.system.conftest import wait_until


def test_the_host_image_runs_and_hides_secrets(engine):
    done = engine.docker("run", "--rm", "host", "sh", "-c", "echo $$; cat /etc/shadow")
    assert done.stdout == b"1\n"
    assert b"No such file" in done.stderr
    assert done.returncode == 1


def test_the_host_image_cannot_change_the_host(engine):
    engine.out(
        "run", "--rm", "host", "sh", "-c", "rm -rf /etc/hostname /usr/share/doc; touch /made"
    )
    assert not os.path.exists("/made")
    assert os.path.exists("/usr/share/doc")


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["true"], 0),
        (["sh", "-c", "exit 7"], 7),
        (["nope"], 127),
        (["/etc/passwd"], 126),
        (["sh", "-c", "sh -c 'kill -9 $$'; exit $?"], 137),
    ],
)
def test_exit_codes_are_dockers(engine, busybox, command, code):
    assert engine.docker("run", "--rm", busybox, *command).returncode == code


def test_an_unknown_image_is_refused_with_125(engine):
    done = engine.docker("run", "--rm", "--pull=never", "missing", "true")
    assert done.returncode == 125
    assert b"No such image: missing:latest" in done.stderr


def test_a_process_sees_a_world_of_its_own(engine, busybox):
    script = "id -u; cat /proc/sys/kernel/hostname; ls /proc/self/fd | head -3; grep CapEff /proc/self/status"
    out = engine.out("run", "--rm", "-h", "box", busybox, "sh", "-c", script).split()
    assert out == ["0", "box", "0", "1", "2", "CapEff:", "00000000a80425fb"]


def test_nothing_of_the_environment_is_inherited(engine, busybox):
    out = engine.out("run", "--rm", "-e", "A=b", busybox, "env").split("\n")
    names = {line.partition("=")[0] for line in out if line}
    assert names == {"PATH", "HOSTNAME", "HOME", "A"}
    assert "A=b" in out


def test_namespaces_differ_from_the_hosts(engine, busybox):
    script = "for n in mnt pid net uts ipc cgroup; do ls -l /proc/self/ns/$n; done"
    out = engine.out("run", "--rm", busybox, "sh", "-c", script)
    for name in ("mnt", "pid", "net", "uts", "ipc", "cgroup"):
        assert f"{name}:[" in out
        assert os.readlink(f"/proc/self/ns/{name}") not in out


def test_memory_is_limited_and_an_oom_kill_is_told(engine, busybox):
    script = "cat /sys/fs/cgroup/memory*/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null; true"
    assert engine.out("run", "--rm", "-m", "32m", busybox, "sh", "-c", script).split() == [
        "33554432"
    ]
    eat = ["sh", "-c", "x=xxxxxxxx; while true; do x=$x$x; done"]
    done = engine.docker("run", "--name", "eater", "-m", "16m", busybox, *eat)
    assert done.returncode == 137
    assert engine.out("inspect", "-f", "{{.State.OOMKilled}}", "eater") == "true\n"


def test_too_little_memory_is_refused(engine, busybox):
    done = engine.docker("run", "--rm", "-m", "1m", busybox, "true")
    assert done.returncode == 125
    assert b"Minimum memory limit allowed is 6MB" in done.stderr


def test_pids_are_limited(engine, busybox):
    script = "for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; true"
    done = engine.docker("run", "--rm", "--pids-limit", "4", busybox, "sh", "-c", script)
    assert b"can't fork" in done.stderr


def test_user_and_groups_come_from_the_image(engine, busybox):
    assert engine.out("run", "--rm", "-u", "me", busybox, "id") == (
        "uid=1000(me) gid=1000(me) groups=44(extra)\n"
    )
    done = engine.docker("run", "--rm", "-u", "stranger", busybox, "id")
    assert done.returncode == 125 or done.returncode == 126
    assert b"unable to find user stranger: no matching entries in passwd file" in done.stderr


def test_a_bind_mount_reads_and_writes_the_host(engine, busybox, tmp_path):
    engine.out("run", "--rm", "-v", f"{tmp_path}:/at", busybox, "sh", "-c", "echo hi > /at/file")
    assert (tmp_path / "file").read_text() == "hi\n"
    done = engine.docker(
        "run", "--rm", "-v", f"{tmp_path}:/at:ro", busybox, "sh", "-c", "echo > /at/x"
    )
    assert b"Read-only file system" in done.stderr


def test_a_read_only_root_cannot_be_written(engine, busybox):
    done = engine.docker("run", "--rm", "--read-only", busybox, "sh", "-c", "echo > /x")
    assert b"Read-only file system" in done.stderr


def test_ten_megabytes_pass_through_cat_unchanged(engine, busybox):
    data = os.urandom(10 << 20)
    assert engine.docker("run", "--rm", "-i", busybox, "cat", stdin=data).stdout == data


def test_a_terminal_has_its_size_and_passes_control_c_on(engine, busybox):
    child = pexpect.spawn(
        "docker",
        ["-H", engine.host, "run", "-it", "--rm", busybox, "sh"],
        timeout=20,
        dimensions=(33, 77),
    )
    child.expect("# ")
    child.sendline("stty size")
    child.expect("33 77")
    child.sendline("echo be''gun; sleep 100")
    child.expect("begun")
    child.sendcontrol("c")
    child.sendline("exit 5")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 5


def test_a_detached_terminal_can_be_attached_again(engine, busybox):
    args = ["-H", engine.host, "run", "-it", "--name", "again", busybox, "sh"]
    first = pexpect.spawn("docker", args, timeout=20)
    first.expect("# ")
    first.send("\x10\x11")
    first.expect(pexpect.EOF)
    second = pexpect.spawn("docker", ["-H", engine.host, "attach", "again"], timeout=20)
    second.sendline("exit 6")
    second.expect(pexpect.EOF)
    second.close()
    assert second.exitstatus == 6


def test_exec_joins_the_container(engine, busybox):
    engine.out("run", "-d", "--name", "home", busybox, "sleep", "100")
    assert "sleep 100" in engine.out("exec", "home", "ps")
    assert engine.docker("exec", "-i", "home", "cat", stdin=b"in\n").stdout == b"in\n"
    assert engine.docker("exec", "home", "sh", "-c", "exit 9").returncode == 9
    assert engine.docker("exec", "home", "nope").returncode == 127


def test_logs_are_what_was_written(engine, busybox):
    engine.out(
        "run", "--name", "talker", busybox, "sh", "-c", "echo out; echo err >&2; echo -n end"
    )
    done = engine.docker("logs", "talker")
    assert done.stdout == b"out\nend"
    assert done.stderr == b"err\n"
    assert engine.docker("logs", "--tail", "1", "talker").stdout == b"end"


def test_stop_kill_pause_rename_and_wait(engine, busybox):
    engine.out(
        "run",
        "-d",
        "--name",
        "one",
        busybox,
        "sh",
        "-c",
        "trap 'exit 3' TERM; while true; do sleep 0.1; done",
    )
    engine.out("pause", "one")
    assert "(Paused)" in engine.out("ps")
    engine.out("unpause", "one")
    engine.out("rename", "one", "two")
    engine.out("stop", "two")
    assert engine.out("wait", "two") == "3\n"
    engine.out("start", "two")
    engine.out("kill", "two")
    assert engine.out("wait", "two") == "137\n"


def test_a_taken_name_is_refused(engine, busybox):
    engine.out("create", "--name", "mine", busybox, "true")
    done = engine.docker("create", "--name", "mine", busybox, "true")
    assert done.returncode == 1 or done.returncode == 125
    assert b'The container name "/mine" is already in use' in done.stderr


def test_a_failing_container_is_restarted_as_often_as_asked(engine, busybox):
    engine.out(
        "run", "-d", "--name", "again", "--restart", "on-failure:2", busybox, "sh", "-c", "exit 1"
    )
    wait_until(
        lambda: (
            engine.out("inspect", "-f", "{{.RestartCount}} {{.State.Status}}", "again")
            == "2 exited\n"
        ),
        "two restarts",
    )


def test_an_archive_of_docker_save_loads(engine, busybox, tmp_path):
    layout = tmp_path / "image"
    config = ["umoci", "config", "--image", f"{layout}:v1", "--config.cmd", "/bin/hello"]
    rootfs = tmp_path / "bundle"
    for command in (
        ["umoci", "init", "--layout", str(layout)],
        ["umoci", "new", "--image", f"{layout}:v1"],
        ["umoci", "unpack", "--image", f"{layout}:v1", str(rootfs)],
    ):
        subprocess.run(command, check=True, capture_output=True)
    (rootfs / "rootfs/bin").mkdir()
    busybox_path = subprocess.run(
        ["which", "busybox"], check=True, capture_output=True
    ).stdout.strip()
    (rootfs / "rootfs/bin/busybox").write_bytes(open(busybox_path, "rb").read())
    (rootfs / "rootfs/bin/busybox").chmod(0o755)
    (rootfs / "rootfs/bin/hello").symlink_to("busybox")
    subprocess.run(
        ["umoci", "repack", "--image", f"{layout}:v1", str(rootfs)], check=True, capture_output=True
    )
    subprocess.run(config, check=True, capture_output=True)
    for kind in ("docker-archive", "oci-archive"):
        archive = tmp_path / f"{kind}.tar"
        target = f"{kind}:{archive}:loaded/{kind}:v1"
        subprocess.run(
            ["skopeo", "copy", f"oci:{layout}:v1", target], check=True, capture_output=True
        )
        assert f"loaded/{kind}:v1" in engine.out("load", "-i", str(archive))
        done = engine.docker("run", "--rm", f"loaded/{kind}:v1", "/bin/busybox", "echo", "hello")
        assert done.stdout == b"hello\n"
        engine.out("rmi", f"loaded/{kind}:v1")


def test_a_broken_archive_is_refused_and_leaves_nothing(engine, tmp_path):
    broken = tmp_path / "broken.tar"
    broken.write_bytes(b"this is no archive" * 1000)
    done = engine.docker("load", "-i", str(broken))
    assert done.returncode == 1
    assert b"invalid tar header" in done.stderr
    assert not list((engine.base / "data/content/ingest").iterdir())


def test_version_negotiation(engine):
    for version in ("1.24", "1.44"):
        env = {**os.environ, "DOCKER_API_VERSION": version}
        command = ["docker", "-H", engine.host, "ps"]
        assert subprocess.run(command, env=env, capture_output=True, check=False).returncode == 0


def test_docker_py_runs_a_container(engine, busybox):
    client = docker_py.DockerClient(base_url=engine.host)
    try:
        assert client.containers.run(busybox, ["echo", "hello"], remove=True) == b"hello\n"
        container = client.containers.run(busybox, ["sleep", "100"], detach=True)
        assert container.exec_run(["echo", "in"]).output == b"in\n"
        container.kill()
        assert container.wait()["StatusCode"] == 137
        container.remove()
    finally:
        client.close()


def test_berthd_may_be_killed_while_containers_and_their_clients_go_on(engine, busybox):
    script = "i=0; while [ $i -lt 30 ]; do echo $i; i=$((i+1)); sleep 0.1; done; exit 4"
    command = ["docker", "-H", engine.host, "run", "--name", "lasting", busybox, "sh", "-c", script]
    client = subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0)
    assert client.stdout is not None
    assert client.stdout.readline() == b"0\n"
    wait_until(lambda: "Up " in engine.out("ps", "-f", "name=lasting"), "the start to be answered")
    engine.stop(signal.SIGKILL)
    engine.start()
    assert "Up " in engine.out("ps", "-f", "name=lasting")
    out, _ = client.communicate(timeout=30)
    expected = b"".join(b"%d\n" % i for i in range(1, 30))
    assert out == expected
    assert client.returncode == 4
    wait_until(lambda: "Exited (4)" in engine.out("ps", "-a"), "the exit to be recorded")
    assert engine.docker("logs", "lasting").stdout == b"0\n" + expected


def test_a_container_whose_monitor_was_killed_is_reported_and_cleaned_up(engine, busybox):
    id_ = engine.out("run", "-d", "--name", "orphan", busybox, "sleep", "1000").strip()
    import json

    task = json.loads((engine.base / f"exec/containers/{id_}/task.json").read_text())
    os.kill(task["monitor"], signal.SIGKILL)
    wait_until(lambda: "Dead" in engine.out("ps", "-a"), "the death to be noticed")
    assert "monitor died" in engine.out("inspect", "-f", "{{.State.Error}}", "orphan")
    wait_until(lambda: not os.path.exists(f"/proc/{task['pid']}"), "its process to be killed")


def test_after_a_reboot_containers_are_exited_and_policies_apply(engine, busybox):
    engine.out("run", "-d", "--name", "plain", busybox, "sleep", "1000")
    engine.out("run", "-d", "--name", "always", "--restart", "always", busybox, "sleep", "1000")
    pids = engine.out("inspect", "-f", "{{.State.Pid}}", "plain", "always").split()
    engine.stop(signal.SIGKILL)
    for pid in pids:
        os.kill(int(pid), signal.SIGKILL)
    for folder in (engine.base / "exec/containers").iterdir():
        wait_until(lambda folder=folder: (folder / "exit.json").exists(), "the monitors to end")
    subprocess.run(["rm", "-rf", str(engine.base / "exec")], check=True)
    engine.start()
    assert "Exited (255)" in engine.out("ps", "-a", "-f", "name=plain")
    assert "Up " in engine.out("ps", "-f", "name=always")
