"""Limits of disks and of real time: what the kernel is told, and what it makes of that."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.engine import EngineProcess
from support.programs import find, run
from system.conftest import running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.programs import Outcome

    Cli = Callable[..., Outcome]

RUN = ("run", "--rm", "--network", "none")
MIB = 1 << 20
BLKIO, CPU = Path("/sys/fs/cgroup/blkio"), Path("/sys/fs/cgroup/cpu")
FLAGS = ("device-read-bps", "device-write-bps", "device-read-iops", "device-write-iops")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[str]:
    """A disk of four mebibytes, which is a file."""
    image = tmp_path / "image"
    image.write_bytes(bytes(4 * MIB))
    made = run(find("losetup"), "--find", "--show", str(image))
    if made.code:
        pytest.skip(f"no loop device: {made.err}")
    path = made.out.strip()
    yield path
    run(find("losetup"), "--detach", path, check=True)


def number(disk: str) -> str:
    device = Path(disk).stat().st_rdev
    return f"{os.major(device)}:{os.minor(device)}"


# Disks


def test_each_limit_of_a_disk_is_written_to_its_file(cli: Cli, disk: str) -> None:
    values = (MIB, 2 * MIB, 30, 40)
    flags = [f"--{flag}={disk}:{value}" for flag, value in zip(FLAGS, values, strict=True)]
    if BLKIO.exists():
        names = [f"blkio.throttle.{flag[7:].replace('-', '_')}_device" for flag in FLAGS]
        wanted = [f"{number(disk)} {value}" for value in values]
        script = f"cd {BLKIO}; cat {' '.join(names)}"
    else:
        wanted = [f"{number(disk)} rbps={MIB} wbps={2 * MIB} riops=30 wiops=40"]
        script = "cat /sys/fs/cgroup/io.max"
    done = cli(*RUN, *flags, "busybox", "sh", "-c", script)
    assert done.lines == wanted, str(done)


@pytest.mark.berth_only  # the image `host`, whose dd passes the page cache by
@pytest.mark.parametrize(
    ("flag", "limit", "command"),
    [
        ("device-read-bps", "1mb", "if=DISK of=/dev/null iflag=direct bs=64k count=48"),
        ("device-write-bps", "1mb", "if=/dev/zero of=DISK oflag=direct bs=64k count=48"),
        ("device-read-iops", "10", "if=DISK of=/dev/null iflag=direct bs=4k count=30"),
        ("device-write-iops", "10", "if=/dev/zero of=DISK oflag=direct bs=4k count=30"),
    ],
)
def test_a_disk_is_as_slow_as_it_is_told(
    docker_cli: Cli, disk: str, flag: str, limit: str, command: str
) -> None:
    words = command.replace("DISK", disk).split()
    begun = time.monotonic()
    done = docker_cli(
        *(*RUN, "--device", disk, f"--{flag}", f"{disk}:{limit}"), *("host", "dd", *words)
    )
    assert done.code == 0, str(done)
    assert time.monotonic() - begun > 1.5  # three seconds' worth


@pytest.mark.parametrize("flag", FLAGS)
def test_a_disk_that_is_none_is_refused(cli: Cli, flag: str) -> None:
    done = cli(*RUN, f"--{flag}=/dev/no-such:10", "busybox", "true")
    assert done.code in (125, 127)
    assert "no such file or directory" in done.err


# Real time


@pytest.fixture
def budget(engine: EngineProcess) -> Iterator[None]:
    """The engine's groups have 50 milliseconds of each second, as an administrator would give them."""
    if not (CPU / "cpu.rt_runtime_us").exists():
        pytest.skip("needs CONFIG_RT_GROUP_SCHED and the controller cpu of cgroup v1")
    engine.docker(*RUN, "busybox", "true")
    group = CPU / engine.instance.cgroup
    files = [folder / "cpu.rt_runtime_us" for folder in (group, group / "std")]
    for file in files:
        file.write_text("50000")
    yield
    engine.remove_containers()
    engine.wait_settled()
    for file in reversed(files):
        file.write_text("0")


