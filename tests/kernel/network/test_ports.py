"""Ports of protocols and in numbers that no test of programs reaches."""

import contextlib
import socket
import struct

import pytest

from berth.errors import Failed
from berth.kernel.netlink import NetlinkSocket
from berth.network import wiring
from berth.network.records import NetworkRequest
from support.networks import HOST, HOST6, OUTSIDE

SCTP = 132
CRC32C = 0x82F63B78


def crc32c(data):
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (CRC32C if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def sctp_init(source, target):
    """Return the first packet of an association."""
    chunk = struct.pack(">BBHIIHHI", 1, 0, 20, 7, 65535, 1, 1, 7)
    head = struct.pack(">HHI", source, target, 0)
    return head + struct.pack("<I", crc32c(head + bytes(4) + chunk)) + chunk


def test_the_first_packet_of_sctp_reaches_a_published_port(net, engine):
    container = engine.connect("c1", (9, 8080, "sctp"))
    inside = net.raw(container.netns_fd, SCTP)
    outside = net.raw(net.outside_fd, SCTP)
    outside.sendto(sctp_init(5000, 8080), (HOST, 0))
    packet, (sender, _) = inside.recvfrom(2000)
    source, target = struct.unpack_from(">HH", packet, (packet[0] & 15) * 4)
    assert (sender, source, target) == (OUTSIDE, 5000, 9)


@pytest.mark.parametrize("host", [HOST, HOST6])
def test_a_sender_that_goes_on_is_led_to_each_container_that_comes(net, engine, host):
    engine.run(engine.service.create(NetworkRequest(name="dual", ipv6=True)))
    sender = net.socket(net.outside_fd, socket.SOCK_DGRAM, near=host)
    sender.connect((host, 5353))

    def send():
        for _ in range(3):
            with contextlib.suppress(ConnectionRefusedError):  # what the one before met
                sender.send(b"x")

    for name in ("first", "second"):
        send()
        container = engine.connect(name, (53, 5353, "udp"), network="dual")
        receiver = net.socket(container.netns_fd, socket.SOCK_DGRAM, near="::")
        receiver.bind(("::", 53))
        send()
        assert receiver.recv(10) == b"x"
        engine.run(engine.service.disconnect(name))


def test_datagrams_that_only_pass_through_are_left_alone(net, engine):
    container = engine.connect("client")
    world = net.socket(net.outside_fd, socket.SOCK_DGRAM)
    world.bind(("0.0.0.0", 5353))
    client = net.socket(container.netns_fd, socket.SOCK_DGRAM)
    client.connect((OUTSIDE, 5353))
    client.send(b"question")
    _, peer = world.recvfrom(100)
    engine.connect("server", (53, 5353, "udp"))
    engine.run(engine.service.disconnect("server"))
    world.sendto(b"answer", peer)
    assert client.recv(100) == b"answer"


def test_many_ports_are_published_and_gone_with_their_container(net, engine):
    ports = [(port, port + 10_000) for port in range(1000, 1500)]
    container = engine.connect("c1", *ports)
    assert len(container.ports) == 500
    server = net.listen(container.netns_fd, 1499)
    assert net.talk(server, net.outside_fd, (HOST, 11_499)) == OUTSIDE
    engine.run(engine.service.disconnect("c1"))
    assert net.socket(net.outside_fd).connect_ex((HOST, 11_499)) != 0


def test_a_bridge_that_is_full_says_so(engine, monkeypatch):
    execute = NetlinkSocket.execute

    def full(self, messages, call):
        if call.startswith("create veth pair"):
            raise OSError(54, call)  # EXFULL, which a bridge says at its 1024th port
        return execute(self, messages, call)

    monkeypatch.setattr(NetlinkSocket, "execute", full)
    asked = {"mac": "02:00:00:00:00:07"}  # no spare will do
    with pytest.raises(Failed, match=wiring.FULL):
        engine.connect("c1", **asked)
    assert engine.service.endpoints_of("c1") == ()
