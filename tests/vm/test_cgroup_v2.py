"""Limits, devices, lives and statistics where every controller is on cgroup version 2."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support import kernel
from support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.engine import EngineProcess
    from support.programs import Outcome

    Cli = Callable[..., Outcome]
    Inside = Callable[..., str]

MIB = 1 << 20
CGROUPS = Path("/sys/fs/cgroup")
ALONE = ("--network", "none")
EAT = "exec tail -c 100000000 /dev/zero"


def run_long(cli: Cli, *flags: str, name: str = "long", command: tuple[str, ...] = ()) -> None:
    done = cli(
        "run", "-d", "--name", name, *ALONE, *flags, "busybox", *(command or ("sleep", "1000"))
    )
    assert done.code == 0, str(done)


def group(engine: EngineProcess, name: str = "long") -> Path:
    """Return where the container's group is, by what the kernel says of its process."""
    state = engine.inspect(name)["State"]
    assert isinstance(state, dict)
    line = Path(f"/proc/{state['Pid']}/cgroup").read_text().strip()
    return CGROUPS / line.removeprefix("0::/")


def stats(engine: EngineProcess, name: str = "long") -> dict[str, dict[str, int]]:
    status, document = engine.request("GET", f"/containers/{name}/stats?stream=0")
    assert status == 200
    assert isinstance(document, dict)
    return document


def test_only_version_2_is_here(docker_cli: Cli) -> None:
    shown = docker_cli("info", "--format", "{{.CgroupVersion}} {{.CgroupDriver}}")
    assert shown.out == "2 cgroupfs\n"
    assert "WARNING" not in docker_cli("info").err
    assert [path for path in kernel.hierarchies() if path == CGROUPS]


def test_every_limit_is_a_file_of_the_group(berth_cli: Cli, engine: EngineProcess) -> None:
    run_long(
        *(berth_cli, "-m", "64m", "--memory-swap", "96m", "--memory-reservation", "32m"),
        *("--cpus", "0.5", "--cpu-shares", "512", "--cpuset-cpus", "1", "--pids-limit", "33"),
    )
    files = {
        "memory.max": str(64 * MIB),
        "memory.swap.max": str(32 * MIB),
        "memory.low": str(32 * MIB),
        "cpu.max": "50000 100000",
        "cpu.weight": "59",
        "cpuset.cpus": "1",
        "pids.max": "33",
    }
    found = {name: (group(engine) / name).read_text().strip() for name in files}
    assert found == files


def test_the_container_sees_its_own_group_read_only(inside: Inside) -> None:
    assert inside("cat /proc/self/cgroup") == "0::/"
    assert inside("cat /sys/fs/cgroup/memory.max", "-m", "64m") == str(64 * MIB)
    line = next(x for x in inside("mount").splitlines() if " on /sys/fs/cgroup " in x)
    assert line.split()[4] == "cgroup2"
    assert {"ro", "nosuid", "nodev", "noexec"} <= set(line.split("(")[1].rstrip(")").split(","))
    assert "Read-only" in inside("mkdir /sys/fs/cgroup/x 2>&1; true")


def test_the_host_cgroup_namespace_shows_the_whole_path(inside: Inside) -> None:
    path = inside("cat /proc/self/cgroup", "--cgroupns", "host").removeprefix("0::")
    assert path.startswith("/berth")
    assert inside(f"ls -d /sys/fs/cgroup{path.rpartition('/')[0]}", "--cgroupns", "host")


def test_a_privileged_container_may_make_groups(inside: Inside) -> None:
    made = "mkdir /sys/fs/cgroup/x && rmdir /sys/fs/cgroup/x && echo made"
    assert inside(made, "--privileged", "--cgroupns", "private") == "made"


def test_a_process_beyond_its_memory_is_killed_and_reported(
    docker_cli: Cli, engine: EngineProcess
) -> None:
    limits = ("-m", "32m", "--memory-swap", "32m")
    done = docker_cli("run", "--name", "greedy", *ALONE, *limits, "busybox", "sh", "-c", EAT)
    assert done.code == 137, str(done)
    state = engine.inspect("greedy")["State"]
    assert isinstance(state, dict)
    assert state["OOMKilled"] is True


