"""Networks that need what the kernel outside of the machine lacks: ipvlan, vlans, dummies, netem, SCTP."""

from __future__ import annotations

import socket
import time

import pytest

from berth.network.records import NetworkRequest
from kernel.network.conftest import engine, net  # noqa: F401 - fixtures
from support.networks import HOST, OUTSIDE, within
from support.programs import find, run

LAN = {"subnet": "198.51.100.0/24", "gateway": OUTSIDE, "ip_range": "198.51.100.64/26"}

pytestmark = pytest.mark.parametrize("engine", [0], indirect=True)


def create(engine, name, driver, **options):  # noqa: F811
    return engine.run(engine.service.create(NetworkRequest(name=name, driver=driver, **options)))


def kind_of(interface):
    return run(find("ip"), "-d", "-o", "link", "show", interface, check=True).out


def test_an_ipvlan_is_a_neighbour_of_its_host(net, engine):  # noqa: F811
    create(engine, "lan", "ipvlan", options={"parent": "wan0"}, **LAN)
    one, two = engine.connect("c1", network="lan"), engine.connect("c2", network="lan")
    address = one.endpoints[0].address
    server = net.listen(one.netns_fd, 80)
    assert net.talk(server, net.outside_fd, (address, 80)) == OUTSIDE
    assert net.talk(server, two.netns_fd, (address, 80)) == two.endpoints[0].address
    world = net.listen(net.outside_fd, 9000)
    assert net.talk(world, one.netns_fd, (OUTSIDE, 9000)) == address


def test_an_ipvlan_of_layer_three_is_routed_to(net, engine):  # noqa: F811
    options = {"parent": "wan0", "ipvlan_mode": "l3"}
    network = create(engine, "routed", "ipvlan", options=options, subnet="10.55.0.0/24")
    route = lambda: run(find("ip"), "route", "add", network.subnet, "via", HOST, check=True)  # noqa: E731
    within(net.outside_fd, route)
    one = engine.connect("c1", network="routed")
    server = net.listen(one.netns_fd, 80)
    assert net.talk(server, net.outside_fd, (one.endpoints[0].address, 80)) == OUTSIDE


def test_a_vlan_is_made_for_its_network(net, engine):  # noqa: F811
    create(engine, "tagged", "macvlan", options={"parent": "wan0.7"}, **LAN)
    assert "vlan protocol 802.1Q id 7" in kind_of("wan0.7")
    engine.run(engine.service.remove("tagged"))
    assert run(find("ip"), "link", "show", "wan0.7").code != 0


def test_a_network_without_a_parent_is_behind_a_dummy(engine):  # noqa: F811
    network = create(engine, "alone", "ipvlan")
    assert " dummy " in kind_of(network.parent)


def test_delays_and_losses_are_the_kernels(net, engine):  # noqa: F811
    options = {"berth.delay": "40ms", "berth.loss": "2%", "berth.rate": "8mbit"}
    create(engine, "slow", "bridge", options=options)
    one = engine.connect("c1", network="slow")
    shown = within(one.netns_fd, lambda: run(find("tc"), "qdisc", "show", "dev", "eth0").out)
    assert "tbf" in shown
    assert "delay 40ms" in shown
    assert "loss 2%" in shown
    assert "rate 8Mbit" in shown


def datagrams(net, one, two, port):  # noqa: F811
    """Return a socket of one container that sends to the other's, and that one."""
    receiver = net.socket(two.netns_fd, socket.SOCK_DGRAM)
    receiver.bind(("0.0.0.0", port))
    sender = net.socket(one.netns_fd, socket.SOCK_DGRAM)
    sender.connect((two.endpoints[0].address, port))
    return sender, receiver


def way_ns(sender, receiver):
    """Return the least time that a datagram took."""
    found = []
    for _ in range(10):
        sender.send(time.monotonic_ns().to_bytes(8))
        sent = int.from_bytes(receiver.recv(8))
        found.append(time.monotonic_ns() - sent)
    return min(found)


def test_packets_are_as_late_as_asked_in_one_direction(net, engine):  # noqa: F811
    create(engine, "plain", "bridge")
    late = engine.connect("c1", network="plain", options={"berth.delay": "120ms"})
    prompt = engine.connect("c2", network="plain")
    assert way_ns(*datagrams(net, late, prompt, 9000)) >= 120_000_000
    assert way_ns(*datagrams(net, prompt, late, 9001)) < 120_000_000


def test_as_many_packets_are_lost_as_asked(net, engine):  # noqa: F811
    create(engine, "plain", "bridge")
    lossy = engine.connect("c1", network="plain", options={"berth.loss": "25%"})
    sure = engine.connect("c2", network="plain")

    def arrived(sender, receiver, bursts=8):
        found = 0
        receiver.settimeout(1)
        for _ in range(bursts):
            for _ in range(50):
                sender.send(b"x")
            try:
                for _ in range(50):
                    receiver.recv(1)
                    found += 1
            except TimeoutError:
                continue
        return found

    to_lossy, from_lossy = datagrams(net, sure, lossy, 9001), datagrams(net, lossy, sure, 9000)
    for way in (
        to_lossy,
        from_lossy,
    ):  # until they know each other's MAC; such questions are lost, too
        for _ in range(30):
            if arrived(*way, bursts=1):
                break
    assert arrived(*to_lossy) == 400
    # Six standard deviations around 300.
    assert 248 <= arrived(*from_lossy) <= 352


def sctp(net, fd):  # noqa: F811
    """Return a socket for one association."""
    sock = within(
        fd, lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP)
    )
    sock.settimeout(60)
    net._sockets.append(sock)
    return sock


def test_an_association_of_sctp_is_made_with_a_published_port(net, engine):  # noqa: F811
    container = engine.connect("c1", (9, 8080, "sctp"))
    server = sctp(net, container.netns_fd)
    server.bind(("0.0.0.0", 9))
    server.listen()
    client = sctp(net, net.outside_fd)
    client.connect((HOST, 8080))
    accepted, peer = server.accept()
    net._sockets.append(accepted)
    assert peer[0] == OUTSIDE
    client.sendall(b"question")
    assert accepted.recv(100) == b"question"
    accepted.sendall(b"answer")
    assert client.recv(100) == b"answer"
