"""Networks through the command lines: real traffic, published ports, names, and what clients are shown."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest

from support import kernel
from support.networks import Neighbourhood
from support.programs import find, run
from support.waiting import wait_for
from system.conftest import assert_gone, import_busybox, make_engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.engine import EngineProcess
    from support.programs import Outcome

    Cli = Callable[..., Outcome]

HOST, OUTSIDE = "198.18.77.1", "198.18.77.2"
DGRAM = socket.SOCK_DGRAM

pytestmark = pytest.mark.berth_only  # the reference has a host of its own, without the outside


class Places(Neighbourhood):
    """Sockets in the host, in the namespace outside of it, and in containers by their names."""

    def __init__(self, outside_fd: int) -> None:
        super().__init__(outside_fd)
        self._fds = [outside_fd]

    def of(self, engine: EngineProcess, name: str) -> int:
        """Return the network namespace of a running container."""
        pid = engine.inspect(name)["State"]["Pid"]
        self._fds.append(os.open(f"/proc/{pid}/ns/net", os.O_RDONLY))
        return self._fds[-1]

    def ask(self, server: socket.socket, client_fd: int, address: tuple[str, int]) -> str:
        """Send a datagram, have it answered, and return the address that the server saw."""
        client = self.socket(client_fd, DGRAM)
        client.connect(address)
        client.send(b"question")
        data, peer = server.recvfrom(100)
        assert data == b"question"
        server.sendto(b"answer", peer)
        assert client.recv(100) == b"answer"
        return peer[0]

    def datagrams(self, fd: int, port: int) -> socket.socket:
        """Return a socket that gets datagrams."""
        sock = self.socket(fd, DGRAM)
        sock.bind(("0.0.0.0", port))
        return sock

    def close(self) -> None:
        super().close()
        while self._fds:
            os.close(self._fds.pop())


@pytest.fixture
def places(other_network: str) -> Iterator[Places]:
    found = Places(os.open(f"/run/netns/{other_network}", os.O_RDONLY))
    yield found
    found.close()


def start(cli: Cli, name: str, *flags: str) -> None:
    done = cli("run", "-d", "--name", name, *flags, "busybox", "sleep", "600")
    assert done.code == 0, str(done)


def settings(engine: EngineProcess, name: str) -> dict:
    return engine.inspect(name)["NetworkSettings"]


def address(engine: EngineProcess, name: str, network: str = "bridge") -> str:
    return settings(engine, name)["Networks"][network]["IPAddress"]


def reaches(cli: Cli, name: str, address: str) -> bool:
    return cli("exec", name, "ping", "-c", "1", "-W", "5", address).code == 0


# The default bridge


def test_a_container_reaches_the_world_as_its_host(
    cli: Cli, engine: EngineProcess, places: Places
) -> None:
    start(cli, "client")
    inside = places.of(engine, "client")
    server = places.listen(places.outside_fd, 9000)
    assert places.talk(server, inside, (OUTSIDE, 9000)) == HOST
    assert places.ask(places.datagrams(places.outside_fd, 9001), inside, (OUTSIDE, 9001)) == HOST
    pinged = cli("exec", "client", "ping", "-c", "1", "-W", "5", OUTSIDE)
    assert pinged.code == 0, str(pinged)


def test_a_published_port_is_reached_from_everywhere(
    cli: Cli, engine: EngineProcess, places: Places
) -> None:
    start(cli, "server", "-p", "18080:80", "-p", "18053:53/udp")
    start(cli, "other")
    gateway = settings(engine, "server")["Networks"]["bridge"]["Gateway"]
    inside, other = places.of(engine, "server"), places.of(engine, "other")
    server, names = places.listen(inside, 80), places.datagrams(inside, 53)
    for client, host, seen in (
        (places.outside_fd, HOST, OUTSIDE),
        (places.host_fd, "127.0.0.1", gateway),
        (places.host_fd, HOST, HOST),
        (places.host_fd, gateway, gateway),
        (other, HOST, gateway),
        (other, gateway, gateway),
        (inside, HOST, gateway),
    ):
        assert places.talk(server, client, (host, 18080)) == seen
        assert places.ask(names, client, (host, 18053)) == seen
    there = address(engine, "server")
    assert places.talk(server, other, (there, 80)) == address(engine, "other")
    assert places.talk(server, places.host_fd, (there, 80)) == gateway


def test_programs_in_containers_talk_to_each_other(cli: Cli, engine: EngineProcess) -> None:
    script = "echo hello > /tmp/index.html; exec httpd -f -p 80 -h /tmp"
    cli("run", "-d", "--name", "web", "-p", "18080:80", "busybox", "sh", "-c", script)
    fetch = "for i in 1 2 3 4 5 6 7 8 9; do wget -qO- http://$0/ && exit; sleep 0.2; done; exit 1"
    gateway = settings(engine, "web")["Networks"]["bridge"]["Gateway"]
    for target in (address(engine, "web"), f"{gateway}:18080"):
        got = cli("run", "--rm", "busybox", "sh", "-c", fetch, target)
        assert (got.code, got.out) == (0, "hello\n"), str(got)


def test_a_port_on_one_address_of_the_host_is_there_only(
    cli: Cli, engine: EngineProcess, places: Places
) -> None:
    start(cli, "server", "-p", "127.0.0.1:18080:80")
    server = places.listen(places.of(engine, "server"), 80)
    assert places.talk(server, places.host_fd, ("127.0.0.1", 18080))
    assert places.socket(places.host_fd).connect_ex((HOST, 18080)) != 0
    assert places.socket(places.outside_fd).connect_ex((HOST, 18080)) != 0


def test_every_form_of_a_port_is_shown_as_docker_shows_it(cli: Cli, engine: EngineProcess) -> None:
    start(
        cli,
        "shown",
        *("-p", "18080:80", "-p", "127.0.0.1:18053:53/udp", "-p", "17000-17001:17000-17001"),
        *("--expose", "99", "-p", "127.0.0.1::90"),
    )
    shown = settings(engine, "shown")["Ports"]
    random = shown.pop("90/tcp")
    assert random[0]["HostIp"] == "127.0.0.1"
    assert 32768 <= int(random[0]["HostPort"]) < 61000
    assert shown == {
        "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "18080"}],
        "53/udp": [{"HostIp": "127.0.0.1", "HostPort": "18053"}],
        "17000/tcp": [{"HostIp": "0.0.0.0", "HostPort": "17000"}],
        "17001/tcp": [{"HostIp": "0.0.0.0", "HostPort": "17001"}],
        "99/tcp": None,
    }
    assert cli("port", "shown").lines == [
        "53/udp -> 127.0.0.1:18053",
        "80/tcp -> 0.0.0.0:18080",
        f"90/tcp -> 127.0.0.1:{random[0]['HostPort']}",
        "17000/tcp -> 0.0.0.0:17000",
        "17001/tcp -> 0.0.0.0:17001",
    ]
    assert cli("port", "shown", "80").out == "0.0.0.0:18080\n"
    assert cli("port", "shown", "53/udp").out == "127.0.0.1:18053\n"
    missing = cli("port", "shown", "81")
    assert missing.code == 1
    assert "No public port '81' published for shown" in missing.err
    assert cli("ps", "--format", "{{.Ports}}").out == (
        "99/tcp, 0.0.0.0:17000-17001->17000-17001/tcp, 127.0.0.1:18053->53/udp, "
        f"0.0.0.0:18080->80/tcp, 127.0.0.1:{random[0]['HostPort']}->90/tcp\n"
    )


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        (["publish=47085"], ["web"]),
        (["publish=80"], []),  # the container's port, not the host's
        (["publish=47085/udp"], []),
        (["publish=47000-47090/tcp"], ["web"]),
        (["publish=47086/udp"], ["name"]),
        (["expose=80"], ["web"]),
        (["expose=70-90", "publish=47086/udp"], ["name", "web"]),  # either
        (["expose=53/udp", "label=none"], []),
    ],
)
def test_containers_are_found_by_their_ports(
    cli: Cli, engine: EngineProcess, filters: list[str], found: list[str]
) -> None:
    start(cli, "web", "-p", "127.0.0.1:47085:80")
    start(cli, "name", "-p", "127.0.0.1:47086:53/udp")
    cli("create", "--name", "idle", "-p", "127.0.0.1:47085:80", "busybox")
    flags = [word for text in filters for word in ("--filter", text)]
    assert sorted(cli("ps", "-a", *flags, "--format", "{{.Names}}").lines) == found


def test_containers_are_found_by_their_network(cli: Cli, networks: EngineProcess) -> None:
    id_ = cli("network", "create", "own").out.strip()
    start(cli, "member", "--network", "own")
    start(cli, "other")
    for value in ("own", id_, id_[:12]):
        assert cli("ps", "-a", "-f", f"network={value}", "--format", "{{.Names}}").out == "member\n"
    assert cli("ps", "-a", "-q", "-f", "network=ow").out == ""


@pytest.mark.parametrize("value", ["x", "80-x", "0x50"])
def test_a_filter_for_ports_that_are_none_is_refused(
    cli: Cli, engine: EngineProcess, value: str
) -> None:
    done = cli("ps", "--filter", f"publish={value}")
    assert (done.code, f"error while looking up for publish {value}" in done.err) == (1, True)


def test_publish_all_publishes_what_is_exposed(
    cli: Cli, engine: EngineProcess, places: Places
) -> None:
    start(cli, "exposed", "-P", "--expose", "80", "--expose", "53/udp")
    ports = settings(engine, "exposed")["Ports"]
    server = places.listen(places.of(engine, "exposed"), 80)
    assert places.talk(server, places.outside_fd, (HOST, int(ports["80/tcp"][0]["HostPort"])))
    assert ports["53/udp"][0]["HostIp"] == "0.0.0.0"


def test_a_port_of_a_container_is_refused_to_the_next(cli: Cli, engine: EngineProcess) -> None:
    start(cli, "first", "-p", "18080:80")
    done = cli(
        "run", "-d", "--name", "second", "-p", "18081:81", "-p", "18080:80", "busybox", "true"
    )
    assert done.code == 125
    assert "driver failed programming external connectivity on endpoint second (" in done.err
    assert "): Bind for 0.0.0.0:18080 failed: port is already allocated" in done.err
    state = engine.inspect("second")["State"]
    assert (state["Status"], state["ExitCode"], state["Pid"]) == ("created", 128, 0)
    assert "port is already allocated" in state["Error"]
    assert settings(engine, "second")["Ports"] == {}
    start(cli, "third", "-p", "18081:81")
    cli("rm", "-f", "first")
    assert cli("start", "second").code == 1  # the third has its other port
    cli("rm", "-f", "third")
    assert cli("start", "second").code == 0


@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_a_port_of_a_process_of_the_host_is_refused(
    cli: Cli, engine: EngineProcess, places: Places, kind: str
) -> None:
    server = places.socket(places.host_fd, socket.SOCK_STREAM if kind == "tcp" else DGRAM)
    server.bind(("0.0.0.0", 18080))
    if kind == "tcp":
        server.listen()
    done = cli("run", "--rm", "-p", f"18080:80/{kind}", "busybox", "true")
    assert done.code == 125
    assert "failed to bind host port for 0.0.0.0:18080:" in done.err
    assert f":80/{kind}: address already in use" in done.err


def test_an_address_that_the_host_does_not_have_is_refused(cli: Cli) -> None:
    done = cli("run", "--rm", "-p", "203.0.113.9:18080:80", "busybox", "true")
    assert done.code == 125
    assert "cannot assign requested address" in done.err


# Names and resolvers


def test_hosts_and_resolv_conf_are_as_docker_writes_them(cli: Cli, engine: EngineProcess) -> None:
    start(
        cli,
        "named",
        *("--hostname", "here", "--add-host", "there:192.0.2.9", "--add-host"),
        *("gate:host-gateway", "--dns", "192.0.2.53", "--dns-search", "example.org"),
        *("--dns-option", "ndots:2"),
    )
    shown = settings(engine, "named")["Networks"]["bridge"]
    hosts = cli("exec", "named", "cat", "/etc/hosts").lines
    assert hosts[:1] == ["127.0.0.1\tlocalhost"]
    assert hosts[-3:] == [
        "192.0.2.9\tthere",
        f"{shown['Gateway']}\tgate",
        f"{shown['IPAddress']}\there",
    ]
    assert sorted(cli("exec", "named", "cat", "/etc/resolv.conf").lines) == [
        "nameserver 192.0.2.53",
        "options ndots:2",
        "search example.org",
    ]
    assert cli("exec", "named", "hostname").out == "here\n"


def test_a_mac_address_that_was_chosen_is_shown_before_the_start(
    docker_cli: Cli, engine: EngineProcess
) -> None:
    mac = "02:42:ac:11:00:99"
    assert docker_cli("create", "--name", "later", "--mac-address", mac, "busybox").code == 0
    assert settings(engine, "later")["Networks"]["bridge"]["MacAddress"] == mac


def test_a_mac_address_can_be_chosen(docker_cli: Cli) -> None:
    shown = docker_cli(
        *("run", "--rm", "--mac-address", "02:00:00:00:00:07", "busybox"),
        *("cat", "/sys/class/net/eth0/address"),
    )
    assert shown.out == "02:00:00:00:00:07\n"


def test_a_container_may_share_the_network_of_another(cli: Cli, engine: EngineProcess) -> None:
    start(cli, "owner", "--hostname", "owner-host", "--add-host", "there:192.0.2.9")
    done = cli(
        *("run", "--rm", "--network", "container:owner", "busybox", "sh", "-c"),
        "readlink /proc/self/ns/net; cat /etc/hosts; hostname",
    )
    inside = cli(
        "exec", "owner", "sh", "-c", "readlink /proc/self/ns/net; cat /etc/hosts; hostname"
    )
    assert done.out == inside.out
    start(cli, "guest", "--network", "container:owner")
    document = engine.inspect("guest")
    owner = engine.inspect("owner")["Id"]
    assert document["HostConfig"]["NetworkMode"] == f"container:{owner}"
    assert document["NetworkSettings"]["Networks"] == {}
    assert document["HostsPath"] == engine.inspect("owner")["HostsPath"]


def test_one_that_starts_again_is_found_though_another_is_left_in_its_former_network(
    cli: Cli, networks: EngineProcess
) -> None:
    assert cli("network", "create", "--subnet", "10.99.7.0/24", "own").code == 0
    start(cli, "owner", "--network", "own", "--ip", "10.99.7.7")
    start(cli, "guest", "--network", "container:owner")
    start(cli, "other", "--network", "own")
    assert reaches(cli, "other", "10.99.7.7")
    assert cli("restart", "-t", "0", "owner").code == 0
    assert reaches(cli, "other", "10.99.7.7")
    assert "eth0" not in cli("exec", "guest", "ip", "link").out


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (("-p", "18080:80"), "port publishing and the container type network mode"),
        (("--hostname", "x"), "hostname and the network mode"),
        (("--add-host", "x:192.0.2.9"), "custom host-to-IP mapping and the network mode"),
        (("--dns", "192.0.2.9"), "dns and the network mode"),
        (("--expose", "80"), "port exposing and the container type network mode"),
    ],
)
def test_what_a_shared_network_cannot_have_is_refused(
    cli: Cli, flags: tuple[str, ...], text: str
) -> None:
    start(cli, "owner")
    done = cli("run", "--rm", "--network", "container:owner", *flags, "busybox", "true")
    assert done.code == 125
    assert f"conflicting options: {text}" in done.err


def test_the_network_of_a_container_that_does_not_run_cannot_be_shared(cli: Cli) -> None:
    cli("create", "--name", "still", "busybox", "true")
    done = cli("run", "--rm", "--network", "container:still", "busybox", "true")
    assert done.code == 125
    assert "cannot join network of a non running container: " in done.err
    done = cli("run", "--rm", "--network", "container:missing", "busybox", "true")
    assert done.code == 125
    assert "No such container: missing" in done.err


def test_links_write_the_other_ones_address_and_ports(cli: Cli, engine: EngineProcess) -> None:
    start(cli, "server", "--expose", "80")
    done = cli("run", "--rm", "--link", "server:db", "busybox", "sh", "-c", "cat /etc/hosts; env")
    there, id_ = address(engine, "server"), engine.inspect("server")["Id"][:12]
    assert f"{there}\tdb {id_} server" in done.lines
    assert f"DB_PORT_80_TCP=tcp://{there}:80" in done.lines
    assert f"DB_PORT=tcp://{there}:80" in done.lines
    missing = cli("run", "--rm", "--link", "nobody", "busybox", "true")
    assert missing.code == 125
    assert "ould not get container for nobody" in missing.err


def test_links_follow_a_container_that_starts_again(cli: Cli, engine: EngineProcess) -> None:
    start(cli, "server")
    start(cli, "client", "--link", "server:db")
    before = address(engine, "server")
    cli("stop", "-t", "0", "server")
    start(cli, "squatter")  # the next address is another
    for verb in ("disconnect", "connect"):  # and the former one is forgotten
        assert cli("network", verb, "bridge", "server").code == 0
    cli("start", "server")
    there, id_ = address(engine, "server"), engine.inspect("server")["Id"][:12]
    assert there != before
    hosts = cli("exec", "client", "cat", "/etc/hosts").lines
    assert f"{there}\tdb {id_} server" in hosts
    assert not [line for line in hosts if line.startswith(f"{before}\t")]
    assert cli("exec", "client", "ping", "-c", "1", "-W", "5", "db").code == 0


def test_the_host_has_a_name_in_every_network(cli: Cli, networks: EngineProcess) -> None:
    cli("network", "create", "named")
    for network in ("bridge", "named"):
        done = cli(
            *("run", "--rm", "--network", network, "busybox"),
            *("ping", "-c", "1", "-W", "5", "host.docker.internal"),
        )
        assert done.code == 0, str(done)


def test_the_hosts_network_comes_with_the_hosts_names(cli: Cli) -> None:
    done = cli("run", "--rm", "--network", "host", "busybox", "cat", "/etc/hosts")
    with open("/etc/hosts") as file:
        assert done.out == file.read()


# Several engines, crashes


def elements(engine: EngineProcess) -> list[str]:
    return kernel.elements(engine.instance)


def test_two_engines_do_not_meet(engine: EngineProcess, busybox_tar: bytes, places: Places) -> None:
    second = make_engine()
    try:
        second.start()
        import_busybox(second, busybox_tar)
        start(engine.docker, "mine", "-p", "18080:80")
        start(second.docker, "theirs", "-p", "18081:80")
        mine, theirs = settings(engine, "mine"), settings(second, "theirs")
        assert mine["Networks"]["bridge"]["Gateway"] != theirs["Networks"]["bridge"]["Gateway"]
        servers = [
            places.listen(places.of(e, n), 80) for e, n in ((engine, "mine"), (second, "theirs"))
        ]
        for port, server in zip((18080, 18081), servers, strict=True):
            assert places.talk(server, places.outside_fd, (HOST, port)) == OUTSIDE
        taken = second.docker("run", "--rm", "-p", "18080:80", "busybox", "true")
        assert (taken.code, "address already in use" in taken.err) == (125, True)
        second.remove_containers()
        second.wait_settled()
    finally:
        second.close()
    assert_gone(second)
    assert places.talk(servers[0], places.outside_fd, (HOST, 18080)) == OUTSIDE


def test_an_engine_that_would_take_another_ones_networks_for_its_own_does_not_start(
    cli: Cli, engine: EngineProcess, tmp_path: Path
) -> None:
    start(cli, "kept")
    script = f'mount -t tmpfs none "{engine.data_root}" && exec "$@"'
    done = run(
        *("timeout", "20", "unshare", "--mount", "sh", "-c", script, "sh"),
        *(sys.executable, "-m", "berth", "serve", "-H", f"unix://{tmp_path}/other.sock"),
        *("--data-root", str(engine.data_root), "--exec-root", str(tmp_path / "exec")),
    )
    assert done.code == 1
    assert f"its data root is called {engine.data_root}, too" in done.err
    assert cli("exec", "kept", "true").code == 0


def test_a_port_that_came_with_a_live_connection_is_held_while_the_engine_is_away(
    fresh_engine: EngineProcess, places: Places
) -> None:
    cli = fresh_engine.docker
    cli("network", "create", "inner", "--internal")
    start(cli, "late", "--network", "inner", "-p", "18080:80")
    assert cli("network", "connect", "bridge", "late").code == 0
    server = places.listen(places.of(fresh_engine, "late"), 80)
    for _ in range(2):  # the next berthd has them from the monitor, and leaves them to it
        fresh_engine.kill()
        assert places.talk(server, places.outside_fd, (HOST, 18080)) == OUTSIDE
        with pytest.raises(OSError, match="in use"):
            places.socket(places.host_fd).bind(("0.0.0.0", 18080))
        fresh_engine.start()
        with pytest.raises(OSError, match="in use"):
            places.socket(places.host_fd).bind(("0.0.0.0", 18080))
    assert cli("rm", "-f", "late").code == 0
    places.socket(places.host_fd).bind(("0.0.0.0", 18080))


def test_more_ports_than_one_message_carries_are_held(
    fresh_engine: EngineProcess, places: Places
) -> None:
    start(fresh_engine.docker, "many", "-p", "18000-18999:8000-8999")
    server = places.listen(places.of(fresh_engine, "many"), 8999)
    for _ in range(2):
        fresh_engine.kill()
        assert places.talk(server, places.outside_fd, (HOST, 18999)) == OUTSIDE
        for port in (18000, 18500, 18999):
            with pytest.raises(OSError, match="in use"):
                places.socket(places.host_fd).bind(("0.0.0.0", port))
        fresh_engine.start()


def test_ports_and_addresses_outlive_a_killed_engine(
    fresh_engine: EngineProcess, places: Places
) -> None:
    start(fresh_engine.docker, "kept", "-p", "18080:80")
    start(fresh_engine.docker, "gone", "-p", "18081:80")
    before = settings(fresh_engine, "kept")
    server = places.listen(places.of(fresh_engine, "kept"), 80)
    pid = fresh_engine.inspect("gone")["State"]["Pid"]
    fresh_engine.kill()
    assert places.talk(server, places.outside_fd, (HOST, 18080)) == OUTSIDE
    os.kill(pid, 9)
    fresh_engine.start()
    assert settings(fresh_engine, "kept") == before
    assert len(elements(fresh_engine)) == 1
    assert places.talk(server, places.outside_fd, (HOST, 18080)) == OUTSIDE
    start(fresh_engine.docker, "next", "-p", "18081:80")
    assert address(fresh_engine, "next") != before["Networks"]["bridge"]["IPAddress"]
    refused = fresh_engine.docker("run", "--rm", "-p", "18080:80", "busybox", "true")
    assert "port is already allocated" in refused.err


def test_a_killed_monitor_leaves_no_port_and_no_link(fresh_engine: EngineProcess) -> None:
    start(fresh_engine.docker, "orphan", "-p", "18080:80")
    pid = fresh_engine.inspect("orphan")["State"]["Pid"]
    with open(f"/proc/{pid}/stat") as file:
        monitor = int(file.read().rpartition(")")[2].split()[1])
    os.kill(monitor, 9)
    done = fresh_engine.docker("wait", "orphan")
    assert done.code == 0
    assert elements(fresh_engine) == []
    start(fresh_engine.docker, "next", "-p", "18080:80")


STEADY = 20  # so many listings in a row


@pytest.mark.parametrize(
    "words",
    [
        ("flush", "ruleset"),
        ("flush", "table", "ip", "{table}"),
        ("delete", "table", "bridge", "{table}"),
        ("flush", "chain", "ip", "{table}", "forward"),
    ],
    ids=" ".join,
)
def test_rules_that_somebody_takes_away_come_back_by_themselves(
    fresh_engine: EngineProcess, places: Places, words: tuple[str, ...]
) -> None:
    nft, table = find("nft"), fresh_engine.instance.table

    def listed() -> str:
        return "".join(run(nft, "list", "table", f, table).out for f in ("ip", "bridge"))

    start(fresh_engine.docker, "server", "-p", "18080:80")
    server = places.listen(places.of(fresh_engine, "server"), 80)
    seen: list[str] = []

    def is_steady() -> bool:
        """Namespaces for the next containers are made in the background, and have rules, too."""
        seen.append(listed())
        return len(seen) >= STEADY and len(set(seen[-STEADY:])) == 1

    wait_for(is_steady, "the rules stay as they are")
    before = sorted(seen[-1].split())
    run(nft, *(word.format(table=table) for word in words), check=True)
    wait_for(lambda: sorted(listed().split()) == before, "the rules are back")
    assert places.talk(server, places.outside_fd, (HOST, 18080)) == OUTSIDE
    assert fresh_engine.log.read_text().count("was changed by somebody else, restoring it") == 1


def test_a_flushed_table_comes_back_with_the_next_change_or_start(
    fresh_engine: EngineProcess, places: Places
) -> None:
    start(fresh_engine.docker, "server", "-p", "18080:80")
    server = places.listen(places.of(fresh_engine, "server"), 80)
    for words in (("flush", "table"), ("delete", "table")):
        run(find("nft"), *words, "ip", fresh_engine.instance.table, check=True)
        start(fresh_engine.docker, words[0], "-p", "18081:81")
        assert len(elements(fresh_engine)) == 2
        assert places.talk(server, places.outside_fd, (HOST, 18080)) == OUTSIDE
        fresh_engine.docker("rm", "-f", words[0])
        assert len(elements(fresh_engine)) == 1
    fresh_engine.kill()
    run(find("nft"), "flush", "table", "ip", fresh_engine.instance.table, check=True)
    fresh_engine.start()
    assert places.talk(server, places.outside_fd, (HOST, 18080)) == OUTSIDE


# Networks of one's own


def lookup(cli: Cli, name: str, what: str, *flags: str) -> list[str]:
    """Return the addresses that a container's resolver gives for a name."""
    done = cli("exec", name, "nslookup", *flags, what)
    lines = done.out.split("\n\n", 1)[-1].splitlines()
    return sorted(line.split()[-1] for line in lines if line.startswith("Address"))