@pytest.mark.berth_only
@pytest.mark.usefixtures("budget")
def test_programs_get_real_time_where_there_is_some(cli: Cli, engine: EngineProcess) -> None:
    file = f"{CPU}/cpu.rt_runtime_us"
    nice = ("--cap-add", "SYS_NICE")
    done = cli(*RUN, *nice, "host", "chrt", "--fifo", "1", "cat", file)
    assert (done.code, "Operation not permitted" in done.err) == (1, True), str(done)
    flags = ("--cpu-rt-period", "500000", "--cpu-rt-runtime", "5000")
    done = cli(*RUN, *nice, *flags, "host", "chrt", "--fifo", "1", "cat", file)
    assert (done.code, done.out) == (0, "5000\n"), str(done)
    cli("run", "-d", "--name", "sleeper", "--network", "none", "busybox", "sleep", "600")
    changed = cli("update", "--cpu-rt-runtime", "7000", "sleeper")
    assert changed.code == 0, str(changed)
    assert cli("exec", "sleeper", "cat", file).out == "7000\n"
    assert engine.inspect("sleeper")["HostConfig"]["CpuRealtimeRuntime"] == 7000
    refused = cli(*RUN, "--cpu-rt-runtime", "500000", "busybox", "true")  # more than there is
    assert (refused.code, "invalid argument" in refused.err) == (125, True), str(refused)


def test_real_time_that_cannot_be_had_is_refused(cli: Cli) -> None:
    if (CPU / "cpu.rt_runtime_us").exists():  # nobody gave the engine's groups any
        text = "invalid argument"
    else:
        text = "kernel does not support CPU real-time scheduler"
    done = cli(*RUN, "--cpu-rt-runtime", "5000", "busybox", "true")
    assert (done.code, text in done.err) == (125, True), str(done)
    done = cli(*RUN, "--cpu-rt-runtime", "5000", "--cpu-rt-period", "4000", "busybox", "true")
    assert done.code == 125
    assert "real-time" in done.err


def test_the_engine_may_open_more_files_than_its_containers(busybox_tar: bytes) -> None:
    """1024 is what services and shells have, unless somebody has said otherwise."""
    engine = EngineProcess(prefix=(find("prlimit"), "--nofile=1024:4096"))
    with running(engine, busybox_tar):
        lines = Path(f"/proc/{engine.pid}/limits").read_text().splitlines()
        assert next(ln.split()[3:5] for ln in lines if "open files" in ln) == ["4096", "4096"]
        done = engine.docker(*RUN, "busybox", "sh", "-c", "ulimit -Sn; ulimit -Hn")
        assert done.lines == ["1024", "4096"], str(done)
        for ports in ("20000-20599:80-679", "21000-21599:80-679"):
            done = engine.docker("run", "-d", "-p", ports, "busybox", "sleep", "600")
            assert done.code == 0, str(done)
        engine.remove_containers()


def test_more_ports_than_a_process_has_descriptors_are_held(busybox_tar: bytes) -> None:
    engine = EngineProcess(prefix=(find("prlimit"), "--nofile=1024:4096"))
    with running(engine, busybox_tar):
        ports = ("-p", "20000-21099:80-1179")
        done = engine.docker("run", "-d", "--name", "many", *ports, "busybox", "sleep", "600")
        assert done.code == 0, str(done)
        for _ in range(2):
            engine.kill()
            for port in (20000, 20500, 21099):
                with pytest.raises(OSError, match="in use"), socket.socket() as other:
                    other.bind(("0.0.0.0", port))
            engine.start()
            assert engine.inspect("many")["State"]["Status"] == "running"
        assert engine.docker("exec", "many", "sh", "-c", "ulimit -Sn").lines == ["1024"]
        assert engine.docker("rm", "-f", "many").code == 0
        for _ in range(2):  # by the monitors that are free now
            done = engine.docker(*RUN, "busybox", "sh", "-c", "ulimit -Sn")
            assert done.lines == ["1024"], str(done)
