"""Every flag: berth's command line has docker's, and both ask the engine for the same container."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import pytest

from berth.cli import commands
from berth.cli.main import load
from support.programs import find, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.engine import EngineProcess

pytestmark = pytest.mark.berth_only
# Windows' own, and a swarm's.
LACKING = {"cpu-count", "cpu-percent", "io-maxbandwidth", "io-maxiops"}
LACKING |= {"help"}
LACKING |= {"cluster", "availability", "group", "limit-bytes", "required-bytes", "scope", "secret"}
LACKING |= {"sharing", "type", "topology-preferred", "topology-required", "link-local-ip"}
LACKING |= {"os-features", "os-version"}
# What names a set of flags that go together: the flags with their values.
TOGETHER = {
    "process": """
        -e A=1 --env B --env-file FILES/env -w /work -u 1000:50 -h cook --domainname kitchen.example -l a=b
        --label-file FILES/labels --entrypoint /bin/echo --stop-signal USR1 --stop-timeout 7 -i -t -a stdout
        --group-add wheel --init --annotation note=1 --name NAME --cidfile FILES/CIDFILE --expose 99/udp
        --pull missing --platform linux/amd64 --quiet --disable-content-trust
    """,
    "limits": """
        -m 64m --memory-swap 96m --memory-reservation 32m --cpu-shares 512 --cpuset-cpus 0 --cpuset-mems 0
        --cpu-period 50000 --cpu-quota 25000 --pids-limit 77 --ulimit nofile=64:128 --ulimit core=0
        --shm-size 2m --oom-score-adj 100 --memory-swappiness 5 --oom-kill-disable --blkio-weight 300
        --cgroup-parent /own --device-read-bps DISK:1mb --device-write-bps DISK:2mb
        --device-read-iops DISK:30 --device-write-iops DISK:40
        --blkio-weight-device DISK:200 --restart on-failure:3 --kernel-memory 8m
    """,
    "files": """
        -v FILES:/bound:ro -v same-name:/named -v /anonymous --tmpfs /fresh:size=64k --read-only
        --mount type=bind,source=FILES,target=/mounted,readonly
        --mount type=volume,source=other-name,target=/volume,volume-nocopy
        --mount type=tmpfs,target=/memory,tmpfs-size=1m --volume-driver local --volumes-from lender:ro
        --device /dev/null:/dev/nothing:rw --device-cgroup-rule c\\ 1:5\\ rwm
    """,
    "network": """
        --network NETWORK --ip 10.231.7.9 --network-alias one --network-alias two
        --mac-address 02:00:00:00:00:07 --link-local-ip 169.254.7.7
        -p 127.0.0.1:47090:80 -p 9 --publish-all --dns 192.0.2.1 --dns-search x.example --dns-option ndots:2
        --add-host other:192.0.2.2 --link lender:borrowed
    """,
    "security": """
        --cap-add NET_ADMIN --cap-drop MKNOD --security-opt no-new-privileges
        --security-opt seccomp=unconfined
        --sysctl net.ipv4.ip_forward=0 --pid host --ipc private --uts host --cgroupns private --userns host
        --isolation default --runtime runc --privileged --network none
    """,
    "health": """
        --health-cmd true --health-interval 5s --health-retries 4 --health-timeout 3s --health-start-period 2s
        --health-start-interval 1s --log-driver json-file --log-opt max-size=1m --rm --cpus 0.5 --network none
    """,
    "alone": "--no-healthcheck --network none",
}
# Refused, or of no meaning here; tried in tests of their own.
EMPTY = (None, "", [], {})
ELSEWHERE = {"gpus", "storage-opt", "cpu-rt-period", "cpu-rt-runtime", "ip6", "use-api-socket"}


def flags_of(name: str) -> dict[str, str]:
    """Return the flags that a command of berth takes, with their shorthands; hidden ones left out."""
    flags, _ = load(name)
    return {flag: short for flag, short, _, text in flags if text}


@pytest.mark.parametrize("name", [name for name in commands.COMMANDS if name != "serve"])
def test_a_command_has_every_flag_of_dockers(name: str) -> None:
    done = run(find("docker"), *name.split(), "--help")
    if name.startswith("system ") and "Usage:  docker system " + name.split()[1] not in done.out:
        return  # berth's own
    rows = re.findall(r"^ +(?:-(\w), | {4})--([a-z0-9-]+)", done.out, re.MULTILINE)
    found = {long: short for short, long in rows if long not in LACKING}
    assert flags_of(name) == {**flags_of(name), **found}


def test_every_flag_of_create_is_among_those_that_are_compared() -> None:
    said = set(re.findall(r"(?<=\s)-{1,2}([a-z][a-z0-9-]*)", " ".join(TOGETHER.values())))
    flags = flags_of("create")
    named = {flag for flag, short in flags.items() if flag in said or (short and short in said)}
    assert set(flags) - named - ELSEWHERE == set()


@pytest.fixture
def lent(engine: EngineProcess, tmp_path: Path) -> Iterator[dict[str, str]]:
    """What the flags name: files, a network, a container that lends volumes."""
    (tmp_path / "env").write_text("FROM_FILE=yes\n")
    (tmp_path / "labels").write_text("from.file=yes\n")
    engine.docker("network", "create", "--subnet", "10.231.7.0/24", "flags-network")
    engine.docker("create", "--name", "lender", "-v", "/lent", "busybox", "true")
    disks = (f"/dev/{name}" for name in sorted(os.listdir("/sys/block")))
    disk = next((path for path in disks if os.path.exists(path)), None)
    if disk is None:
        pytest.skip("needs a block device")
    yield {"FILES": str(tmp_path), "NETWORK": "flags-network", "DISK": disk}
    engine.remove_containers()
    engine.docker("network", "rm", "flags-network")
    engine.docker("volume", "rm", "same-name", "other-name")


def made(document: dict[str, object], which: str) -> dict[str, object]:
    """Return what was asked for, without what differs from one container to the next."""
    config, host, networks = document["Config"], document["HostConfig"], document["NetworkSettings"]
    assert isinstance(config, dict)
    assert isinstance(host, dict)
    assert isinstance(networks, dict)
    config["Env"] = sorted(config["Env"])  # the docker CLI's order is not always the same
    host["Binds"] = sorted(host["Binds"] or [])
    host["ContainerIDFile"] = str(host["ContainerIDFile"]).replace(which, "")
    if len(config["Hostname"]) == 12:
        config["Hostname"] = ""
    mounts = document["Mounts"]
    assert isinstance(mounts, list)
    for mount in mounts:
        if len(mount.get("Name", "")) == 64:
            mount |= {"Name": "", "Source": ""}
    for mount in host.get("Mounts") or []:
        if mount["VolumeOptions"]:  # the docker CLI names a driver without a name
            mount["VolumeOptions"].pop("DriverConfig")
    return {
        "config": config,
        "host": host,
        "networks": networks["Networks"],
        "mounts": sorted(mounts, key=lambda mount: mount["Destination"]),
        "process": (document["Path"], document["Args"], document["Platform"]),
    }


def differences(one: object, other: object, path: str = "") -> list[str]:
    """Return where two documents differ, and how."""
    if not (isinstance(one, dict) and isinstance(other, dict)):
        both_empty = (
            one in EMPTY and other in EMPTY
        )  # the docker CLI sends empty lists, ours nothing
        return [] if one == other or both_empty else [f"{path}: {one!r} is not {other!r}"]
    return [
        text
        for key in sorted(one.keys() | other.keys())
        for text in differences(one.get(key), other.get(key), f"{path}.{key}")
    ]


@pytest.mark.parametrize("name", TOGETHER)
def test_both_command_lines_ask_for_the_same_container(
    engine: EngineProcess, lent: dict[str, str], name: str
) -> None:
    found, warnings = [], []
    for which, cli in (("docker", engine.docker), ("berth", engine.berth)):
        words = [
            word.replace("\\ ", " ") for word in re.split(r"(?<!\\)\s+", TOGETHER[name].strip())
        ]
        for key, value in {**lent, "NAME": which, "CIDFILE": f"cid-{which}"}.items():
            words = [word.replace(key, value) for word in words]
        done = cli("create", *words, "busybox", "one", "two", env={"B": "from the environment"})
        assert done.code == 0, str(done)
        id_ = done.lines[-1]
        found.append(made(engine.inspect(id_), which))
        warnings.append(sorted(line for line in done.err.splitlines() if "WARNING" in line))
        assert engine.docker("rm", "-fv", id_).code == 0
    different = differences(*found)
    assert not different, "\n".join(different)
    assert warnings[0] == warnings[1]