def test_a_network_is_made_shown_and_removed(cli: Cli, networks: EngineProcess) -> None:
    made = cli(
        *("network", "create", "--subnet", "10.99.1.0/24", "--gateway", "10.99.1.254"),
        *("--ip-range", "10.99.1.128/25", "--label", "a=b", "--internal"),
        *("-o", "com.docker.network.bridge.name=brown0", "own"),
    )
    assert made.code == 0, str(made)
    shown = networks.request("GET", "/networks/own")[1]
    assert shown["Id"] == made.out.strip()
    assert shown["IPAM"]["Config"] == [
        {"Subnet": "10.99.1.0/24", "IPRange": "10.99.1.128/25", "Gateway": "10.99.1.254"}
    ]
    assert (shown["Driver"], shown["Scope"], shown["Internal"]) == ("bridge", "local", True)
    assert (shown["Labels"], shown["Options"]["com.docker.network.bridge.name"]) == (
        {"a": "b"},
        "brown0",
    )
    assert os.path.exists("/sys/class/net/brown0/bridge")
    assert cli("network", "ls", "--filter", "label=a=b", "--format", "{{.Name}}").out == "own\n"
    again = cli("network", "create", "own")
    assert (again.code, "network with name own already exists" in again.err) == (1, True)
    overlapping = cli("network", "create", "--subnet", "10.99.1.0/25", "own2")
    assert (overlapping.code, "Pool overlaps with other one" in overlapping.err) == (1, True)
    start(cli, "member", "--network", "own")
    assert address(networks, "member", "own") == "10.99.1.128"
    document = networks.request("GET", "/networks/own")[1]["Containers"]
    assert [(c["Name"], c["IPv4Address"]) for c in document.values()] == [
        ("member", "10.99.1.128/24")
    ]
    refused = cli("network", "rm", "own")
    assert (refused.code, "has active endpoints" in refused.err) == (1, True)
    cli("rm", "-f", "member")
    assert cli("network", "rm", "own").out == "own\n"
    assert not os.path.exists("/sys/class/net/brown0")
    missing = cli("network", "rm", "own")
    assert (missing.code, "network own not found" in missing.err) == (1, True)


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (("--subnet", "10.99.6.0/33"), "10.99.6.0/33"),
        (("--subnet", "2001:x::/64"), "invalid subnet 2001:x::/64"),
        (("--subnet", "10.99.6.0"), "invalid subnet 10.99.6.0: invalid CIDR block notation"),
        (("-d", "missing"), 'plugin "missing" not found'),
        (("-d", "host"), 'only one instance of "host" network is allowed'),
        (("-o", "com.docker.network.driver.mtu=x"), "invalid MTU: x"),
        (("-o", "com.docker.network.bridge.name=lo"), "an interface has this name already"),
        (("--subnet", "10.99.6.0/24", "--subnet", "10.99.7.0/24"), "multiple subnets"),
        (("--ipv4=false",), "IPv4 or IPv6 must be enabled"),
        (("--subnet", "10.99.6.1/24"), "invalid subnet 10.99.6.1/24: it should be 10.99.6.0/24"),
        (("--ipv6", "--subnet", "2001:db8:7::/127"), "2001:db8:7::/127"),
        (("--ipam-driver", "missing"), 'plugin "missing" not found'),
        (("--ipam-driver", "missing", "-d", "nowhere"), 'plugin "nowhere" not found'),
        (("--ipam-driver", "null"), "ipv4 pool is empty"),
        (("--ipam-driver", "null", "-d", "macvlan"), "ipv4 pool is empty"),
        (("--ipam-driver", "null", "--ipv4=false", "--ipv6"), "ipv6 pool is empty"),
        (
            ("--ipam-driver", "null", "--subnet", "10.99.6.0/24"),
            "null ipam driver does not handle specific address pool requests",
        ),
    ],
)
def test_a_network_that_cannot_be_is_refused(
    cli: Cli, networks: EngineProcess, flags: tuple[str, ...], text: str
) -> None:
    done = cli("network", "create", *flags, "own")
    assert (done.code, text in done.err) == (1, True), str(done)
    assert len(networks.request("GET", "/networks")[1]) == 3


