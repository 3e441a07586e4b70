"""Podman and dockerd as real callers of berth-oci, in runc's place."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support import criu
from support.programs import PATH, find, run
from support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.programs import Outcome

    Caller = Callable[..., Outcome]

pytestmark = [pytest.mark.peers, pytest.mark.berth_only]
WITH_CRIU = f"{criu.FETCHED}:{PATH}"
# Limits that need no CAP_SYS_RESOURCE.
PODMAN_CONFIGURATION = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
"""


@pytest.fixture(scope="module")
def podman(berth_oci: str, busybox_tar: bytes) -> Iterator[Caller]:
    """Podman with roots of its own that runs everything by berth-oci, with the image `busybox`."""
    program = find("podman")
    with tempfile.TemporaryDirectory(prefix="bp-") as base:  # podman takes short run roots only
        configuration = Path(base, "containers.conf")
        configuration.write_text(PODMAN_CONFIGURATION)
        command = (
            *(program, "--runtime", berth_oci, "--cgroup-manager", "cgroupfs"),
            *("--root", f"{base}/root", "--runroot", f"{base}/run", "--tmpdir", f"{base}/tmp"),
            *("--storage-driver", "vfs", "--events-backend", "none"),
        )

        def call(*args: str, **options: object) -> Outcome:
            environment = {"CONTAINERS_CONF": str(configuration), "PATH": WITH_CRIU}
            # There conmon leaves a file by the name "oom" when memory ran out.
            return run(*command, *args, env=environment, cwd=base, **options)

        done = call("import", "-c", "ENV PATH=/bin", "-", "busybox", stdin=busybox_tar)
        assert done.code == 0, str(done)
        yield call
        call("rm", "--all", "--force", "--time", "0")
        run("umount", "-R", "-l", f"{base}/root")


@pytest.fixture(scope="module")
def docker(berth_oci: str, busybox_tar: bytes) -> Iterator[Caller]:
    """Docker with a dockerd of its own, whose default runtime is berth-oci, with the image `busybox`."""
    program, client, ip = find("dockerd"), find("docker"), find("ip")
    with tempfile.TemporaryDirectory(prefix="bd-") as base:
        netns = os.path.basename(base)
        run(ip, "netns", "add", netns, check=True)
        run(ip, "-n", netns, "link", "set", "lo", "up", check=True)
        with open(f"{base}/log", "wb") as log:
            daemon = subprocess.Popen(
                [
                    *("nsenter", f"--net=/run/netns/{netns}", program),
                    *("-H", f"unix://{base}/docker.sock", "--data-root", f"{base}/data"),
                    *("--exec-root", f"{base}/exec", "--pidfile", f"{base}/pid"),
                    *("--add-runtime", f"berth={berth_oci}", "--default-runtime", "berth"),
                    "--experimental",  # checkpoints
                ],
                stdout=log,
                stderr=log,
                env={**os.environ, "PATH": WITH_CRIU},
                start_new_session=True,
            )

        def call(*args: str, **options: object) -> Outcome:
            return run(client, "-H", f"unix://{base}/docker.sock", *args, **options)

        try:
            wait_for(lambda: call("version").code == 0, "dockerd answers", timeout_s=60)
            done = call("import", "-c", "ENV PATH=/bin", "-", "busybox", stdin=busybox_tar)
            assert done.code == 0, str(done)
            yield call
            if ids := call("ps", "-aq").lines:
                call("rm", "-f", *ids)
        finally:
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(60)
            run(ip, "netns", "delete", netns)
            run("umount", "-R", "-l", f"{base}/data")
            shutil.rmtree(f"{base}/data", ignore_errors=True)


@pytest.fixture(params=["podman", "docker"])
def caller(request: pytest.FixtureRequest) -> Iterator[Caller]:
    """Each of them; afterwards no container is left."""
    call = request.getfixturevalue(request.param)
    yield call
    if ids := call("ps", "-aq").lines:
        call("rm", "-f", *ids)


RUN = ("run", "--rm", "--network", "none")


def test_a_container_runs_with_its_streams_and_exit_code(caller):
    done = caller(*RUN, "-i", "busybox", "sh", "-c", "cat; echo bad >&2; exit 7", stdin=b"through")
    assert (done.code, done.out, done.err) == (7, "through", "bad\n")


@pytest.mark.parametrize(("program", "code"), [("nothing", 127), ("/etc/passwd", 126)])
def test_a_program_that_cannot_run_is_told_by_the_code(caller, program, code):
    assert caller(*RUN, "busybox", program).code == code


def test_a_terminal_is_there_when_asked_for(caller):
    done = caller(*RUN, "-t", "busybox", "sh", "-c", "tty; exit 3")
    assert (done.code, done.out.strip()) == (3, "/dev/pts/0"), str(done)


def test_a_container_is_limited_and_its_use_is_seen(caller):
    name = caller(
        *("run", "-d", "--network", "none", "--memory", "40m", "--pids-limit", "30"),
        *("busybox", "sleep", "1000"),
    ).out.strip()
    script = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/pids/pids.max"
    done = caller("exec", name, "sh", "-c", script)
    if "No such file" in done.err:
        pytest.skip("needs cgroup v1")
    assert done.lines == [str(40 << 20), "30"], str(done)
    stats = caller("stats", "--no-stream", "--format", "{{.MemUsage}}", name)
    assert "41.94MB" in stats.out or "40MiB" in stats.out, str(stats)


def test_out_of_memory_ends_it(caller):
    script = "x=a; while true; do x=$x$x; done"
    limits = ("--memory", "20m", "--memory-swap", "20m")
    assert caller(*RUN, *limits, "busybox", "sh", "-c", script).code == 137