def test_the_number_of_processes_is_limited(cli: Cli) -> None:
    script = "for n in 1 2 3 4 5 6 7 8; do sleep 5 & done 2>&1; kill $(jobs -p); echo done"
    done = cli("run", "--rm", *ALONE, "--pids-limit", "4", "busybox", "sh", "-c", script)
    assert "an't fork" in done.out + done.err, str(done)


MAKE = "mknod /tmp/{0} c {1} && (: </tmp/{0}) 2>/dev/null && echo open || echo shut"
FUSE = "(: >/dev/fuse) 2>/dev/null && echo w; (: </dev/fuse) 2>/dev/null && echo r; true"


def test_devices_are_refused_unless_they_are_dockers_few(inside: Inside) -> None:
    assert inside("head -c 1 /dev/zero | wc -c") == "1"
    assert inside(MAKE.format("zero", "1 5")) == "open"
    assert inside(MAKE.format("fuse", "10 229")) == "shut"


def test_a_device_is_added_with_the_access_asked_for(inside: Inside) -> None:
    assert inside(FUSE, "--device", "/dev/fuse").split() == ["w", "r"]
    assert inside(FUSE, "--device", "/dev/fuse:/dev/fuse:r").split() == ["r"]
    assert inside(FUSE, "--device", "/dev/fuse:/dev/fuse:w").split() == ["w"]
    made = inside(MAKE.format("fuse", "10 229"), "--device-cgroup-rule", "c 10:229 rm")
    assert made == "open"


def test_privileged_opens_every_device(inside: Inside) -> None:
    assert inside(FUSE, "--privileged").split() == ["w", "r"]


def test_pause_freezes_the_group(berth_cli: Cli, engine: EngineProcess) -> None:
    run_long(berth_cli)
    assert berth_cli("pause", "long").code == 0
    assert "frozen 1" in (group(engine) / "cgroup.events").read_text()
    assert berth_cli("ps", "--format", "{{.Status}}").out.endswith("(Paused)\n")
    assert berth_cli("unpause", "long").code == 0
    assert "frozen 0" in (group(engine) / "cgroup.events").read_text()
    assert berth_cli("pause", "long").code == 0
    assert berth_cli("rm", "-f", "long").code == 0


def test_exec_joins_the_group(berth_cli: Cli, engine: EngineProcess) -> None:
    run_long(berth_cli, "-m", "64m")
    shown = berth_cli("exec", "long", "sh", "-c", "cat /proc/self/cgroup /sys/fs/cgroup/memory.max")
    assert shown.lines == ["0::/", str(64 * MIB)]
    assert berth_cli("exec", "-d", "long", "sleep", "999").code == 0
    wait_for(
        lambda: len((group(engine) / "cgroup.procs").read_text().split()) == 2,
        "both processes are in the group",
    )


def test_exec_works_at_the_limit_of_processes(docker_cli: Cli) -> None:
    run_long(docker_cli, "--pids-limit", "1")
    assert docker_cli("exec", "long", "echo", "in").out == "in\n"


def test_exec_joins_where_the_container_made_groups_of_its_own(
    docker_cli: Cli, engine: EngineProcess
) -> None:
    script = (
        "cd /sys/fs/cgroup; mkdir leaf; echo 1 >leaf/cgroup.procs;"
        " echo +memory >cgroup.subtree_control; sleep 1000"
    )
    run_long(
        *(docker_cli, "--privileged", "--cgroupns", "private"),
        command=("sh", "-c", f"{script} & wait"),
    )
    wait_for(
        lambda: "memory" in (kernel_group(engine) / "cgroup.subtree_control").read_text(),
        "the container has made its groups",
    )
    assert docker_cli("exec", "long", "cat", "/proc/self/cgroup").out.startswith("0::/leaf")
    assert int(docker_cli("stats", "--no-stream", "--format", "{{.PIDs}}", "long").out) >= 2
    assert docker_cli("rm", "-f", "long").code == 0


