"""Networks of other containers (`--network container:NAME`), also by way of third ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.engine import EngineProcess
    from support.programs import Outcome

    Cli = Callable[..., Outcome]

INSIDE = "readlink /proc/self/ns/net; hostname; cat /etc/hosts /etc/resolv.conf"


def start(cli: Cli, name: str, *flags: str) -> None:
    done = cli("run", "-d", "--name", name, *flags, "busybox", "sleep", "600")
    assert done.code == 0, str(done)


def devices(cli: Cli, name: str) -> list[str]:
    return cli("exec", name, "ls", "/sys/class/net").lines


def reaches(cli: Cli, name: str, address: str) -> bool:
    return cli("exec", name, "ping", "-c", "1", "-W", "5", address).code == 0


def test_a_network_is_shared_by_way_of_a_container_that_shares_it(
    cli: Cli, networks: EngineProcess
) -> None:
    for name in ("own", "more"):
        assert cli("network", "create", name).code == 0
    start(cli, "owner", "--network", "own", "--hostname", "owner-host")
    start(cli, "guest", "--network", "container:owner")
    start(cli, "third", "--network", "container:guest")

    def inside(name: str) -> str:
        return cli("exec", name, "sh", "-c", INSIDE).out

    assert inside("third") == inside("guest") == inside("owner")
    owner, third = networks.inspect("owner"), networks.inspect("third")
    assert third["HostConfig"]["NetworkMode"] == f"container:{networks.inspect('guest')['Id']}"
    for path in ("HostsPath", "HostnamePath", "ResolvConfPath"):
        assert third[path] == owner[path]
    for verb, network in (("connect", "more"), ("connect", "none"), ("connect", "host")):
        done = cli("network", verb, network, "third")
        assert "container sharing network namespace with another container or host" in done.err
    done = cli("network", "disconnect", "own", "third")
    assert f"container {third['Id']} is not connected to network own" in done.err
    assert cli("network", "connect", "more", "owner").code == 0
    assert len(devices(cli, "third")) == 3
    assert inside("third") == inside("owner")
    assert cli("restart", "-t", "0", "third").code == 0
    assert inside("third") == inside("owner")


@pytest.mark.parametrize("is_removed", [False, True], ids=["stopped", "removed"])
def test_who_shares_a_network_by_way_of_one_that_is_gone_loses_it_with_its_owner(
    docker_cli: Cli, networks: EngineProcess, *, is_removed: bool
) -> None:
    cli = docker_cli
    assert cli("network", "create", "--subnet", "10.99.7.0/24", "own").code == 0
    start(cli, "owner", "--network", "own", "--ip", "10.99.7.7", "--hostname", "owner-host")
    start(cli, "guest", "--network", "container:owner")
    start(cli, "third", "--network", "container:guest")
    assert cli(*(("rm", "-f") if is_removed else ("stop", "-t", "0")), "guest").code == 0
    assert "10.99.7.7" in cli("exec", "third", "cat", "/etc/hosts").out
    assert cli("stop", "-t", "0", "owner").code == 0
    assert devices(cli, "third") == ["lo"]
    assert "10.99.7.7" not in cli("exec", "third", "cat", "/etc/hosts").out
    assert cli("start", "owner").code == 0
    assert devices(cli, "third") == ["lo"]
    assert "10.99.7.7" in cli("exec", "third", "cat", "/etc/hosts").out
    start(cli, "other", "--network", "own")
    assert reaches(cli, "other", "10.99.7.7")
    again = cli("restart", "-t", "0", "third")
    words = "No such container" if is_removed else "cannot join network of a non running container"
    assert words in again.err


def test_what_an_owner_left_is_shared_without_its_files(cli: Cli, engine: EngineProcess) -> None:
    start(cli, "owner")
    start(cli, "guest", "--network", "container:owner")
    assert cli("rm", "-f", "owner").code == 0
    start(cli, "third", "--network", "container:guest")
    spaces = [cli("exec", name, "readlink", "/proc/self/ns/net").out for name in ("guest", "third")]
    assert spaces[0] == spaces[1]


@pytest.mark.parametrize("mode", ["host", "none"])
def test_a_network_that_is_no_bridge_is_shared_by_way_of_others(
    cli: Cli, engine: EngineProcess, mode: str
) -> None:
    start(cli, "owner", "--network", mode)
    start(cli, "guest", "--network", "container:owner")
    start(cli, "third", "--network", "container:guest")
    shown = [cli("exec", name, "sh", "-c", INSIDE).out for name in ("owner", "guest", "third")]
    assert shown[0] == shown[1] == shown[2]
    used = cli("stats", "--no-stream", "--format", "{{.NetIO}}", "third")
    assert used.out == "0B / 0B\n"


def test_nobody_shares_a_network_with_itself(cli: Cli, engine: EngineProcess) -> None:
    done = cli("run", "--name", "self", "--network", "container:self", "busybox", "true")
    assert "cannot join own network" in done.err
    assert cli("create", "--name", "one", "--network", "container:two", "busybox", "true").code == 0
    assert cli("create", "--name", "two", "--network", "container:one", "busybox", "true").code == 0
    assert "cannot join network of a non running container" in cli("start", "two").err