@pytest.mark.parametrize("flag", ["--gateway=10.99.6.0", "--gateway=10.99.6.255"])
def test_a_gateway_that_nobody_can_be_is_refused(
    cli: Cli, networks: EngineProcess, flag: str
) -> None:
    done = cli("network", "create", "--subnet", "10.99.6.0/24", flag, "own")
    asked = flag.partition("=")[2]
    assert f"failed to allocate gateway ({asked}): Address already in use" in done.err


def test_addresses_of_the_subnet_itself_are_no_containers(
    cli: Cli, networks: EngineProcess
) -> None:
    words = ("network", "create", "--subnet", "10.99.6.0/24", "--ip-range", "10.99.6.128/25")
    assert cli(*words, "own").code == 0
    for asked in ("10.99.6.0", "10.99.6.255"):
        done = cli("run", "--rm", "--network", "own", "--ip", asked, "busybox", "true")
        assert (done.code, "Address already in use" in done.err) == (125, True)
    start(cli, "member", "--network", "own")
    assert settings(networks, "member")["Networks"]["own"]["Gateway"] == "10.99.6.128"
    assert address(networks, "member", "own") == "10.99.6.129"


@pytest.mark.berth_only  # and Docker's since 28
def test_a_network_of_two_addresses_has_one_container(cli: Cli, networks: EngineProcess) -> None:
    assert cli("network", "create", "--subnet", "10.99.6.0/31", "own").code == 0
    start(cli, "member", "--network", "own")
    assert reaches(cli, "member", "10.99.6.0")
    assert networks.request("GET", "/networks/own")[1]["Status"]["IPAM"]["Subnets"] == {
        "10.99.6.0/31": {"IPsInUse": 2, "DynamicIPsAvailable": 0}
    }
    done = cli("run", "--rm", "--network", "own", "busybox", "true")
    assert "no available IPv4 addresses on this network's address pools: own (" in done.err


