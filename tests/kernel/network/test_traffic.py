"""Real connections between containers, their host and its neighbour."""

import os
import re
import socket
import struct
from errno import ECONNREFUSED

import pytest

from berth.network import bridges
from berth.network.ipam import Plan
from berth.network.records import EndpointRequest, NetworkRequest
from support.networks import HOST, OUTSIDE, Engine, within
from support.packets import checksum, ipv4
from support.programs import find, run
from support.waiting import wait_for

GATEWAY = "172.17.0.1"


def test_a_container_reaches_the_world_with_the_address_of_its_host(net, engine):
    container = engine.connect("c1")
    server = net.listen(net.outside_fd, 9000)
    assert net.talk(server, container.netns_fd, (OUTSIDE, 9000)) == HOST


def test_a_published_port_is_reached_from_outside_and_sees_the_sender(net, engine):
    container = engine.connect("c1", (80, 8080))
    server = net.listen(container.netns_fd, 80)
    assert net.talk(server, net.outside_fd, (HOST, 8080)) == OUTSIDE


def test_a_published_port_is_reached_from_the_host_by_every_address(net, engine):
    container = engine.connect("c1", (80, 8080))
    server = net.listen(container.netns_fd, 80)
    assert net.talk(server, net.host_fd, ("127.0.0.1", 8080)) == GATEWAY
    assert net.talk(server, net.host_fd, ("127.0.0.2", 8080)) == GATEWAY
    assert net.talk(server, net.host_fd, (HOST, 8080)) == HOST
    assert net.talk(server, net.host_fd, (GATEWAY, 8080)) == GATEWAY


@pytest.mark.parametrize("bridged", ["1", "0"], ids=["through-netfilter", "past-netfilter"])
def test_a_container_reaches_published_ports_its_own_included(net, engine, bridged):
    within(net.host_fd, lambda: _write("/proc/sys/net/bridge/bridge-nf-call-iptables", bridged))
    one, two = engine.connect("c1", (80, 8080)), engine.connect("c2")
    server = net.listen(one.netns_fd, 80)
    for address in (HOST, GATEWAY):
        assert net.talk(server, one.netns_fd, (address, 8080)) == GATEWAY
        assert net.talk(server, two.netns_fd, (address, 8080)) == GATEWAY


def test_strict_reverse_path_filters_do_not_hinder(net, engine):
    within(net.host_fd, lambda: _write("/proc/sys/net/ipv4/conf/all/rp_filter", "1"))
    one = engine.connect("c1", (80, 8080))
    server = net.listen(one.netns_fd, 80)
    assert net.talk(server, net.outside_fd, (HOST, 8080)) == OUTSIDE
    for fd, address in ((net.host_fd, "127.0.0.1"), (net.host_fd, HOST), (one.netns_fd, HOST)):
        assert net.talk(server, fd, (address, 8080))
    world = net.listen(net.outside_fd, 9000)
    assert net.talk(world, one.netns_fd, (OUTSIDE, 9000)) == HOST


def test_a_container_of_two_networks_has_an_interface_in_each(net, engine):
    for name in ("first", "second"):
        engine.run(engine.service.create(NetworkRequest(name=name)))
    both = engine.connect("c1", networks=["second", "first"])
    others = {name: engine.connect(name, network=name) for name in ("first", "second")}
    assert [(e.device, e.network_name) for e in both.endpoints] == [
        ("eth0", "second"),
        ("eth1", "first"),
    ]
    server = net.listen(both.netns_fd, 80)
    for endpoint in both.endpoints:
        other = others[endpoint.network_name]
        assert net.talk(server, other.netns_fd, (endpoint.address, 80))
    world = net.listen(net.outside_fd, 9000)
    assert net.talk(world, both.netns_fd, (OUTSIDE, 9000)) == HOST


def test_ports_follow_the_endpoint_that_leads_out(net, engine):
    for name in ("alpha", "zulu"):
        engine.run(engine.service.create(NetworkRequest(name=name)))
    one = engine.connect("c1", (80, 8080), network="zulu")
    server = net.listen(one.netns_fd, 80)
    world = net.listen(net.outside_fd, 9000)
    for change, network, leads in (
        (engine.service.attach, "alpha", "alpha"),
        (engine.service.detach, "alpha", "zulu"),
        (engine.service.attach, "bridge", "bridge"),
        (engine.service.detach, "zulu", "bridge"),
    ):
        asked = EndpointRequest(network=network) if change == engine.service.attach else network
        engine.run(change("c1", asked))
        with_ports = [e.network_name for e in engine.service.endpoints_of("c1") if e.ports]
        assert with_ports == [leads]
        assert net.talk(server, net.outside_fd, (HOST, 8080)) == OUTSIDE
        assert net.talk(world, one.netns_fd, (OUTSIDE, 9000)) == HOST


def test_a_port_published_on_one_address_is_reached_there_only(net, engine):
    container = engine.connect("c1", (80, 8080, "tcp", "127.0.0.1"))
    server = net.listen(container.netns_fd, 80)
    assert net.talk(server, net.host_fd, ("127.0.0.1", 8080)) == GATEWAY
    for fd in (net.host_fd, net.outside_fd):
        assert net.socket(fd).connect_ex((HOST, 8080)) != 0


