"""Devices by the Container Device Interface: what they bring, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from support.engine import EngineProcess
from support.programs import find
from system.conftest import running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.programs import Outcome

    Cli = Callable[..., Outcome]
    Describe = Callable[..., None]

RUN = ("run", "--rm", "--network", "none")
KIND = "vendor.test/thing"
ONE = ("--device", f"{KIND}=one")
NODE = {"path": "/dev/thing", "hostPath": "/dev/null", "permissions": "rw", "uid": 1000}

pytestmark = pytest.mark.berth_only  # the reference is older than this interface


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folder of descriptions, and one that counts more."""
    base = tmp_path_factory.mktemp("cdi")
    return base / "etc", base / "run"


@pytest.fixture(scope="module")
def module_engine(folders: tuple[Path, Path], busybox_tar: bytes) -> Iterator[EngineProcess]:
    flags = [word for folder in folders for word in ("--cdi-spec-dir", str(folder))]
    engine = EngineProcess(flags=tuple(flags))
    with running(engine, busybox_tar):
        yield engine


@pytest.fixture
def engine(module_engine: EngineProcess, folders: tuple[Path, Path]) -> Iterator[EngineProcess]:
    yield module_engine
    for folder in folders:
        for path in folder.glob("*"):
            path.unlink()
    module_engine.remove_containers()
    module_engine.wait_settled()


@pytest.fixture
def describe(folders: tuple[Path, Path]) -> Describe:
    """Write a file that describes devices: by their names what each adds, ``all_`` what all of them do."""

    def write(
        *,
        kind: str = KIND,
        version: str = "1.1.0",
        all_: object = None,
        file: str = "a.json",
        important: bool = False,
        **devices: object,
    ) -> None:
        described = [{"name": name, "containerEdits": edits} for name, edits in devices.items()]
        text = {"cdiVersion": version, "kind": kind, "devices": described}
        if all_:
            text["containerEdits"] = all_
        folder = folders[important]
        folder.mkdir(exist_ok=True)
        (folder / file).write_text(json.dumps(text))

    return write


def test_a_described_device_brings_nodes_files_variables_and_groups(
    cli: Cli, describe: Describe, tmp_path: Path
) -> None:
    (tmp_path / "library").write_text("the vendor's\n")
    options = ["ro", "nosuid", "nodev", "bind"]
    bind = {"hostPath": f"{tmp_path}/library", "containerPath": "/lib/vendor", "options": options}
    describe(
        all_={"env": ["ALL=yes"], "mounts": [bind]},
        one={"env": ["ONE=yes"], "deviceNodes": [NODE], "additionalGids": [77, 0]},
    )
    script = (
        "echo $ALL $ONE; cat /lib/vendor; stat -c '%u %t:%T' /dev/thing; echo > /dev/thing; id -G;"
        " grep /lib/vendor /proc/self/mounts"
    )
    done = cli(*RUN, "-e", "ONE=no", *ONE, "busybox", "sh", "-c", script)
    assert done.code == 0, str(done)
    assert done.lines[:3] == ["yes yes", "the vendor's", "1000 1:3"]
    assert "77" in done.lines[3].split()
    assert {"ro", "nosuid", "nodev"} <= set(done.lines[4].split()[3].split(","))


def test_nodes_are_as_they_are_described(cli: Cli, describe: Describe) -> None:
    complete = {"path": "/dev/made", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640}
    closed = {"path": "/dev/closed", "type": "c", "major": 1, "minor": 11, "permissions": "none"}
    pipe = {"path": "/dev/pipe", "type": "p"}
    describe(one={"deviceNodes": [complete, closed, pipe]})
    script = (
        "stat -c '%n %F %a %u:%g' /dev/made /dev/pipe; head -c 3 /dev/made | wc -c;"
        " head -c 1 /dev/closed"
    )
    done = cli(*RUN, "--user", "1000:50", *ONE, "busybox", "sh", "-c", script)
    assert done.lines[0] == "/dev/made character special file 640 1000:50"
    assert done.lines[1].startswith("/dev/pipe fifo")
    assert done.lines[2] == "3"
    assert "Operation not permitted" in done.err


def test_mounts_of_other_kinds_and_the_clients_own(
    cli: Cli, describe: Describe, tmp_path: Path
) -> None:
    memory = {
        "hostPath": "tmpfs",
        "containerPath": "/vendor/memory",
        "type": "tmpfs",
        "options": ["size=64k", "noexec"],
    }
    bind = {"hostPath": "/", "containerPath": "/work", "options": ["rbind", "ro", "rprivate"]}
    describe(one={"mounts": [memory, bind]})
    own = ("-v", f"{tmp_path}:/work")
    script = "grep -E ' (/vendor/memory|/work) ' /proc/self/mounts; ls /work | wc -l"
    done = cli(*RUN, *own, *ONE, "busybox", "sh", "-c", script)
    assert done.code == 0, str(done)
    points = {line.split()[1]: line for line in done.lines[:-1]}
    assert "size=64k" in points["/vendor/memory"]
    assert "noexec" in points["/vendor/memory"]
    assert (len(points), done.lines[-1]) == (2, "0"), str(done)