@pytest.mark.berth_only  # and Docker's since 29
def test_a_subnet_of_a_size_is_chosen(cli: Cli, networks: EngineProcess) -> None:
    for name in ("one", "two"):
        made = cli(
            *("network", "create", "--ipv6", "--subnet", "0.0.0.0/26", "--subnet", "::/80", name)
        )
        assert made.code == 0, str(made)
    pools = [networks.request("GET", f"/networks/{n}")[1]["IPAM"]["Config"] for n in ("one", "two")]
    subnets = [ip_network(pool["Subnet"]) for found in pools for pool in found]
    assert [subnet.prefixlen for subnet in subnets] == [26, 80, 26, 80]
    assert len(set(subnets)) == 4
    assert all(subnet.is_private for subnet in subnets)
    assert "invalid address pool" in cli("network", "create", "--subnet", "0.0.0.0/8", "big").err


def test_an_attachable_network_is_like_any_other(cli: Cli, networks: EngineProcess) -> None:
    for flags, is_attachable in ((("--attachable",), True), ((), False)):
        assert cli("network", "create", *flags, "own").code == 0
        shown = cli("network", "inspect", "--format", "{{.Attachable}} {{.Scope}}", "own").out
        assert shown == f"{str(is_attachable).lower()} local\n"
        start(cli, "member", "--network", "own")
        start(cli, "guest")
        assert cli("network", "connect", "own", "guest").code == 0
        assert reaches(cli, "guest", address(networks, "member", "own"))
        networks.remove_containers()
        assert cli("network", "rm", "own").code == 0