def test_datagrams_reach_a_published_port_and_their_answers_come_back(net, engine):
    container = engine.connect("c1", (53, 5353, "udp"))
    server = net.socket(container.netns_fd, socket.SOCK_DGRAM)
    server.bind(("0.0.0.0", 53))
    for fd, address in ((net.outside_fd, HOST), (net.host_fd, "127.0.0.1"), (net.host_fd, HOST)):
        client = net.socket(fd, socket.SOCK_DGRAM)
        client.connect((address, 5353))
        client.send(b"question")
        data, peer = server.recvfrom(100)
        assert data == b"question"
        server.sendto(b"answer", peer)
        assert client.recv(100) == b"answer"


def test_containers_of_one_network_reach_each_other(net, engine):
    one, two = engine.connect("c1"), engine.connect("c2")
    server = net.listen(one.netns_fd, 80)
    address = one.endpoints[0].address
    assert net.talk(server, two.netns_fd, (address, 80)) == two.endpoints[0].address


def test_containers_of_different_networks_do_not(net, engine):
    engine.run(engine.service.create(NetworkRequest(name="other")))
    one, two = engine.connect("c1", (80, 8080)), engine.connect("c2", network="other")
    server = net.listen(one.netns_fd, 80)
    assert net.is_silent(two.netns_fd, (one.endpoints[0].address, 80))
    assert net.talk(server, two.netns_fd, (HOST, 8080)) == GATEWAY


def test_an_internal_network_has_no_way_out(net, engine):
    engine.run(engine.service.create(NetworkRequest(name="inner", internal=True)))
    one, two = engine.connect("c1", network="inner"), engine.connect("c2", network="inner")
    net.listen(net.outside_fd, 9000)
    assert net.socket(one.netns_fd).connect_ex((OUTSIDE, 9000)) != 0
    server = net.listen(one.netns_fd, 80)
    assert net.talk(server, two.netns_fd, (one.endpoints[0].address, 80))


@pytest.mark.parametrize("has_netfilter", [True, False], ids=["br_netfilter", "isolated"])
def test_a_network_without_icc_separates_its_containers(net, engine, monkeypatch, has_netfilter):
    _write("/proc/sys/net/bridge/bridge-nf-call-iptables", "0")
    monkeypatch.setattr(bridges, "has_netfilter", lambda: has_netfilter)
    options = {"com.docker.network.bridge.enable_icc": "false"}
    engine.run(engine.service.create(NetworkRequest(name="apart", options=options)))
    one, two = engine.connect("c1", network="apart"), engine.connect("c2", network="apart")
    net.listen(one.netns_fd, 80)
    assert net.socket(two.netns_fd).connect_ex((one.endpoints[0].gateway, 9)) == ECONNREFUSED
    client = net.socket(two.netns_fd)
    client.settimeout(0.4)
    assert client.connect_ex((one.endpoints[0].address, 80)) != 0
    server = net.listen(net.outside_fd, 9000)
    assert net.talk(server, two.netns_fd, (OUTSIDE, 9000)) == HOST
    three = engine.connect("c3", (80, 8080), network="apart")
    server = net.listen(three.netns_fd, 80)
    assert net.talk(server, two.netns_fd, (HOST, 8080)) == three.endpoints[0].gateway


def test_containers_stay_apart_when_their_bridge_is_made_again(net, engine, monkeypatch):
    _write("/proc/sys/net/bridge/bridge-nf-call-iptables", "0")
    monkeypatch.setattr(bridges, "has_netfilter", lambda: False)
    options = {"com.docker.network.bridge.enable_icc": "false"}
    made = engine.run(engine.service.create(NetworkRequest(name="apart", options=options)))
    names = ("one", "two")
    one, two = (
        engine.connect(name, (80, 8080 + number), network="apart")
        for number, name in enumerate(names)
    )
    fds = [os.dup(sandbox.netns_fd) for sandbox in (one, two)]
    engine.close()
    run(find("ip"), "link", "delete", made.bridge, check=True)
    engine.open(*names)
    for interface in (sandbox.endpoints[0].interface for sandbox in (one, two)):
        shown = (find("bridge"), "-d", "link", "show", "dev", interface)
        wait_for(lambda s=shown: "state forwarding" in run(*s).out, "the bridge forwards")
        assert {"isolated on", "hairpin on"} <= set(re.findall(r"\w+ on", run(*shown).out))
    server = net.listen(fds[0], 80)
    assert net.is_silent(fds[1], (one.endpoints[0].address, 80))
    assert net.talk(server, net.outside_fd, (HOST, 8080))
    for fd in fds:
        os.close(fd)


def test_what_is_not_published_is_not_reached_through_the_host(net, engine):
    container = engine.connect("c1", (80, 8080))
    route = ("route", "add", "172.17.0.0/16", "via", HOST)
    within(net.outside_fd, lambda: run(find("ip"), *route, check=True))
    net.listen(container.netns_fd, 80)
    assert net.is_silent(net.outside_fd, (container.endpoints[0].address, 80))