def test_a_path_that_is_not_there_is_a_failed_start(docker_cli: Cli, describe: Describe) -> None:
    bind = {"hostPath": "/nowhere", "containerPath": "/lib/vendor", "options": ["bind"]}
    describe(one={"mounts": [bind]})
    done = docker_cli(*RUN, *ONE, "busybox", "true")
    assert done.code == 127, str(done)
    assert "stat /nowhere: no such file or directory" in done.err


def test_a_container_gets_network_devices(docker_cli: Cli, describe: Describe) -> None:
    outside = f"bx{os.getpid()}"
    ip = find("ip")
    subprocess.run([ip, "link", "add", outside, "type", "veth"], check=True)
    try:
        subprocess.run([ip, "addr", "add", "198.18.99.1/24", "dev", outside], check=True)
        describe(one={"netDevices": [{"hostInterfaceName": outside, "name": "thing0"}]})
        done = docker_cli(*RUN, *ONE, "busybox", "ip", "-4", "-o", "addr", "show", "thing0")
        assert "198.18.99.1/24" in done.out, str(done)
        refused = docker_cli("run", "--rm", "--network", "host", *ONE, "busybox", "true")
        assert "unable to move network devices without a NET namespace" in refused.err
    finally:
        subprocess.run([ip, "link", "del", outside], check=False, capture_output=True)


# Descriptions


def test_a_device_that_nobody_describes_is_refused(cli: Cli, describe: Describe) -> None:
    describe(one={"env": ["A=b"]})
    done = cli(*RUN, "--device", f"{KIND}=two", "busybox", "true")
    assert done.code == 125
    assert f"CDI device injection failed: unresolvable CDI devices {KIND}=two" in done.err


def test_limits_of_caches_are_refused_by_name(cli: Cli, describe: Describe) -> None:
    describe(one={"intelRdt": {"closID": "a"}})
    done = cli(*RUN, *ONE, "busybox", "true")
    assert done.code == 125
    assert "intelRdt is not supported" in done.err


@pytest.mark.parametrize(
    ("file", "why"),
    [
        ({"one": {"env": ["A=b"], "wings": []}}, "wings"),
        ({"one": {"env": ["A=b"]}, "version": "9.9.9"}, 'invalid version "9.9.9"'),
        ({"one": {"additionalGids": [1]}, "version": "0.6.0"}, "must be at least v0.7.0"),
        ({"one": {"env": ["=b"]}}, "invalid environment variable"),
        ({"one": {}}, "empty device edits"),
        ({}, "no devices"),
        ({"one": {"env": ["A=b"]}, "kind": "vendor"}, 'invalid class ""'),
        ({"one": {"hooks": [{"hookName": "often", "path": "/a"}]}}, 'invalid hook name "often"'),
        ({"one": {"hooks": [{"hookName": "poststop", "path": "a"}]}}, "is not absolute"),
        ({"one": {"deviceNodes": [{"path": "/a", "permissions": "x"}]}}, "invalid permissions"),
    ],
)
def test_a_file_that_is_wrong_counts_for_nothing_and_info_says_why(
    engine: EngineProcess, describe: Describe, file: dict[str, object], why: str
) -> None:
    describe(**file)
    _, info = engine.request("GET", "/info")
    assert isinstance(info, dict)
    assert info["DiscoveredDevices"] == []
    assert [why in text for text in info["Warnings"] if "a.json" in text] == [True], info[
        "Warnings"
    ]


def test_the_later_folder_counts_more_and_two_files_of_one_contradict(
    engine: EngineProcess, describe: Describe
) -> None:
    describe(one={"env": ["FROM=etc"]}, two={"env": ["A=b"]})
    describe(one={"env": ["FROM=run"]}, important=True)
    describe(two={"env": ["A=c"]}, file="b.json")
    show = ("busybox", "sh", "-c", "echo $FROM")
    assert engine.docker(*RUN, *ONE, *show).out == "run\n"
    done = engine.docker(*RUN, "--device", f"{KIND}=two", *show)
    assert "unresolvable CDI devices" in done.err


