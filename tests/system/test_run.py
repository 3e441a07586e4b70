"""`run`, flag by flag, through the docker CLI and berth's own."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support.engine import EngineProcess
    from support.programs import Outcome

    Cli = Callable[..., Outcome]
    Inside = Callable[..., str]

RUN = ("run", "--rm", "--network", "none")


def test_run_prints_what_the_process_prints(cli: Cli) -> None:
    done = cli(*RUN, "busybox", "sh", "-c", "echo out; echo err >&2")
    assert (done.code, done.out, done.err) == (0, "out\n", "err\n")


def test_run_without_a_command_takes_the_images(cli: Cli) -> None:
    done = cli(*RUN, "-i", "busybox", stdin=b"echo $((6*7))\n")
    assert (done.code, done.out) == (0, "42\n")


@pytest.mark.berth_only
def test_run_of_the_built_in_image_runs_a_program_of_this_machine(cli: Cli) -> None:
    done = cli(*RUN, "host", "sh", "-c", "echo $$; cat /etc/os-release | head -n 1")
    assert done.code == 0, str(done)
    assert done.lines[0] == "1"
    assert done.lines[1] == first_line("/etc/os-release")


def first_line(path: str) -> str:
    with open(path) as file:
        return file.readline().rstrip("\n")


@pytest.mark.berth_only
def test_what_a_host_container_writes_does_not_reach_the_machine(
    cli: Cli, engine: EngineProcess
) -> None:
    mark = f"/etc/berth-mark-{engine.pid}"
    done = cli(*RUN, "host", "sh", "-c", f"echo x > {mark} && cat {mark}")
    assert (done.code, done.out) == (0, "x\n")
    assert not os.path.exists(mark)


# Names and environment


def test_the_name_is_kept_and_found(cli: Cli, engine: EngineProcess) -> None:
    done = cli("run", "-d", "--name", "cook", "--network", "none", "busybox", "sleep", "60")
    assert done.code == 0, str(done)
    assert engine.inspect("cook")["Id"] == done.out.strip()
    assert len(done.out.strip()) == 64


def test_the_hostname_is_the_short_id_unless_said(cli: Cli) -> None:
    said = cli(*RUN, "-h", "kitchen", "busybox", "sh", "-c", "hostname; cat /etc/hostname")
    assert said.lines == ["kitchen", "kitchen"]
    default = cli(*RUN, "busybox", "hostname")
    assert len(default.out.strip()) == 12


def test_the_environment_is_the_images_and_the_flags(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "env").write_text("FROM_FILE=yes\n# a comment\n\nSPACE=a b\nHOME=/elsewhere\n")
    done = cli(
        *(*RUN, "-h", "h", "-e", "A=1", "--env", "B=x=y", "--env-file", str(tmp_path / "env")),
        *("busybox", "env"),
    )
    assert sorted(done.lines) == [
        "A=1",
        "B=x=y",
        "FROM_FILE=yes",
        "HOME=/elsewhere",
        "HOSTNAME=h",
        "PATH=/bin",
        "SPACE=a b",
    ]


def test_an_env_without_a_value_takes_the_callers(cli: Cli) -> None:
    done = cli(*RUN, "-e", "GIVEN", "-e", "ABSENT", "busybox", "env", env={"GIVEN": "here"})
    assert "GIVEN=here" in done.lines
    assert not any(line.startswith("ABSENT") for line in done.lines)


def test_labels_are_kept(cli: Cli, engine: EngineProcess) -> None:
    cli("create", "--name", "labelled", "-l", "a=1", "--label", "b", "busybox", "true")
    assert engine.inspect("labelled")["Config"]["Labels"] == {"a": "1", "b": ""}


# User, directory, entry point


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("alice", "1000 1000 1000 50"),
        ("1000", "1000 1000 1000 50"),
        ("alice:wheel", "1000 10 10"),
        ("12345", "12345 0 0"),
        ("1000:2000", "1000 2000 2000"),
    ],
)
def test_the_user_is_resolved_in_the_image(cli: Cli, user: str, expected: str) -> None:
    done = cli(*RUN, "-u", user, "busybox", "sh", "-c", "echo $(id -u) $(id -g) $(id -G)")
    assert done.out.strip() == expected


def test_home_follows_the_user(inside: Inside) -> None:
    assert inside("echo $HOME") == "/root"
    assert inside("echo $HOME", "-u", "alice") == "/home/alice"


def test_groups_can_be_added(cli: Cli) -> None:
    done = cli(*RUN, "--group-add", "wheel", "--group-add", "77", "busybox", "id", "-G")
    assert set(done.out.split()) == {"0", "10", "77"}


def test_the_working_directory_is_made_when_missing(cli: Cli) -> None:
    assert cli(*RUN, "-w", "/made/here", "busybox", "pwd").out == "/made/here\n"


def test_the_entry_point_comes_before_the_command(cli: Cli) -> None:
    done = cli(*RUN, "--entrypoint", "echo", "busybox", "a", "b")
    assert (done.code, done.out) == (0, "a b\n")


@pytest.mark.berth_only
def test_init_is_process_1_and_forwards_signals(cli: Cli, engine: EngineProcess) -> None:
    done = cli(*RUN, "--init", "busybox", "sh", "-c", "echo $$; readlink /proc/1/exe; exit 7")
    assert done.code == 7
    assert done.lines[0] != "1"
    cli("run", "-d", "--init", "--name", "initial", "--network", "none", "busybox", "sleep", "600")
    assert cli("stop", "-t", "10", "initial").code == 0
    assert engine.inspect("initial")["State"]["ExitCode"] == 143


# Mounts


def test_a_bind_is_writable_unless_ro(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    done = cli(
        *RUN, "-v", f"{tmp_path}:/data", "busybox", "sh", "-c", "cat /data/file; echo > /data/new"
    )
    assert (done.code, done.out) == (0, "content")
    assert (tmp_path / "new").exists()
    refused = cli(*RUN, "-v", f"{tmp_path}:/data:ro", "busybox", "touch", "/data/x")
    assert refused.code == 1
    assert "Read-only file system" in refused.err
    assert not (tmp_path / "x").exists()


def test_mount_takes_binds_tmpfs_and_volumes(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("b")
    done = cli(
        *RUN,
        *("--mount", f"type=bind,source={tmp_path},target=/b,readonly"),
        *("--mount", "type=tmpfs,target=/t,tmpfs-size=1048576"),
        *("--mount", "type=volume,source=v-mount,target=/v"),
        *(
            "busybox",
            "sh",
            "-c",
            "cat /b/f; grep -c ' /t tmpfs.*size=1024k' /proc/mounts; touch /v/x",
        ),
    )
    assert (done.code, done.out) == (0, "b1\n"), str(done)
    missing = cli(*RUN, "--mount", "type=bind,source=/no/such,target=/x", "busybox", "true")
    assert missing.code == 125
    assert "bind source path does not exist: /no/such" in missing.err


def test_a_named_volume_outlives_its_containers(cli: Cli) -> None:
    assert cli(*RUN, "-v", "keep:/v", "busybox", "sh", "-c", "echo kept > /v/f").code == 0
    assert cli(*RUN, "-v", "keep:/v", "busybox", "cat", "/v/f").out == "kept\n"


def test_tmpfs_is_empty_and_limited(cli: Cli) -> None:
    done = cli(
        *(*RUN, "--tmpfs", "/t:size=64k,mode=700", "busybox", "sh", "-c"),
        "ls /t; stat -c %a /t; dd if=/dev/zero of=/t/f bs=1k count=100 2>/dev/null || echo full",
    )
    assert done.lines == ["700", "full"]


def test_a_read_only_root_cannot_be_written_but_tmpfs_can(cli: Cli) -> None:
    done = cli(
        *(*RUN, "--read-only", "--tmpfs", "/t", "busybox", "sh", "-c"),
        "touch /x 2>/dev/null || echo ro; touch /t/x && touch /dev/shm/x && echo rw",
    )
    assert done.lines == ["ro", "rw"]


# Limits

LIMIT = "for f in {}; do test -r $f && cat $f && break; done"


def cgroup_file(v2: str, v1: str) -> str:
    return LIMIT.format(f"/sys/fs/cgroup/{v2} /sys/fs/cgroup/{v1}")


def test_memory_and_swap_are_limited(cli: Cli, engine: EngineProcess) -> None:
    script = cgroup_file("memory.max", "memory/memory.limit_in_bytes")
    done = cli(*RUN, "-m", "64m", "--memory-swap", "64m", "busybox", "sh", "-c", script)
    assert done.out.strip() == str(64 << 20), str(done)
    cli("create", "--name", "limited", "-m", "64m", "busybox", "true")
    host = engine.inspect("limited")["HostConfig"]
    assert (host["Memory"], host["MemorySwap"]) == (64 << 20, 128 << 20)


def test_cpus_cpuset_and_shares_are_limited(cli: Cli, inside: Inside) -> None:
    quota = cgroup_file("cpu.max", "cpu/cpu.cfs_quota_us")
    done = cli(*RUN, "--cpus", "0.5", "busybox", "sh", "-c", quota)
    assert done.out.split()[0] == "50000", str(done)
    assert inside("grep Cpus_allowed_list /proc/self/status", "--cpuset-cpus", "0").endswith("\t0")
    shares = cgroup_file("cpu.weight", "cpu/cpu.shares")
    assert inside(shares, "--cpu-shares", "512") in ("512", "20")


def test_the_number_of_processes_is_limited(cli: Cli) -> None:
    done = cli(
        *(*RUN, "--pids-limit", "5", "busybox", "sh", "-c"),
        "for i in 1 2 3 4 5 6 7; do sleep 30 & done; echo all",
    )
    assert done.code != 0
    assert "can't fork" in done.err


def test_ulimits_are_set(inside: Inside) -> None:
    assert inside("ulimit -Sn; ulimit -Hn", "--ulimit", "nofile=100:200") == "100\n200"


def test_shm_has_the_size_asked_for(inside: Inside) -> None:
    assert "size=65536k" in inside("grep ' /dev/shm ' /proc/mounts")
    assert "size=1024k" in inside("grep ' /dev/shm ' /proc/mounts", "--shm-size", "1m")


# Networks


def test_network_none_has_a_loopback_only(cli: Cli) -> None:
    done = cli(
        *RUN, "busybox", "sh", "-c", "ls /sys/class/net; ping -c 1 127.0.0.1 >/dev/null && echo up"
    )
    assert "up" in done.lines
    assert "eth0" not in done.lines


@pytest.mark.berth_only
def test_network_host_is_the_machines(cli: Cli) -> None:
    done = cli("run", "--rm", "--network", "host", "busybox", "readlink", "/proc/self/ns/net")
    assert done.out.strip() == os.readlink("/proc/self/ns/net")
    name = cli("run", "--rm", "--network", "host", "busybox", "hostname")
    assert name.out.strip() == first_line("/proc/sys/kernel/hostname")


# Detached, removed


def test_rm_removes_the_container_and_its_anonymous_volumes(
    cli: Cli, engine: EngineProcess
) -> None:
    assert cli(*RUN, "--name", "gone", "-v", "/anonymous", "busybox", "true").code == 0
    status, _ = engine.request("GET", "/containers/gone/json")
    assert status == 404
    volumes = engine.request("GET", "/volumes")[1]["Volumes"] or []
    assert not [volume for volume in volumes if len(volume["Name"]) == 64]


def test_detached_prints_the_id_and_returns(cli: Cli) -> None:
    done = cli("run", "-d", "--network", "none", "busybox", "sleep", "60")
    assert done.code == 0
    shown = cli("ps", "-q", "--no-trunc")
    assert shown.out == done.out


def test_create_then_start_attached_is_a_run(cli: Cli) -> None:
    made = cli("create", "--network", "none", "busybox", "sh", "-c", "echo hello; exit 3")
    assert made.code == 0, str(made)
    done = cli("start", "-a", made.out.strip())
    assert (done.code, done.out) == (3, "hello\n")


def test_the_id_is_written_to_a_file(docker_cli: Cli, tmp_path: Path) -> None:
    done = docker_cli("run", "-d", "--cidfile", str(tmp_path / "id"), "busybox", "true")
    assert (tmp_path / "id").read_text() == done.out.strip()


def test_inspect_prints_what_was_asked_for(cli: Cli) -> None:
    cli("create", "--name", "shown", "-e", "A=1", "busybox", "echo", "hi")
    document = json.loads(cli("inspect", "shown").out)[0]
    assert document["Name"] == "/shown"
    assert document["Path"] == "echo"
    assert document["Args"] == ["hi"]
    assert document["State"]["Status"] == "created"
    assert "A=1" in document["Config"]["Env"]