def test_a_container_cannot_reach_what_the_host_keeps_on_its_loopback(net, engine):
    container = engine.connect("c1")
    net.listen(net.host_fd, 9000, "127.0.0.1")
    ip = find("ip")

    def aim_at_the_host():
        run(ip, "addr", "del", "127.0.0.1/8", "dev", "lo", check=True)
        _write("/proc/sys/net/ipv4/conf/all/route_localnet", "1")
        run(ip, "route", "add", "127.0.0.0/8", "via", GATEWAY, check=True)

    within(container.netns_fd, aim_at_the_host)
    assert net.is_silent(container.netns_fd, ("127.0.0.1", 9000))


@pytest.mark.parametrize("forwards", [True, False])
def test_the_host_is_made_a_router_unless_told_otherwise(net, tmp_path, forwards):
    paths = [bridges.SYSCTL / path for path in ("ipv4/ip_forward", "ipv6/conf/all/forwarding")]
    for path in paths:
        _write(path, "0")
    engine = Engine(tmp_path / "state.db", 0, plan=Plan(forwards=forwards, ipv6=True))
    try:
        engine.open()
        assert [path.read_text() for path in paths] == [f"{forwards:d}\n"] * 2
    finally:
        engine.finish()


def test_a_container_cannot_end_what_the_host_says_on_its_loopback(net, engine):
    """By errors about packets that it never got, sent to the host's 127.0.0.1 by hand."""
    container = engine.connect("c1", (53, 5353, "udp", "127.0.0.1"))
    server, client = (net.socket(net.host_fd, socket.SOCK_DGRAM) for _ in range(2))
    server.bind(("127.0.0.1", 0))
    client.connect(server.getsockname())
    client.send(b"question")
    sender = within(
        container.netns_fd,
        lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800)),
    )
    net._sockets.append(sender)
    sender.bind(("eth0", 0))
    macs = bytes.fromhex(("02:42:ac:11:00:01" + container.endpoints[0].mac).replace(":", ""))
    ports = struct.pack(">HH", client.getsockname()[1], server.getsockname()[1])
    udp = ports + struct.pack(">HH", 8, 0)
    inner = ipv4("127.0.0.1", "127.0.0.1", 17, udp)
    icmp = struct.pack(">BBHI", 3, 3, 0, 0) + inner
    icmp = icmp[:2] + struct.pack(">H", checksum(icmp)) + icmp[4:]
    sender.send(macs + b"\x08\0" + ipv4(container.endpoints[0].address, "127.0.0.1", 1, icmp))
    # What comes by the same way after it: the host has looked at the error by then.
    probe = net.listen(net.host_fd, 9000)
    assert net.talk(probe, container.netns_fd, (GATEWAY, 9000))
    server.sendto(b"answer", client.getsockname())
    assert client.recv(100) == b"answer"
    assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0


def test_the_host_hears_that_nobody_listens_at_a_port_published_for_itself(net, engine):
    engine.connect("c1", (53, 5353, "udp", "127.0.0.1"))
    client = net.socket(net.host_fd, socket.SOCK_DGRAM)
    client.connect(("127.0.0.1", 5353))
    client.send(b"question")
    with pytest.raises(ConnectionRefusedError):
        client.recv(100)


def test_the_metadata_address_and_the_hosts_services_are_reached_as_in_docker(net, engine):
    engine.run(engine.service.create(NetworkRequest(name="inner", internal=True)))
    one, two = engine.connect("c1"), engine.connect("c2", network="inner")
    ip, metadata = find("ip"), "169.254.169.254"
    within(net.outside_fd, lambda: run(ip, "addr", "add", metadata, "dev", "lan0", check=True))
    within(net.host_fd, lambda: run(ip, "route", "add", metadata, "dev", "wan0", check=True))
    cloud, own = net.listen(net.outside_fd, 80, metadata), net.listen(net.host_fd, 9000)
    assert net.talk(cloud, one.netns_fd, (metadata, 80)) == HOST
    assert net.talk(own, one.netns_fd, (GATEWAY, 9000)) == one.endpoints[0].address
    assert net.talk(own, one.netns_fd, (HOST, 9000)) == one.endpoints[0].address
    assert net.socket(two.netns_fd).connect_ex((metadata, 80)) != 0
    assert net.socket(two.netns_fd).connect_ex((HOST, 9000)) != 0


def test_a_port_closes_when_its_container_is_disconnected(net, engine):
    engine.connect("c1", (80, 8080))
    engine.run(engine.service.disconnect("c1"))
    engine.run(engine.service.disconnect("c1"))
    for fd, address in ((net.host_fd, "127.0.0.1"), (net.outside_fd, HOST)):
        assert net.socket(fd).connect_ex((address, 8080)) != 0
    container = engine.connect("c2", (80, 8080))
    server = net.listen(container.netns_fd, 80)
    assert net.talk(server, net.outside_fd, (HOST, 8080)) == OUTSIDE


def _write(path, value):
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)