def test_a_macvlan_of_several_subnets_is_shown_with_all(cli: Cli, networks: EngineProcess) -> None:
    made = cli(
        *("network", "create", "-d", "macvlan", "--internal"),
        *("--subnet", "10.97.1.0/24", "--gateway", "10.97.1.9", "--aux-address", "a=10.97.2.2"),
        *("--subnet", "10.97.2.0/24", "--ip-range", "10.97.2.128/25", "wide"),
    )
    assert made.code == 0, str(made)
    shown = networks.request("GET", "/networks/wide")[1]["IPAM"]["Config"]
    assert sorted(shown, key=lambda pool: pool["Subnet"]) == [
        {"Subnet": "10.97.1.0/24", "Gateway": "10.97.1.9"},
        {
            "Subnet": "10.97.2.0/24",
            "IPRange": "10.97.2.128/25",
            "AuxiliaryAddresses": {"a": "10.97.2.2"},
        },
    ]
    start(cli, "member", "--network", "wide", "--ip", "10.97.2.130")
    assert address(networks, "member", "wide") == "10.97.2.130"
    cli("rm", "-f", "member")
    assert cli("network", "rm", "wide").code == 0


def test_a_macvlan_without_a_parent_joins_its_members(cli: Cli, networks: EngineProcess) -> None:
    made = cli("network", "create", "-d", "macvlan", "--subnet", "10.99.1.0/24", "own")
    assert made.code == 0, str(made)
    shown = networks.request("GET", "/networks/own")[1]
    assert (shown["Driver"], shown["Internal"]) == ("macvlan", True)
    assert shown["IPAM"]["Config"] == [{"Subnet": "10.99.1.0/24"}]
    start(cli, "server", "--network", "own", "--ip", "10.99.1.9")
    done = cli("run", "--rm", "--network", "own", "busybox", "ping", "-c", "1", "-W", "5", "server")
    assert "10.99.1.9" in done.out, str(done)
    assert settings(networks, "server")["Networks"]["own"]["MacAddress"] == "02:42:0a:63:01:09"


def test_containers_of_a_macvlan_without_addresses_bring_their_own(
    cli: Cli, networks: EngineProcess
) -> None:
    made = cli("network", "create", "-d", "macvlan", "--ipv4=false", "--ipam-driver", "null", "own")
    assert made.code == 0, str(made)
    shown = networks.request("GET", "/networks/own")[1]
    assert (shown["IPAM"]["Driver"], shown["IPAM"]["Config"]) == ("null", [])
    assert (shown["EnableIPv4"], shown["EnableIPv6"]) == (False, False)
    for name, ip in (("one", "10.99.5.1/24"), ("two", "10.99.5.2/24")):
        start(cli, name, "--network", "own", "--cap-add", "NET_ADMIN")
        place = settings(networks, name)["Networks"]["own"]
        assert (place["IPAddress"], place["IPPrefixLen"], place["Gateway"]) == ("", 0, "")
        done = cli("exec", name, "ip", "address", "add", ip, "dev", "eth0")
        assert done.code == 0, str(done)
    assert reaches(cli, "one", "10.99.5.2")
    mac = settings(networks, "two")["Networks"]["own"]["MacAddress"]
    assert cli("exec", "two", "cat", "/sys/class/net/eth0/address").out == f"{mac}\n"
    again = cli("restart", "-t", "0", "two")
    assert again.code == 0, str(again)


def test_networks_that_nobody_is_in_are_pruned(cli: Cli, networks: EngineProcess) -> None:
    for name in ("used", "unused"):
        cli("network", "create", name)
    start(cli, "member", "--network", "used")
    assert cli("network", "ls", "-f", "dangling=true", "--format", "{{.Name}}").out == "unused\n"
    assert cli("network", "prune", "-f").out == "Deleted Networks:\nunused\n\n"


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("fig", ["fig", "fig-tree", "old-fig"]),
        ("^fig$", ["fig"]),
        ("^fig", ["fig", "fig-tree"]),
        ("fi.-t", ["fig-tree"]),
        ("fig[", []),
    ],
)
def test_a_filter_for_names_is_a_regular_expression(
    cli: Cli, networks: EngineProcess, pattern: str, found: list[str]
) -> None:
    for name in ("fig", "fig-tree", "old-fig"):
        assert cli("network", "create", name).code == 0
        assert cli("volume", "create", name).code == 0
    try:
        for kind in ("network", "volume"):
            words = (kind, "ls", "-f", f"name={pattern}", "--format", "{{.Name}}")
            assert sorted(cli(*words).lines) == found
        id_ = networks.request("GET", "/networks/fig")[1]["Id"]
        words = ("network", "ls", "-q", "--no-trunc", "-f", f"id={id_[3:20]}")
        assert cli(*words).lines == [id_]
    finally:
        cli("volume", "rm", "fig", "fig-tree", "old-fig")


def test_networks_are_apart_and_reach_the_world(
    cli: Cli, networks: EngineProcess, places: Places
) -> None:
    for name in ("one", "two"):
        cli("network", "create", name)
        start(cli, f"{name}-member", "--network", name)
        start(cli, f"{name}-other", "--network", name)
    inside = {name: places.of(networks, name) for name in ("one-member", "one-other", "two-member")}
    server = places.listen(inside["one-member"], 80)
    target = (address(networks, "one-member", "one"), 80)
    assert places.talk(server, inside["one-other"], target)
    assert places.is_silent(inside["two-member"], target)
    world = places.listen(places.outside_fd, 9000)
    assert places.talk(world, inside["two-member"], (OUTSIDE, 9000)) == HOST


def test_containers_know_each_other_by_name(cli: Cli, networks: EngineProcess) -> None:
    cli("network", "create", "named")
    cli("network", "create", "elsewhere")
    start(cli, "server", "--network", "named", "--network-alias", "db", "--hostname", "box")
    start(cli, "second", "--network", "named", "--network-alias", "db")
    start(cli, "stranger", "--network", "elsewhere")
    start(cli, "client", "--network", "named")
    assert (
        sorted(cli("exec", "client", "cat", "/etc/resolv.conf").lines)[0] == "nameserver 127.0.0.11"
    )
    there, other = address(networks, "server", "named"), address(networks, "second", "named")
    short_id = networks.inspect("server")["Id"][:12]
    for name in ("server", "SERVER", "server.named", short_id, "box"):
        assert lookup(cli, "client", name) == [there], name
    assert lookup(cli, "client", "db") == sorted([there, other])
    assert lookup(cli, "client", "stranger") == []
    reverse = ".".join(reversed(there.split("."))) + ".in-addr.arpa"
    assert "server.named" in cli("exec", "client", "nslookup", "-type=ptr", reverse).out
    assert cli("exec", "client", "ping", "-c", "1", "server").code == 0
    shown = settings(networks, "server")["Networks"]["named"]
    assert shown["Aliases"] == ["db"]
    assert shown["DNSNames"] == ["server", "db", short_id, "box"]
    cli("rename", "server", "renamed")
    assert lookup(cli, "client", "renamed") == [there]
    cli("rm", "-f", "renamed")
    assert lookup(cli, "client", "renamed") == []
    assert lookup(cli, "client", "db") == [other]


def test_a_container_may_serve_names_itself(
    cli: Cli, networks: EngineProcess, places: Places
) -> None:
    cli("network", "create", "named")
    start(cli, "server", "--network", "named")
    inside = places.of(networks, "server")
    assert places.ask(places.datagrams(inside, 53), inside, ("127.0.0.1", 53)) == "127.0.0.1"
    places.listen(inside, 53)
    assert lookup(cli, "server", "server")


