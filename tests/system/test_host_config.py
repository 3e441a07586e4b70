"""What containers are given by their host configuration, and changes of it, as Docker does it."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.engine import EngineProcess
    from support.programs import Outcome

    Cli = Callable[..., Outcome]

RUN = ("run", "--rm", "--network", "none")
LONG = ["USER", "PID", "%CPU", "%MEM", "VSZ", "RSS", "TTY", "STAT", "START", "TIME", "COMMAND"]
MEMORY = "/sys/fs/cgroup/memory"


@pytest.fixture
def sleeper(engine: EngineProcess) -> EngineProcess:
    """A container that sleeps."""
    done = engine.docker(
        "run", "-d", "--name", "sleeper", "--network", "none", "busybox", "sleep", "600"
    )
    assert done.code == 0, str(done)
    return engine


# What is seen inside


def test_programs_can_tell_that_they_are_in_a_container(cli: Cli, engine: EngineProcess) -> None:
    done = cli(
        "run",
        "--name",
        "told",
        "--network",
        "none",
        "busybox",
        "stat",
        "-c",
        "%a %s",
        "/.dockerenv",
    )
    assert done.out == "755 0\n"
    assert cli("diff", "told").out == ""


@pytest.mark.berth_only
def test_containers_of_this_machine_can_tell_too(cli: Cli) -> None:
    assert cli(*RUN, "host", "stat", "-c", "%a %s", "/.dockerenv").out == "755 0\n"


def test_nothing_of_the_machine_is_in_the_command_line_of_init(cli: Cli) -> None:
    done = cli(
        *RUN,
        "--init",
        "busybox",
        "sh",
        "-c",
        "tr '\\0' ' ' < /proc/1/cmdline; echo; cat /proc/1/comm",
    )
    assert done.lines[0].split()[:3] == ["/sbin/docker-init", "--", "sh"]
    assert done.lines[1] == "docker-init"


def test_the_main_group_is_among_the_others(cli: Cli) -> None:
    """What a file denies to a group is denied to who has it as the main one (CVE-2022-36109)."""
    done = cli(*RUN, "-u", "70000:70001", "busybox", "grep", "Groups", "/proc/self/status")
    assert done.out.split() == ["Groups:", "70001"]


@pytest.mark.skipif(not Path(MEMORY).is_dir(), reason="needs cgroup v1")
@pytest.mark.berth_only  # the reference is an older Docker
def test_the_cgroup_of_another_container_is_of_no_effect(engine: EngineProcess) -> None:
    body = {"Image": "busybox", "HostConfig": {"Cgroup": "container:nobody", "NetworkMode": "none"}}
    status, answer = engine.request("POST", "/containers/create", body)
    assert status == 201, answer
    assert engine.docker("start", answer["Id"]).code == 0
    assert engine.inspect(answer["Id"])["HostConfig"]["Cgroup"] == "container:nobody"


def test_the_hosts_cgroup_namespace_shows_the_own_group_only(cli: Cli) -> None:
    for flags in (("--privileged",), ("--cgroupns", "host")):
        script = f"grep -o memory:.* /proc/self/cgroup; ls -d {MEMORY}/*/ 2>/dev/null; cat {MEMORY}/tasks"
        done = cli(*RUN, *flags, "busybox", "sh", "-c", script)
        path, *pids = done.lines
        assert path.count("/") > 1
        assert pids
        assert all(pid.isdigit() for pid in pids), str(done)


# Devices


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Path]:
    """A node of the null device."""
    path = tmp_path / "node"
    os.mknod(path, stat.S_IFCHR, os.makedev(1, 3))
    path.chmod(0o666)
    return path


def test_a_device_has_the_name_and_the_rights_it_is_given(cli: Cli, node: Path) -> None:
    done = cli(*RUN, "--device", f"{node}:/dev/own:r", "busybox", "ls", "-l", "/dev/own")
    assert done.out.startswith("crw-rw-rw-")
    for bad, text in (
        ("/dev/no-such", "no such file or directory"),
        ("/etc/passwd", "not a device node"),
    ):
        refused = cli(*RUN, "--device", bad, "busybox", "true")
        assert refused.code in (125, 127)
        assert text in refused.err


def test_a_rule_allows_devices_that_are_made_inside(cli: Cli) -> None:
    script = "mknod /fuse c 10 229 && cat /fuse; echo $?"
    denied = cli(*RUN, "busybox", "sh", "-c", script)
    assert "Operation not permitted" in denied.err
    rule = ("--device-cgroup-rule", "c 10:229 rwm")
    allowed = cli(*RUN, *rule, "busybox", "sh", "-c", script)
    assert "can't open" in denied.err
    assert "can't open '/fuse': Operation not permitted" not in allowed.err


def test_weights_of_devices_that_do_not_weigh_are_left_out(cli: Cli) -> None:
    disk = next(
        (
            f"/dev/{path.name}"
            for path in Path("/sys/block").iterdir()
            if Path("/dev", path.name).exists()
        ),
        "",
    )
    if not disk:
        pytest.skip("needs a block device")
    done = cli(*RUN, "--blkio-weight-device", f"{disk}:200", "busybox", "true")
    assert done.code == 0, str(done)
    if "[bfq]" not in Path("/sys/block", Path(disk).name, "queue/scheduler").read_text():
        assert "Weight-device discarded" in done.err


# Updates


@pytest.mark.parametrize(
    ("first", "then", "text"),
    [
        (
            (),
            ("--memory", "64m"),
            "Memory limit should be smaller than already set memoryswap limit",
        ),
        (
            ("--cpus", "0.5"),
            ("--cpu-period", "50000"),
            "CPU Period cannot be updated as NanoCPUs has",
        ),
        (
            ("--cpus", "0.5"),
            ("--cpu-quota", "50000"),
            "CPU Quota cannot be updated as NanoCPUs has",
        ),
        (
            ("--cpu-quota", "50000"),
            ("--cpus", "0.5"),
            "Nano CPUs cannot be updated as CPU Quota has",
        ),
        ((), ("--cpuset-cpus", "77"), "Requested CPUs are not available - requested 77"),
        (
            (),
            ("--restart", "bogus"),
            "unknown policy 'bogus'; use one of 'no', 'always', 'on-failure'",
        ),
        ((), ("--memory", "1m"), "Minimum memory limit allowed is 6MB"),
    ],
)
@pytest.mark.berth_only  # the reference is an older Docker
def test_an_update_that_makes_no_sense_changes_nothing(
    docker_cli: Cli,
    sleeper: EngineProcess,
    first: tuple[str, ...],
    then: tuple[str, ...],
    text: str,
) -> None:
    if first:
        assert docker_cli("update", *first, "sleeper").code == 0
    before = sleeper.inspect("sleeper")["HostConfig"]
    done = docker_cli("update", *then, "sleeper")
    assert done.code == 1
    assert text in done.err
    assert sleeper.inspect("sleeper")["HostConfig"] == before


def test_a_container_that_removes_itself_gets_no_restart_policy(
    cli: Cli, engine: EngineProcess
) -> None:
    engine.docker(
        "run", "-d", "--rm", "--name", "brief", "--network", "none", "busybox", "sleep", "600"
    )
    done = cli("update", "--restart", "always", "brief")
    assert done.code == 1
    assert "cannot be updated because AutoRemove is enabled for the container" in done.err


@pytest.mark.skipif(not Path(MEMORY).is_dir(), reason="needs cgroup v1")
def test_every_limit_of_a_running_container_can_be_changed(
    cli: Cli, sleeper: EngineProcess
) -> None:
    flags = (
        "--memory",
        "128m",
        "--memory-swap",
        "256m",
        "--memory-reservation",
        "32m",
        "--cpus",
        "0.5",
    )
    flags += (
        "--cpu-shares",
        "100",
        "--pids-limit",
        "50",
        "--cpuset-cpus",
        "0",
        "--restart",
        "on-failure:3",
    )
    assert cli("update", *flags, "sleeper").code == 0
    files = "memory/memory.limit_in_bytes memory/memory.memsw.limit_in_bytes cpu/cpu.cfs_quota_us"
    files += " memory/memory.soft_limit_in_bytes pids/pids.max cpu/cpu.shares cpuset/cpuset.cpus"
    seen = cli("exec", "sleeper", "sh", "-c", f"cd /sys/fs/cgroup; cat {files}").lines
    expected = [str(128 << 20), str(256 << 20), "50000", str(32 << 20), "50", "100", "0"]
    assert seen == expected
    shown = sleeper.inspect("sleeper")["HostConfig"]
    assert shown["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 3}
    status, _ = sleeper.request("POST", "/containers/sleeper/update", {"PidsLimit": 0})
    assert status == 200
    assert cli("exec", "sleeper", "cat", "/sys/fs/cgroup/pids/pids.max").out == "max\n"


@pytest.mark.berth_only  # the reference is an older Docker
def test_limits_of_block_devices_can_be_changed(
    engine: EngineProcess, sleeper: EngineProcess
) -> None:
    disk = next((p.name for p in Path("/sys/block").iterdir() if Path("/dev", p.name).exists()), "")
    throttle = Path("/sys/fs/cgroup/blkio/blkio.throttle.read_bps_device")
    if not disk or not throttle.exists():
        pytest.skip("needs a block device and its throttling by cgroup v1")
    limit = [{"Path": f"/dev/{disk}", "Rate": 1 << 20}]
    status, said = sleeper.request(
        "POST", "/containers/sleeper/update", {"BlkioDeviceReadBps": limit}
    )
    assert status == 200, said
    seen = sleeper.docker(
        "exec", "sleeper", "cat", "/sys/fs/cgroup/blkio/blkio.throttle.read_bps_device"
    )
    assert seen.out.split()[1] == str(1 << 20)
    assert sleeper.inspect("sleeper")["HostConfig"]["BlkioDeviceReadBps"] == limit


# top


@pytest.mark.parametrize(
    ("args", "titles"),
    [
        ((), ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]),
        (("-eo", "pid,comm"), ["PID", "COMMAND"]),
        (("-o", "pid=PID,args"), ["PID", "COMMAND"]),
        (("aux",), LONG),
        (("ax",), ["PID", "TTY", "STAT", "TIME", "COMMAND"]),
        (("-ej",), ["PID", "PGID", "SID", "TTY", "TIME", "CMD"]),
    ],
)
def test_top_has_the_columns_of_ps(
    cli: Cli, sleeper: EngineProcess, args: tuple[str, ...], titles: list[str]
) -> None:
    done = cli("top", "sleeper", *args)
    assert done.code == 0, str(done)
    assert done.lines[0].split() == titles
    assert "sleep" in done.lines[1]


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (("-o", "user,args"), "Couldn't find PID field in ps output"),
        (("-bogus",), "ps: error: unsupported SysV option"),
    ],
)
def test_arguments_that_ps_does_not_take_are_refused(
    cli: Cli, sleeper: EngineProcess, args: tuple[str, ...], text: str
) -> None:
    done = cli("top", "sleeper", *args)
    assert done.code == 1
    assert text in done.err


def test_a_session_leader_is_shown_as_such(docker_cli: Cli, sleeper: EngineProcess) -> None:
    assert docker_cli("top", "sleeper", "aux").lines[1].split()[7] == "Ss"


# inspect


def test_inspect_shows_the_images_command_and_leaves_out_what_nobody_said(
    engine: EngineProcess,
) -> None:
    assert engine.docker("create", "--name", "plain", "busybox").code == 0
    document = engine.inspect("plain")
    assert document["Config"]["Cmd"] == ["sh"]
    for name in ("Annotations", "Mounts", "StorageOpt", "Tmpfs"):
        assert name not in document["HostConfig"]
    assert engine.docker("create", "--name", "strong", "--privileged", "busybox").code == 0
    shown = engine.inspect("strong")["HostConfig"]
    assert (shown["SecurityOpt"], shown["MaskedPaths"]) == (["label=disable"], None)


@pytest.mark.parametrize("kind", ["pid", "network", "ipc"])
@pytest.mark.berth_only  # the reference is an older Docker
def test_namespaces_of_nobody_cannot_be_joined(docker_cli: Cli, kind: str) -> None:
    words = {
        "pid": "failed to join PID namespace: No such container: nobody",
        "ipc": "failed to join IPC namespace: No such container: nobody",
        "network": "joining network namespace of container: No such container: nobody",
    }
    done = docker_cli("run", "--rm", f"--{kind}", "container:nobody", "busybox", "true")
    assert done.code == 125
    assert words[kind] in done.err
