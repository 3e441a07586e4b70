"""Traffic that is limited, late or lost on purpose, compared with other traffic."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

import pytest

from system.test_networks import Places, settings, start

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from support.engine import EngineProcess
    from system.test_networks import Cli

pytestmark = pytest.mark.berth_only

AMOUNT = 500_000


@pytest.fixture
def places(other_network: str) -> Iterator[Places]:
    found = Places(os.open(f"/run/netns/{other_network}", os.O_RDONLY))
    yield found
    found.close()


@pytest.fixture
def network(engine: EngineProcess) -> Iterator[str]:
    engine.docker("network", "create", "shaped")
    yield "shaped"
    engine.remove_containers()
    engine.request("DELETE", "/networks/shaped")


def pair(engine: EngineProcess, places: Places, name: str) -> tuple[int, socket.socket, str]:
    """Return a container's namespace, a server in it, and its address."""
    fd = places.of(engine, name)
    server = places.listen(fd, 80)
    return fd, server, settings(engine, name)["Networks"]["shaped"]["IPAddress"]


def transfer(places: Places, server: socket.socket, client_fd: int, address: str) -> float:
    """Send an amount of bytes to a server, and return how many arrived a second."""
    client = places.socket(client_fd)
    client.settimeout(60)
    client.connect((address, 80))
    accepted, _ = server.accept()
    accepted.settimeout(60)
    places._sockets.append(accepted)
    thread = threading.Thread(target=client.sendall, args=(bytes(AMOUNT),))
    started = time.monotonic()
    thread.start()
    missing = AMOUNT
    while missing:
        missing -= len(accepted.recv(65536))
    thread.join()
    return AMOUNT / (time.monotonic() - started)


@pytest.mark.parametrize("how", ["run", "network", "shape"])
def test_a_rate_holds_in_each_direction(
    docker_cli: Cli, berth_cli: Cli, engine: EngineProcess, places: Places, network: str, how: str
) -> None:
    rate = 500_000  # bytes a second
    if how == "run":
        start(docker_cli, "slow", "--network", f"name={network},driver-opt=berth.rate=4mbit")
    elif how == "network":
        docker_cli("network", "rm", network)
        docker_cli("network", "create", "-o", "berth.rate=4mbit", network)
        start(docker_cli, "slow", "--network", network)
    else:
        start(docker_cli, "slow", "--network", network)
        done = berth_cli("network", "shape", "--rate", "500kbps", network, "slow")
        assert done.code == 0, str(done)
    start(docker_cli, "quick", "--network", network)
    if how == "network":
        assert berth_cli("network", "shape", "--rate", "0", network, "quick").code == 0
    slow_fd, slow, slow_address = pair(engine, places, "slow")
    quick_fd, quick, quick_address = pair(engine, places, "quick")
    gateway = places.host_fd
    free = transfer(places, quick, gateway, quick_address)
    assert free > 2 * rate
    for limited in (
        transfer(places, slow, quick_fd, slow_address),
        transfer(places, quick, slow_fd, quick_address),
    ):
        assert 0.4 * rate < limited < 1.3 * rate
    if how == "shape":
        assert berth_cli("network", "shape", network, "slow").code == 0
        assert transfer(places, slow, quick_fd, slow_address) > 2 * rate


def test_a_shape_is_kept_for_the_next_start(
    docker_cli: Cli, berth_cli: Cli, engine: EngineProcess, places: Places, network: str
) -> None:
    start(docker_cli, "slow", "--network", network)
    assert berth_cli("network", "shape", "--rate", "4mbit", network, "slow").code == 0
    shown = settings(engine, "slow")["Networks"][network]
    assert shown["DriverOpts"] == {"berth.rate": "4mbit"}
    docker_cli("restart", "-t", "0", "slow")
    _, server, address = pair(engine, places, "slow")
    assert transfer(places, server, places.host_fd, address) < 1.3 * 500_000


def delayed(docker_cli: Cli, *options: str) -> None:
    """Start a container with a shape; the test is over where the kernel has no netem and says so."""
    flags = ",".join(f"driver-opt=berth.{option}" for option in options)
    done = docker_cli(
        *("run", "-d", "--name", "late", "--network", f"name=shaped,{flags}"),
        *("busybox", "sleep", "600"),
    )
    if done.code:
        assert "the kernel of this host lacks" in done.err, str(done)
        assert "sch_netem" in done.err
        docker_cli("rm", "late")
        pytest.skip("needs a kernel with sch_netem")


def test_what_a_container_sends_is_late(
    docker_cli: Cli, engine: EngineProcess, network: str
) -> None:
    delayed(docker_cli, "delay=80ms")
    start(docker_cli, "prompt", "--network", network)

    def round_trip(client: str, server: str) -> float:
        out = docker_cli("exec", client, "ping", "-c", "4", "-q", server).out
        return float(out.rpartition("= ")[2].split("/")[0])

    late = round_trip("late", "prompt")
    docker_cli("rm", "-f", "late")
    start(docker_cli, "other", "--network", network)
    assert late > 80 > round_trip("other", "prompt")


def test_what_a_container_sends_is_lost(
    docker_cli: Cli, engine: EngineProcess, network: str
) -> None:
    delayed(docker_cli, "loss=100%")
    start(docker_cli, "prompt", "--network", network)
    done = docker_cli("exec", "late", "ping", "-c", "2", "-W", "1", "-q", "prompt")
    assert done.code == 1


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("rate=fast", "invalid value of berth.rate"),
        ("delay=5h", "invalid value of berth.delay"),
        ("loss=101%", "berth.loss is 100% at most"),
        ("jitter=5ms", "berth.jitter is more than berth.delay"),
    ],
)
def test_a_shape_that_makes_no_sense_is_refused(
    docker_cli: Cli, network: str, option: str, text: str
) -> None:
    flag = f"name={network},driver-opt=berth.{option}"
    done = docker_cli("create", "--network", flag, "busybox", "true")
    assert (done.code, text in done.err) == (1, True), str(done)
    made = docker_cli("network", "create", "-o", f"berth.{option}", "other")
    assert (made.code, text in made.err) == (1, True), str(made)


def test_what_is_not_connected_is_not_shaped(berth_cli: Cli, docker_cli: Cli, network: str) -> None:
    start(docker_cli, "elsewhere")
    done = berth_cli("network", "shape", "--rate", "1mbit", network, "elsewhere")
    assert done.code == 1
    assert "is not connected to network shaped" in done.err