def test_info_tells_of_folders_and_devices(
    engine: EngineProcess, describe: Describe, folders: tuple[Path, Path]
) -> None:
    describe(one={"env": ["A=b"]}, two={"env": ["A=b"]})
    _, info = engine.request("GET", "/info")
    assert isinstance(info, dict)
    assert info["CDISpecDirs"] == [str(folder) for folder in folders]
    names = [f"{KIND}=one", f"{KIND}=two"]
    assert info["DiscoveredDevices"] == [{"Source": "cdi", "ID": name} for name in names]
    shown = engine.docker("info")
    assert all(f"cdi: {name}" in shown.out for name in names), str(shown)
    _, older = engine.request("GET", "/v1.49/info")
    assert isinstance(older, dict)
    assert "DiscoveredDevices" not in older


@pytest.mark.parametrize("flags", [("--cdi-spec-dir", ""), ("--feature", "cdi=false")])
def test_an_engine_without_folders_knows_no_devices(
    busybox_tar: bytes, flags: tuple[str, str]
) -> None:
    engine = EngineProcess(flags=flags)
    with running(engine, busybox_tar):
        _, info = engine.request("GET", "/info")
        assert isinstance(info, dict)
        assert info["CDISpecDirs"] == []
        done = engine.docker(*RUN, *ONE, "busybox", "true")
        assert 'could not select device driver "cdi" with capabilities: []' in done.err


def test_info_names_the_usual_folders(session_engine: EngineProcess) -> None:
    _, info = session_engine.request("GET", "/info")
    assert isinstance(info, dict)
    assert info["CDISpecDirs"] == ["/etc/cdi", "/var/run/cdi"]


# GPUs


def seen(cli: Cli, *flags: str) -> Outcome:
    return cli(*RUN, *flags, "busybox", "sh", "-c", "echo $SEEN_all $SEEN_0 $SEEN_1 $SEEN_u")


@pytest.fixture
def gpus(describe: Describe) -> Describe:
    def write(kind: str) -> None:
        names = {"0": "0", "1": "1", "all": "all", "GPU-1234": "u"}
        devices = {name: {"env": [f"SEEN_{short}={name}"]} for name, short in names.items()}
        describe(kind=kind, file=f"{kind.replace('/', '-')}.json", **devices)

    return write


@pytest.mark.parametrize("kind", ["nvidia.com/gpu", "amd.com/gpu"])
@pytest.mark.parametrize(
    ("asked", "got"),
    [
        ("all", "all"),
        ("1", "0"),
        ("2", "0 1"),
        ('"device=1,GPU-1234"', "1 GPU-1234"),
    ],
)
def test_gpus_are_those_that_are_described(
    cli: Cli, gpus: Describe, kind: str, asked: str, got: str
) -> None:
    gpus(kind)
    done = seen(cli, "--gpus", asked)
    assert done.out == f"{got}\n", str(done)


def test_gpus_by_their_drivers_and_abilities(docker_cli: Cli, gpus: Describe) -> None:
    gpus("nvidia.com/gpu")
    gpus("amd.com/gpu")
    for asked in (
        "driver=nvidia,count=1",
        "driver=nvidia.cdi,count=1",
        '"device=nvidia.com/gpu=0"',
        'count=1,"capabilities=utility,compute"',
    ):
        done = seen(docker_cli, "--gpus", asked)
        assert done.out == "0\n", (asked, str(done))
    for asked, words in (
        ("driver=amd,count=1", 'could not select device driver "amd" with capabilities: [[gpu]]'),
        ("driver=other", 'could not select device driver "other" with capabilities: [[gpu]]'),
        (
            "capabilities=tensors",
            'could not select device driver "" with capabilities: [[tensors gpu]]',
        ),
        ("3", "unresolvable CDI devices nvidia.com/gpu=2"),
    ):
        done = seen(docker_cli, "--gpus", asked)
        assert (done.code, words in done.err) == (125, True), (asked, str(done))


def test_gpus_that_are_counted_and_named_are_refused(engine: EngineProcess, gpus: Describe) -> None:
    gpus("nvidia.com/gpu")
    request = {"Count": 1, "DeviceIDs": ["0"], "Capabilities": [["gpu"]]}
    body = {"Image": "busybox", "HostConfig": {"DeviceRequests": [request]}}
    status, answer = engine.request("POST", "/containers/create", body)
    assert isinstance(answer, dict)
    assert (status, answer["message"]) == (
        400,
        "cannot set both Count and DeviceIDs on device request",
    )


def test_gpus_that_nobody_describes_are_refused_in_dockers_words(
    cli: Cli, describe: Describe
) -> None:
    describe(one={"env": ["A=b"]})
    done = cli(*RUN, "--gpus", "all", "busybox", "true")
    assert done.code == 125
    assert 'could not select device driver "" with capabilities: [[gpu]]' in done.err