def test_exec_enters_with_user_environment_and_directory(caller):
    name = caller("run", "-d", "--network", "none", "busybox", "sleep", "1000").out.strip()
    done = caller(
        *("exec", "-u", "1000:50", "-w", "/tmp", "-e", "A=b", name, "sh", "-c"),
        "id -u; id -g; pwd; echo $A; exit 9",
    )
    assert (done.code, done.lines) == (9, ["1000", "50", "/tmp", "b"])
    assert caller("exec", "-t", name, "tty").out.strip().startswith("/dev/pts/")
    assert caller("exec", "-i", name, "cat", stdin=b"through").out == "through"
    assert caller("exec", name, "nothing").code in (126, 127)


def test_pause_stop_start_and_remove(caller):
    script = "trap 'exit 0' TERM; while true; do sleep 0.1; done"
    name = caller("run", "-d", "--network", "none", "busybox", "sh", "-c", script).out.strip()

    def state():
        return json.loads(caller("inspect", name).out)[0]["State"]

    assert caller("pause", name).code == 0
    assert state()["Status"] == "paused"
    assert caller("unpause", name).code == 0
    assert state()["Status"] == "running"
    assert caller("stop", "-t", "20", name).code == 0
    assert (state()["Status"], state()["ExitCode"]) == ("exited", 0)
    assert caller("start", name).code == 0
    assert caller("top", name).code == 0
    assert caller("kill", name).code == 0
    wait_for(lambda: state()["Status"] == "exited", "it ended")
    assert state()["ExitCode"] == 137
    assert caller("rm", name).code == 0


def test_restrictions_hold(caller):
    options = ("--read-only", "--user", "1000", "--cap-drop", "all")
    script = "touch /x; grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status | cut -f2"
    done = caller(
        *RUN, *options, "--security-opt", "no-new-privileges", "busybox", "sh", "-c", script
    )
    assert done.lines == ["0000000000000000", "1", "2"], str(done)
    assert "Read-only file system" in done.err


def test_volumes_and_tmpfs_are_mounted(caller, tmp_path):
    (tmp_path / "file").write_text("text\n")
    options = ("-v", f"{tmp_path}:/v:ro", "--tmpfs", "/t")
    script = "cat /v/file; touch /v/x; touch /t/x && echo made"
    done = caller(*RUN, *options, "busybox", "sh", "-c", script)
    assert done.lines == ["text", "made"], str(done)
    assert "Read-only file system" in done.err


def test_namespaces_of_another_are_shared(caller):
    name = caller("run", "-d", "--network", "none", "busybox", "sleep", "1000").out.strip()
    spaces = "readlink /proc/self/ns/net; readlink /proc/self/ns/ipc; ps | grep -c 'sleep 1000'"
    own = caller("exec", name, "sh", "-c", spaces).lines
    shared = (
        *("run", "--rm", f"--network=container:{name}", f"--pid=container:{name}"),
        *("--ipc=host", "busybox", "sh", "-c", spaces),
    )
    other = caller(*shared)
    assert other.lines[0] == own[0], str(other)
    assert other.lines[1] == os.readlink("/proc/self/ns/ipc")
    assert int(other.lines[2]) >= 1


def test_a_privileged_container_has_the_machines_devices(caller):
    done = caller(*RUN, "--privileged", "busybox", "sh", "-c", "ls /dev | wc -l")
    assert done.code == 0, str(done)
    assert int(done.out) > 20


def test_a_network_is_there(docker):
    done = docker("run", "--rm", "busybox", "sh", "-c", "ip -o -4 addr show eth0")
    assert "172." in done.out, str(done)


def test_limits_are_changed_while_it_runs(docker):
    name = docker(
        "run", "-d", "--network", "none", "-m", "40m", "busybox", "sleep", "9"
    ).out.strip()
    done = docker("update", "--memory", "50m", "--memory-swap", "50m", name)
    assert done.code == 0, str(done)
    shown = docker("exec", name, "cat", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
    if "No such file" in shown.err:
        pytest.skip("needs cgroup v1")
    assert int(shown.out) == 50 << 20
    docker("rm", "-f", name)


def counted(call: Caller) -> int:
    """Return how far the container has counted."""
    return int(call("logs", "--tail", "1", "counting").out.split()[0])


def test_a_container_goes_on_from_a_checkpoint(request, caller):
    criu.path()  # skips where there is none that works
    script = "i=0; while true; do i=$((i + 1)); echo $i; sleep 0.1; done"
    done = caller(
        "run", "-d", "--name", "counting", "--network", "none", "busybox", "sh", "-c", script
    )
    assert done.code == 0, str(done)
    wait_for(lambda: caller("logs", "counting").lines[3:], "it counts")
    if request.node.callspec.params["caller"] == "podman":
        making, going_on = (
            ("container", "checkpoint", "counting"),
            ("container", "restore", "counting"),
        )
    else:
        making = ("checkpoint", "create", "counting", "one")
        going_on = ("start", "--checkpoint", "one", "counting")
    done = caller(*making)
    assert done.code == 0, str(done)
    wait_for(lambda: caller("ps", "-q").out == "", "it has ended")
    at = counted(caller)
    tries: list[Outcome] = []

    def is_settled() -> bool:
        tries.append(caller(*going_on))
        return "already exists" not in tries[-1].err

    # containerd collects what a checkpoint has left there in its own time, and dockerd puts the same there.
    wait_for(is_settled, "containerd has forgotten the checkpoint")
    assert tries[-1].code == 0, str(tries[-1])
    wait_for(lambda: counted(caller) > at + 1, "it goes on")
    assert counted(caller) < at + 1000