def kernel_group(engine: EngineProcess) -> Path:
    """Return the container's own group, whichever its processes went to."""
    found = kernel.cgroups(engine.instance.cgroup)
    assert len(found) == 1
    return found[0]


def test_stop_and_kill_end_what_the_group_has(docker_cli: Cli, engine: EngineProcess) -> None:
    for verb in (("stop", "-t", "0"), ("kill",)):
        run_long(docker_cli, command=("sh", "-c", "sleep 1000 & sleep 1000 & wait"))
        assert docker_cli(*verb, "long").code == 0
        assert docker_cli("wait", "long").out == "137\n"
        wait_for(lambda: not kernel.cgroups(engine.instance.cgroup), "the group is gone")
        assert docker_cli("rm", "long").code == 0


def test_top_lists_the_groups_processes(docker_cli: Cli) -> None:
    run_long(docker_cli, command=("sh", "-c", "sleep 1000 & wait"))
    wait_for(lambda: "sleep 1000" in top(docker_cli, "-o", "pid,args"), "both run")
    assert len(top(docker_cli).splitlines()) == 3


def top(docker_cli: Cli, *flags: str) -> str:
    return docker_cli("top", "long", *flags).out


def test_statistics_have_what_the_columns_need(cli: Cli, engine: EngineProcess) -> None:
    run_long(
        *(cli, "-m", "64m", "--pids-limit", "50"),
        command=("sh", "-c", "head -c 12000000 /dev/zero >/dev/shm/x; while :; do :; done"),
    )
    wait_for(lambda: stats(engine)["memory_stats"]["usage"] > 8 * MIB, "the memory is counted")
    sample = stats(engine)
    assert sample["memory_stats"]["limit"] == 64 * MIB
    assert "inactive_file" in sample["memory_stats"]["stats"]
    assert "max_usage" not in sample["memory_stats"]
    assert sample["pids_stats"] == {"current": 1, "limit": 50}
    assert "percpu_usage" not in sample["cpu_stats"]["cpu_usage"]
    assert sample["cpu_stats"]["online_cpus"] == os.cpu_count()
    row = json.loads(cli("stats", "--no-stream", "--format", "json", "long").out)
    assert float(row["CPUPerc"].rstrip("%")) > 10  # an emulated clock is no upper bound
    assert row["MemUsage"].endswith(" / 64MiB")
    assert 8 <= float(row["MemUsage"].partition("MiB")[0]) < 64
    assert 12 < float(row["MemPerc"].rstrip("%")) < 100
    assert row["PIDs"] == "1"


def test_memory_without_a_limit_is_shown_of_the_machines(
    docker_cli: Cli, engine: EngineProcess
) -> None:
    run_long(docker_cli)
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert stats(engine)["memory_stats"]["limit"] == total


def test_a_restarted_engine_finds_its_containers(fresh_engine: EngineProcess) -> None:
    run_long(fresh_engine.docker, "-m", "64m")
    before = group(fresh_engine)
    assert fresh_engine.docker("pause", "long").code == 0
    fresh_engine.restart()
    assert fresh_engine.docker("ps", "--format", "{{.Names}}").out == "long\n"
    assert group(fresh_engine) == before
    assert fresh_engine.docker("unpause", "long").code == 0
    assert fresh_engine.docker("exec", "long", "echo", "in").out == "in\n"
    assert stats(fresh_engine)["memory_stats"]["limit"] == 64 * MIB
    assert fresh_engine.docker("rm", "-f", "long").code == 0


@pytest.mark.parametrize(
    "flags", [("-m", "4m"), ("--cpuset-cpus", "17"), ("--cpus", "99")], ids=lambda f: f[0]
)
def test_a_limit_that_cannot_be_is_refused(docker_cli: Cli, flags: tuple[str, ...]) -> None:
    done = docker_cli("run", "--rm", *ALONE, *flags, "busybox", "true")
    assert done.code == 125, str(done)
    assert not [path for path in CGROUPS.glob("berth*/std/*") if path.is_dir()]