def test_other_names_are_asked_of_the_servers_that_are_given(
    cli: Cli, networks: EngineProcess, places: Places
) -> None:
    cli("network", "create", "named")
    start(cli, "client", "--network", "named", "--dns", OUTSIDE)
    upstream = places.datagrams(places.outside_fd, 53)
    asker = places.socket(places.of(networks, "client"), DGRAM)
    asker.connect(("127.0.0.11", 53))
    question = b"\x12\x34\x01\0\0\1\0\0\0\0\0\0\x07example\x03org\0\0\1\0\1"
    asker.send(question)
    data, peer = upstream.recvfrom(512)
    assert (data[2:], peer[0]) == (question[2:], HOST)
    record = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\xcb\0\x71\7"
    upstream.sendto(data[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + data[12:] + record, peer)
    assert asker.recv(512).endswith(record)


def test_a_container_in_an_internal_network_asks_nobody_outside(
    cli: Cli, networks: EngineProcess, places: Places
) -> None:
    cli("network", "create", "--internal", "inner")
    start(cli, "client", "--network", "inner", "--dns", OUTSIDE)
    start(cli, "server", "--network", "inner")
    assert lookup(cli, "client", "server") == [address(networks, "server", "inner")]
    asker = places.socket(places.of(networks, "client"), DGRAM)
    asker.connect(("127.0.0.11", 53))
    asker.send(b"\x12\x34\x01\0\0\1\0\0\0\0\0\0\x07example\x03org\0\0\1\0\1")
    assert asker.recv(512)[3] & 0xF == 2


def test_a_running_container_is_connected_and_disconnected(
    cli: Cli, networks: EngineProcess, places: Places
) -> None:
    cli("network", "create", "--subnet", "10.99.2.0/24", "extra")
    start(cli, "server", "--network", "extra")
    start(cli, "client", "-p", "18080:80", "--hostname", "here")
    inside = places.of(networks, "client")
    web = places.listen(inside, 80)
    done = cli("network", "connect", "--alias", "more", "--ip", "10.99.2.77", "extra", "client")
    assert (done.code, done.out, done.err) == (0, "", ""), str(done)
    shown = settings(networks, "client")["Networks"]
    assert shown.keys() == {"bridge", "extra"}
    assert (shown["extra"]["IPAddress"], shown["extra"]["Aliases"]) == ("10.99.2.77", ["more"])
    assert lookup(cli, "client", "server") == [address(networks, "server", "extra")]
    assert lookup(cli, "server", "more") == ["10.99.2.77"]
    assert "10.99.2.77\there" in cli("exec", "client", "cat", "/etc/hosts").lines
    assert places.talk(web, places.outside_fd, (HOST, 18080)) == OUTSIDE
    again = cli("network", "connect", "extra", "client")
    assert (again.code, "already exists in network extra" in again.err) == (1, True)

    assert cli("network", "disconnect", "bridge", "client").code == 0
    assert settings(networks, "client")["Networks"].keys() == {"extra"}
    routes = cli("exec", "client", "ip", "route").lines
    assert routes[0].split()[:3] == ["default", "via", "10.99.2.1"]
    assert places.talk(web, places.outside_fd, (HOST, 18080)) == OUTSIDE
    assert cli("network", "disconnect", "extra", "client").code == 0
    assert places.socket(places.outside_fd).connect_ex((HOST, 18080)) != 0
    assert cli("exec", "client", "ls", "/sys/class/net").out == "lo\n"
    not_there = cli("network", "disconnect", "extra", "client")
    assert (not_there.code, "is not connected to network extra" in not_there.err) == (1, True)
    body = {"Container": "client"}
    assert networks.request("POST", "/networks/extra/disconnect", body)[0] == 500  # as in Docker
    assert cli("network", "connect", "bridge", "client").code == 0
    assert places.talk(web, places.outside_fd, (HOST, 18080)) == OUTSIDE


def test_a_container_that_does_not_run_changes_its_networks_for_the_next_start(
    cli: Cli, networks: EngineProcess
) -> None:
    cli("network", "create", "later")
    cli("create", "--name", "still", "busybox", "sleep", "600")
    assert cli("network", "connect", "later", "still").code == 0
    assert cli("network", "disconnect", "bridge", "still").code == 0
    missing = cli("network", "disconnect", "bridge", "still")
    assert "is not connected to the network bridge" in missing.err
    assert cli("start", "still").code == 0
    assert cli("exec", "still", "ls", "/sys/class/net").lines == ["eth0", "lo"]
    assert settings(networks, "still")["Networks"]["later"]["IPAddress"]


def test_a_container_may_leave_its_last_network(fresh_engine: EngineProcess) -> None:
    cli = fresh_engine.docker
    cli("network", "create", "own")
    start(cli, "plain", "--network", "none")
    start(cli, "served", "-p", "127.0.0.1:47091:80")
    start(cli, "other")
    assert cli("network", "disconnect", "none", "plain").code == 0
    assert cli("network", "disconnect", "bridge", "served").code == 0
    assert cli("network", "disconnect", "bridge", "other").code == 0
    for name in ("plain", "served"):
        shown = settings(fresh_engine, name)
        assert (shown["Networks"], shown["Ports"]) == ({}, {})
        assert shown["SandboxKey"] == f"/proc/{fresh_engine.inspect(name)['State']['Pid']}/ns/net"
        assert "eth0" not in cli("exec", name, "ip", "link").out
    assert cli("network", "connect", "--alias", "a-served", "own", "served").code == 0
    assert cli("port", "served").out == "80/tcp -> 127.0.0.1:47091\n"
    fresh_engine.restart()
    for name in ("plain", "other"):
        assert cli("network", "connect", "--alias", f"a-{name}", "own", name).code == 0
    assert reaches(cli, "plain", "a-served")
    assert reaches(cli, "other", "a-plain")
    assert reaches(cli, "served", "a-plain")
    assert cli("exec", "plain", "cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start").out == "0\n"
    assert cli("restart", "-t", "0", "plain").code == 0
    assert reaches(cli, "plain", "a-served")


def test_ports_of_a_container_that_left_its_networks_are_free_until_it_is_in_one_again(
    fresh_engine: EngineProcess, places: Places
) -> None:
    cli, published = fresh_engine.docker, ("127.0.0.1", 47092)
    start(cli, "served", "-p", "127.0.0.1:47092:80", "-p", "127.0.0.1:47093:53/udp")
    server = places.listen(places.of(fresh_engine, "served"), 80)
    for _ in range(2):
        assert cli("network", "disconnect", "bridge", "served").code == 0
        for kind, port in ((socket.SOCK_STREAM, 47092), (DGRAM, 47093)):
            with places.socket(places.host_fd, kind) as sock:
                sock.bind(("127.0.0.1", port))
        fresh_engine.restart()
        start(cli, "other", "-p", "127.0.0.1:47092:80")
        refused = cli("network", "connect", "bridge", "served")
        assert "Bind for 127.0.0.1:47092 failed: port is already allocated" in refused.err
        assert cli("rm", "-f", "other").code == 0
        connected = cli("network", "connect", "bridge", "served")
        assert connected.code == 0, str(connected)
        shown = {"53/udp -> 127.0.0.1:47093", "80/tcp -> 127.0.0.1:47092"}
        assert set(cli("port", "served").lines) == shown
        places.talk(server, places.host_fd, published)
        with pytest.raises(OSError, match="in use"):
            places.socket(places.host_fd).bind(published)


@pytest.mark.parametrize("first", ["none", "bridge"])
def test_a_container_that_was_taken_out_of_all_networks_starts(
    cli: Cli, networks: EngineProcess, first: str
) -> None:
    cli("network", "create", "own")
    words = ("create", "--name", "lone", "--network", first, "busybox", "sleep", "600")
    assert cli(*words).code == 0
    assert cli("network", "disconnect", first, "lone").code == 0
    started = cli("start", "lone")
    assert started.code == 0, str(started)
    assert cli("exec", "lone", "ping", "-c", "1", "127.0.0.1").code == 0
    assert cli("exec", "lone", "ip", "route").out == ""
    assert cli("network", "connect", "own", "lone").code == 0
    assert "default" in cli("exec", "lone", "ip", "route").out
    assert cli("restart", "-t", "0", "lone").code == 0
    assert "default" in cli("exec", "lone", "ip", "route").out


def test_only_a_container_that_a_bridge_leads_out_shows_ports(
    cli: Cli, networks: EngineProcess
) -> None:
    cli("network", "create", "--internal", "closed")
    for name in ("host", "none", "closed"):
        start(cli, f"in-{name}", "--network", name, "--expose", "80", "-p", "47092:81")
        assert settings(networks, f"in-{name}")["Ports"] == {}
    start(cli, "in-bridge", "--expose", "80")
    assert settings(networks, "in-bridge")["Ports"] == {"80/tcp": None}
    shown = cli("ps", "--format", "{{.Names}} {{.Ports}}").lines
    assert sorted(map(str.strip, shown)) == ["in-bridge 80/tcp", "in-closed", "in-host", "in-none"]


def test_a_network_that_is_no_more_can_be_left(cli: Cli, networks: EngineProcess) -> None:
    cli("network", "create", "gone")
    cli("network", "create", "other")
    assert cli("create", "--name", "left", "--network", "gone", "busybox", "sleep", "600").code == 0
    cli("network", "rm", "gone")
    started = cli("start", "left")
    assert (started.code, "not found" in started.err) == (1, True)
    assert "Cannot restart container left: " in cli("restart", "left").err
    assert "network nowhere not found" in cli("network", "disconnect", "nowhere", "left").err
    assert cli("network", "disconnect", "gone", "left").code == 0
    assert cli("network", "connect", "other", "left").code == 0
    assert cli("start", "left").code == 0
    assert list(settings(networks, "left")["Networks"]) == ["other"]
    assert "network gone not found" in cli("network", "disconnect", "gone", "left").err


def test_a_link_in_a_network_of_ones_own_may_lead_to_what_comes_later(
    cli: Cli, networks: EngineProcess
) -> None:
    cli("network", "create", "own")
    start(cli, "client", "--network", "own", "--link", "server:db")
    start(cli, "server", "--network", "own")
    assert reaches(cli, "client", "db")


def test_a_full_host_name_has_its_bare_name_beside_it(cli: Cli, networks: EngineProcess) -> None:
    cli("network", "create", "own")
    start(cli, "mailer", "--network", "own", "--hostname", "mail.example.org")
    cli("network", "connect", "bridge", "mailer")
    hosts = cli("exec", "mailer", "cat", "/etc/hosts").out
    for network in ("own", "bridge"):
        assert f"{address(networks, 'mailer', network)}\tmail.example.org mail\n" in hosts


@pytest.mark.parametrize(
    ("network", "container", "text"),
    [
        ("own", "guest", "container sharing network namespace with another container or host"),
        ("own", "open", "container sharing network namespace with another container or host"),
        ("own", "alone", "one of the networks in private (none) mode"),
        (
            "host",
            "plain",
            "container cannot be disconnected from host network or connected to host",
        ),
        ("none", "plain", "one of the networks in private (none) mode"),
        ("missing", "plain", "network missing not found"),
        ("own", "missing", "No such container: missing"),
    ],
)
def test_a_connection_that_cannot_be_is_refused(
    docker_cli: Cli, networks: EngineProcess, network: str, container: str, text: str
) -> None:
    docker_cli("network", "create", "own")
    for name, mode in (("plain", "bridge"), ("alone", "none"), ("open", "host")):
        start(docker_cli, name, "--network", mode)
    start(docker_cli, "guest", "--network", "container:plain")
    done = docker_cli("network", "connect", network, container)
    assert done.code == 1
    assert text in done.err


def test_a_networks_name_may_be_any_text_but_blank(cli: Cli, networks: EngineProcess) -> None:
    assert cli("network", "create", "a name / with all").code == 0
    assert cli("run", "--rm", "--network", "a name / with all", "busybox", "true").code == 0
    assert cli("network", "rm", "a name / with all").code == 0
    blank = cli("network", "create", " ")
    assert blank.code == 1
    assert "invalid name:" in blank.err


def test_an_interface_has_the_name_and_the_parameters_that_were_asked_for(
    docker_cli: Cli, networks: EngineProcess
) -> None:
    docker_cli("network", "create", "--ipv6", "own")
    docker_cli("network", "create", "other")
    prefix = "com.docker.network.endpoint"
    flag = (
        f'name=own,"driver-opt={prefix}.ifname=web0",'
        f'"driver-opt={prefix}.sysctls=net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.conf.IFNAME.hop_limit=33"'
    )
    start(docker_cli, "named", "--network", flag, "--network", "other")
    assert docker_cli("exec", "named", "ls", "/sys/class/net").lines == ["eth0", "lo", "web0"]
    shown = docker_cli(
        *("exec", "named", "sh", "-c"),
        "cd /proc/sys/net; cat ipv4/conf/web0/log_martians ipv6/conf/web0/hop_limit",
    )
    assert shown.lines == ["1", "33"]
    for option, text in (
        ("sysctls=net.ipv4.conf.eth0.log_martians=1", "unrecognised network interface sysctl"),
        ("ifname=a/b", "invalid interface name"),
    ):
        done = docker_cli(
            "create", "--network", f"name=own,driver-opt={prefix}.{option}", "busybox", "true"
        )
        assert (done.code, text in done.err) == (1, True), str(done)


def test_a_container_that_starts_again_has_its_addresses_again(
    cli: Cli, networks: EngineProcess
) -> None:
    cli("network", "create", "--ipv6", "--subnet", "10.99.9.0/29", "own")
    for name in ("one", "two"):
        start(cli, name, "--network", "own")
        cli("network", "connect", "bridge", name)

    def places(name: str) -> list[tuple[str, str, str]]:
        shown = settings(networks, name)["Networks"]
        members = ("IPAddress", "GlobalIPv6Address", "MacAddress")
        return [tuple(shown[network][member] for member in members) for network in sorted(shown)]

    before = places("one")
    assert cli("restart", "-t", "0", "one").code == 0
    assert places("one") == before
    cli("kill", "one")
    cli("wait", "one")
    start(cli, "three", "--network", "own")
    assert cli("start", "one").code == 0
    assert places("one") == before
    assert reaches(cli, "two", "one")
    cli("kill", "one")
    cli("wait", "one")
    start(cli, "thief", "--network", "own", "--ip", before[1][0])
    assert cli("start", "one").code == 0
    assert places("one")[1][0] not in ("", before[1][0])


def test_addresses_outlive_a_killed_engine_and_the_end_of_their_container(
    fresh_engine: EngineProcess,
) -> None:
    cli = fresh_engine.docker
    start(cli, "one", "--restart", "always")
    before = address(fresh_engine, "one")
    start(cli, "other")
    cli("stop", "-t", "0", "one")
    fresh_engine.restart()
    assert cli("start", "one").code == 0
    assert address(fresh_engine, "one") == before


def test_several_networks_at_once(docker_cli: Cli, networks: EngineProcess) -> None:
    for name in ("back", "front"):
        docker_cli("network", "create", name)
    start(docker_cli, "both", "--network", "front", "--network", "back")
    assert docker_cli("exec", "both", "ls", "/sys/class/net").lines == ["eth0", "eth1", "lo"]
    gateway = settings(networks, "both")["Networks"]["back"]["Gateway"]
    routes = docker_cli("exec", "both", "ip", "route").lines
    assert routes[0].split()[:3] == ["default", "via", gateway]


def test_an_address_may_be_chosen_where_the_subnet_was(cli: Cli, networks: EngineProcess) -> None:
    cli("network", "create", "--subnet", "10.99.3.0/24", "own")
    cli("network", "create", "given")
    start(cli, "first", "--network", "own", "--ip", "10.99.3.77")
    assert address(networks, "first", "own") == "10.99.3.77"
    for network, ip, text in (
        ("own", "10.99.3.77", "Address already in use"),
        ("own", "10.98.3.77", "no configured subnet contains IP address 10.98.3.77"),
        ("given", "10.99.4.7", "no configured subnet contains IP address 10.99.4.7"),
        ("bridge", "10.99.4.7", "user-specified IP address is supported on user-defined networks"),
    ):
        done = cli("run", "--rm", "--network", network, "--ip", ip, "busybox", "true")
        assert (done.code, text in done.err) == (125, True), str(done)
    subnet = networks.request("GET", "/networks/given")[1]["IPAM"]["Config"][0]["Subnet"]
    chosen = subnet.partition("/")[0].removesuffix(".0") + ".77"
    start(cli, "second", "--network", "given", "--ip", chosen)
    assert address(networks, "second", "given") == chosen


def test_containers_reach_each_other_by_addresses_of_the_link(
    cli: Cli, networks: EngineProcess
) -> None:
    for name in ("own", "more"):
        cli("network", "create", "--ipv6", name)
    start(cli, "one", "--network", "own", "--link-local-ip", "169.254.8.1")
    flags = ("--network", "own", "--link-local-ip", "169.254.8.2", "--link-local-ip", "fe80::8:2")
    start(cli, "two", *flags)
    assert reaches(cli, "one", "169.254.8.2")
    assert reaches(cli, "two", "169.254.8.1")
    assert reaches(cli, "one", "fe80::8:2%eth0")
    shown = settings(networks, "two")["Networks"]["own"]["IPAMConfig"]
    assert shown == {"LinkLocalIPs": ["169.254.8.2", "fe80::8:2"]}
    cli("network", "disconnect", "own", "two")
    done = cli("network", "connect", "--link-local-ip", "169.254.9.2", "own", "two")
    assert done.code == 0, str(done)
    done = cli("network", "connect", "--link-local-ip", "169.254.9.3", "more", "two")
    assert done.code == 0, str(done)
    assert reaches(cli, "one", "169.254.9.2")
    assert "inet 169.254.9.3/16" in cli("exec", "two", "ip", "address", "show", "eth1").out
    assert cli("restart", "-t", "0", "two").code == 0
    assert reaches(cli, "one", "169.254.9.2")


def test_addresses_of_the_link_outlive_a_killed_engine(fresh_engine: EngineProcess) -> None:
    cli = fresh_engine.docker
    cli("network", "create", "own")
    for name, ip in (("one", "169.254.8.1"), ("two", "169.254.8.2")):
        start(cli, name, "--network", "own", "--link-local-ip", ip)
    fresh_engine.kill()
    fresh_engine.start()
    assert reaches(cli, "one", "169.254.8.2")
    assert reaches(cli, "two", "169.254.8.1")
    assert cli("restart", "-t", "0", "two").code == 0
    assert reaches(cli, "one", "169.254.8.2")
    cli("rm", "-f", "one", "two")
    cli("network", "rm", "own")


@pytest.mark.parametrize(
    ("where", "settings", "text"),
    [
        (
            *("own", {"IPAMConfig": {"LinkLocalIPs": ["0.0.0.0", ""]}}),
            "* invalid link-local IP address: 0.0.0.0\n* invalid link-local IP address: invalid IP",
        ),
        (
            *("own", {"IPAMConfig": {"IPv4Address": "::1"}}),
            "* invalid IPv4 address: ::1\n* no configured subnet contains IP address ::1",
        ),
        (
            *("own", {"IPAMConfig": {"IPv6Address": "fe80::1%1"}}),
            "* invalid IPv6 address: fe80::1%1\n* no configured subnet contains IP address fe80::1%1",
        ),
        (
            *("own", {"IPAMConfig": {"IPv4Address": "192.0.2.1"}}),
            "no configured subnet contains IP address 192.0.2.1",
        ),
        (
            *("bridge", {"Aliases": ["db"]}),
            "network-scoped aliases are only supported for user-defined networks",
        ),
        (
            *("bridge", {"IPAMConfig": {"IPv6Address": "2001:db8::9"}}),
            "* user-specified IP address is supported on user-defined networks only"
            "\n* no configured subnet contains IP address 2001:db8::9",
        ),
    ],
)
def test_settings_of_an_endpoint_that_cannot_be_are_refused(
    networks: EngineProcess, where: str, settings: dict[str, object], text: str
) -> None:
    networks.docker("network", "create", "own")
    body: dict[str, object] = {
        "Image": "busybox",
        "HostConfig": {"NetworkMode": where},
        "NetworkingConfig": {"EndpointsConfig": {where: settings}},
    }
    status, answer = networks.request("POST", "/containers/create", body=body)
    assert status == 400
    assert answer["message"].endswith(text)
    assert answer["message"].startswith(f"invalid config for network {where}: invalid endpoint")
    networks.docker("network", "create", "other")
    networks.docker("create", "--name", "still", "--network", "other", "busybox", "true")
    body = {"Container": "still", "EndpointConfig": settings}
    status, answer = networks.request("POST", f"/networks/{where}/connect", body=body)
    assert (status, answer["message"]) == (400, f"invalid endpoint settings:\n{text}")


def test_what_is_no_address_of_the_link_is_refused(cli: Cli, networks: EngineProcess) -> None:
    cli("network", "create", "own")
    for text, words in (
        ("10.1.1.1", "invalid link local IP address: 10.1.1.1"),
        ("nothing", 'invalid JSON: ParseAddr("nothing"): unable to parse IP'),
        ("fe80::7", "permission denied"),  # the network has no IPv6
    ):
        flags = ("--network", "own", "--link-local-ip", text)
        done = cli("run", "--rm", *flags, "busybox", "true")
        assert done.code == (126 if "denied" in words else 125), str(done)
        assert words in done.err
        start(cli, "other")
        done = cli("network", "connect", "--link-local-ip", text, "own", "other")
        assert (done.code, words in done.err) == (1, True), str(done)
        assert settings(networks, "other")["Networks"].keys() == {"bridge"}
        cli("rm", "-f", "other")


def test_networks_and_names_outlive_a_killed_engine(fresh_engine: EngineProcess) -> None:
    cli = fresh_engine.docker
    cli("network", "create", "named")
    start(cli, "server", "--network", "named", "--network-alias", "db")
    start(cli, "client", "--network", "named")
    cli("network", "connect", "bridge", "client")
    before = {name: settings(fresh_engine, name) for name in ("server", "client")}
    fresh_engine.restart()
    assert before == {name: settings(fresh_engine, name) for name in ("server", "client")}
    assert lookup(cli, "client", "db") == [address(fresh_engine, "server", "named")]
    start(cli, "later", "--network", "named")
    assert lookup(cli, "server", "later") == [address(fresh_engine, "later", "named")]
    for name in ("server", "client", "later"):
        cli("rm", "-f", name)
    assert cli("network", "rm", "named").code == 0


@pytest.mark.parametrize("is_live", [False, True], ids=["from the start", "connected later"])
@pytest.mark.parametrize("protocol", ["udp", "tcp"])
def test_questions_for_names_wait_for_an_engine_that_is_away(
    fresh_engine: EngineProcess, places: Places, protocol: str, is_live: bool
) -> None:
    cli = fresh_engine.docker
    cli("network", "create", "named")
    start(cli, "server", "--network", "named")
    start(cli, "client", "--network", "bridge" if is_live else "named")
    if is_live:
        assert cli("network", "connect", "named", "client").code == 0
    inside = places.of(fresh_engine, "client")
    expected = socket.inet_aton(address(fresh_engine, "server", "named"))
    question = b"\x12\x34\1\0\0\1\0\0\0\0\0\0\6server\0\0\1\0\1"
    for _ in range(2):
        fresh_engine.kill()
        asker = places.socket(inside, DGRAM if protocol == "udp" else socket.SOCK_STREAM)
        asker.connect(("127.0.0.11", 53))
        asker.send(question if protocol == "udp" else len(question).to_bytes(2, "big") + question)
        fresh_engine.start()
        answer = asker.recv(500)
        if protocol == "tcp":  # the length may come by itself
            while len(answer) < 2 + int.from_bytes(answer[:2], "big"):
                answer += asker.recv(500)
        assert answer.endswith(expected)
    for name in ("server", "client"):
        assert cli("rm", "-f", name).code == 0


def test_events_tell_of_networks(docker_cli: Cli, networks: EngineProcess) -> None:
    id_ = docker_cli("network", "create", "own").out.strip()
    start(docker_cli, "member", "--network", "own")
    docker_cli("rm", "-f", "member")
    docker_cli("network", "rm", "own")
    _, _, stream = networks.exchange("GET", f"/events?since=1&until={time.time() + 0.1:.3f}")
    told = [json.loads(line) for line in stream.splitlines()]
    assert [event["Action"] for event in told if event["Actor"]["ID"] == id_] == [
        *("create", "connect", "disconnect", "destroy")
    ]


@pytest.mark.parametrize("delay_ms", [0, 2, 5, 9, 14, 20, 30, 45])
def test_an_engine_killed_while_it_connects_leaves_what_it_shows(
    fresh_engine: EngineProcess, delay_ms: int
) -> None:
    cli = fresh_engine.docker
    cli("network", "create", "--subnet", "10.99.5.0/24", "own")
    start(cli, "member", "-p", "18080:80")
    for verb in ("connect", "disconnect"):
        body = {"Container": "member"}
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(fresh_engine.socket))
            text = json.dumps(body)
            client.sendall(
                f"POST /networks/own/{verb} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(text)}\r\n\r\n{text}".encode()
            )
            threading.Event().wait(delay_ms / 1000)  # the moment is what is varied
            fresh_engine.restart()
        shown = settings(fresh_engine, "member")["Networks"]
        inside = cli("exec", "member", "ip", "-4", "addr").out
        for name, subnet in (("own", "10.99.5."), ("bridge", None)):
            place = shown.get(name, {}).get("IPAddress", "")
            there = place in inside if place else subnet is None or subnet not in inside
            assert there, (shown, inside)
        links = kernel.links(fresh_engine.instance)
        members = sum(1 for place in shown.values() if place["IPAddress"])
        assert members <= len(links) <= members + 4  # spares come and go
        assert elements(fresh_engine) != []
        if verb == "connect" and "own" not in shown:
            assert cli("network", "connect", "own", "member").code == 0
