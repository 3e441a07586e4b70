"""What a container and the host send each other goes past the bridge, and is looked at no less."""

import os
import socket
import struct

import pytest

from berth.kernel import bpf
from berth.network.ipam import Plan
from berth.network.records import NetworkRequest
from support import packets
from support.networks import HOST, Engine, sandbox_request, within
from support.programs import find, run

MARK = b"berth-was-here"
ETH_P_ALL, ETH_P_IP, ETH_P_8021Q = 0x0003, 0x0800, 0x8100
COUNTER = """
table bridge counting {
    chain frames {
        type filter hook prerouting priority 0;
        meta protocol ip tcp dport != 0 counter
    }
}
"""


@pytest.fixture
def frames():
    """Return how many segments of TCP bridges have seen."""
    run(find("nft"), "-f", "-", stdin=COUNTER.encode(), check=True)

    def count():
        listed = run(find("nft"), "list", "table", "bridge", "counting", check=True).out
        return int(listed.split("packets ")[1].split()[0])

    return count


def converse(net, sandbox, fd=None):
    """Talk with a container's published port from outside, from the host, and the other way round."""
    fd = fd or sandbox.netns_fd
    server, host = net.listen(fd, 80), net.listen(net.host_fd, 0)
    assert net.talk(server, net.outside_fd, (HOST, 8080))
    assert net.talk(server, net.host_fd, ("127.0.0.1", 8080))
    assert net.talk(server, net.host_fd, (sandbox.endpoints[0].address, 80))
    assert net.talk(host, fd, (sandbox.endpoints[0].gateway, host.getsockname()[1]))
    assert net.talk(server, fd, (HOST, 8080))  # itself, by the host


def test_container_and_host_reach_each_other_past_the_bridge(net, engine, frames):
    converse(net, engine.connect("c1", (80, 8080)))
    assert frames() == 0


def test_containers_reach_each_other_by_the_bridge(net, engine, frames):
    one, two = engine.connect("one"), engine.connect("two")
    assert net.talk(net.listen(two.netns_fd, 80), one.netns_fd, (two.endpoints[0].address, 80))
    assert frames() > 0


@pytest.mark.parametrize("option", ["berth.shortcut", "berth.spoof_protection"])
def test_a_network_may_have_none(net, engine, frames, option):
    engine.run(engine.service.create(NetworkRequest(name="slow", options={option: "false"})))
    converse(net, engine.connect("c1", (80, 8080), network="slow"))
    assert frames() > 0


def test_the_default_network_may_have_none_and_its_bridges_queue_gets_all(net, tmp_path, frames):
    plan = Plan(options={"bridge": {"berth.shortcut": "false"}})
    engine = Engine(tmp_path / "state.db", 2, plan=plan)
    engine.open()
    bridge = engine.service.inspect("bridge").bridge
    run(find("tc"), "qdisc", "add", "dev", bridge, "root", "pfifo", check=True)
    converse(net, engine.connect("c1", (80, 8080)))
    queue = run(find("tc"), "-s", "qdisc", "show", "dev", bridge, check=True).out
    assert int(queue.split("bytes ")[1].split()[0]) > 10  # else those of ARP alone
    assert frames() > 0
    engine.finish()


def test_without_leave_to_load_programs_there_are_none(net, engine, frames, monkeypatch):
    engine.close()
    monkeypatch.setattr(bpf, "load_program", refuse)
    engine.open()
    converse(net, engine.connect("c1", (80, 8080)))
    assert frames() > 0


def test_one_that_is_gone_takes_nothing_from_the_others(net, engine, frames):
    first = engine.connect("first")
    guards = engine.service._base.guards
    (guard,) = (g for name, g in guards._guards.items() if name == first.endpoints[0].interface)
    engine.service._base.shortcuts.add(guard._replace(interface=1 << 30))
    engine.service._base.shortcuts.add(guard._replace(bridge=1 << 30))
    converse(net, engine.connect("c1", (80, 8080)))
    assert frames() == 0


def refuse(*_):
    raise PermissionError(1, "bpf PROG_LOAD: Operation not permitted")


def test_they_outlive_a_restart(net, engine, frames):
    kept = engine.connect("kept", (80, 8080))
    fd, held = os.dup(kept.netns_fd), [os.dup(each) for each in engine.service.unkept("kept")]
    engine.close()
    server = net.listen(fd, 81)
    assert net.talk(server, net.host_fd, (kept.endpoints[0].address, 81))
    assert frames() == 0
    engine.open("kept")
    converse(net, engine.run(engine.service.adopt(sandbox_request("kept"), kept=held)), fd)
    assert frames() == 0
    engine.run(engine.service.disconnect("kept"))
    os.close(fd)


def test_who_gets_the_address_of_one_that_is_gone_gets_its_packets(net, engine, frames):
    first = engine.connect("first", (80, 8080)).endpoints[0]
    engine.run(engine.service.disconnect("first"))
    for name in ("next", "last"):
        sandbox = engine.connect(name, (80, 8080))
        converse(net, sandbox)
        if sandbox.endpoints[0].mac == first.mac:
            break
        engine.run(engine.service.disconnect(name))
    assert frames() == 0


def packet_socket(device):
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    sock.bind((device, 0))
    sock.settimeout(5)
    return sock


def test_what_is_not_the_senders_own_does_not_reach_the_host(net, engine):
    liar, victim = engine.connect("liar"), engine.connect("victim")
    bridge = engine.service.inspect("bridge").bridge
    sender = within(liar.netns_fd, lambda: packet_socket("eth0"))
    listener = packet_socket(bridge)
    net._sockets += [sender, listener]
    host = listener.getsockname()[4]
    own, other = liar.endpoints[0], victim.endpoints[0]
    mac = bytes.fromhex(own.mac.replace(":", ""))

    def send(source, *, mac=mac, mark=MARK, tag=b""):
        udp = struct.pack(">HHHH", 9, 9, 8 + len(mark), 0) + mark
        packet = packets.ipv4(source, own.gateway, 17, udp)
        sender.send(host + mac + tag + struct.pack(">H", ETH_P_IP) + packet)

    def arrives(source, **options):
        send(source, **options)
        send(own.address, mark=b"the-last-one-")
        seen = []
        while not seen or b"the-last-one-" not in seen[-1]:
            data, (_, _, kind, *_) = listener.recvfrom(2000)
            if kind == socket.PACKET_HOST:
                seen.append(data)
        return any(MARK in data for data in seen)

    assert arrives(own.address)
    assert not arrives(other.address)
    assert not arrives("203.0.113.7")
    assert not arrives(own.address, mac=bytes.fromhex(other.mac.replace(":", "")))
    assert not arrives(own.address, tag=struct.pack(">HH", ETH_P_8021Q, 0))
