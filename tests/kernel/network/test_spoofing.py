"""Frames with senders that are not the container's own, made by hand and sent by raw sockets."""

import socket
import struct
from ipaddress import ip_address

import pytest

from berth.network.ipam import link_local
from berth.network.records import NetworkRequest
from support import packets
from support.networks import HOST, HOST6, within
from support.programs import find, run
from support.waiting import wait_for

MARK = b"berth-was-here"
ETH_P_ALL, ETH_P_IP, ETH_P_ARP, ETH_P_IPV6 = 0x0003, 0x0800, 0x0806, 0x86DD
ETH_P_8021Q, ETH_P_8021AD = 0x8100, 0x88A8


def ipv4(source, target):
    udp = struct.pack(">HHHH", 9, 9, 8 + len(MARK), 0) + MARK
    return ETH_P_IP, packets.ipv4(source, target, 17, udp)


def arp(sender_mac, sender, target, operation=2):
    head = struct.pack(">HHBBH", 1, ETH_P_IP, 6, 4, operation)
    packed = sender_mac + ip_address(sender).packed + bytes(6) + ip_address(target).packed
    return ETH_P_ARP, head + packed + MARK


def ipv6(source, target, next_header=17, payload=None):
    payload = payload or struct.pack(">HHHH", 9, 9, 8 + len(MARK), 0) + MARK
    head = struct.pack(">IHBB", 6 << 28, len(payload), next_header, 255)
    return ETH_P_IPV6, head + ip_address(source).packed + ip_address(target).packed + payload


def advertisement(source, target):
    message = struct.pack(">BBHI", 136, 0, 0, 0x20000000) + ip_address(target).packed + MARK
    return ipv6(source, "ff02::1", 58, message)


class Wire:
    """Three containers of a network: one that lies, one that it pretends to be, one that listens."""

    def __init__(self, net, engine, network, **options):
        self.liar, self.victim, self.witness = (
            engine.connect(name, network=network, **(options if name == "liar" else {}))
            for name in ("liar", "victim", "witness")
        )
        for sandbox in (self.liar, self.witness):  # what a bridge gets before that it drops
            shown = (find("ip"), "-d", "link", "show", sandbox.endpoints[0].interface)
            wait_for(lambda s=shown: "state forwarding" in run(*s).out, "the bridge forwards")
        self._sender = within(self.liar.netns_fd, self._raw)
        self._listener = within(self.witness.netns_fd, self._raw)
        self._listener.settimeout(5)
        net._sockets += [self._sender, self._listener]

    @staticmethod
    def _raw():
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        sock.bind(("eth0", 0))
        return sock

    def mac(self, who):
        return bytes.fromhex(getattr(self, who).endpoints[0].mac.replace(":", ""))

    def address(self, who):
        return getattr(self, who).endpoints[0].address

    def address6(self, who):
        return getattr(self, who).endpoints[0].address6

    def arrives(self, frame, *, mac=None):
        """Send a frame and then one that is surely allowed; say whether the first was seen before it."""
        protocol, body = frame
        target = self.mac("witness")
        self._send(target + (mac or self.mac("liar")), protocol, body)
        self._send(target + self.mac("liar"), *ipv4(self.address("liar"), "192.0.2.99"))
        last = ip_address("192.0.2.99").packed
        arrived = False
        while True:
            seen, (_, _, kind, *_) = self._listener.recvfrom(2000)
            if kind == socket.PACKET_OUTGOING:
                continue
            if MARK in seen and last in seen:
                return arrived
            arrived = arrived or MARK in seen

    def _send(self, head, protocol, body):
        self._sender.send(head + struct.pack(">H", protocol) + body)


@pytest.fixture
def wire(net, engine):
    engine.run(engine.service.create(NetworkRequest(name="dual", ipv6=True)))
    return Wire(net, engine, "dual")


def test_what_is_its_own_arrives(wire):
    own, own6, there = wire.address("liar"), wire.address6("liar"), wire.address("witness")
    assert wire.arrives(ipv4(own, there))
    assert wire.arrives(ipv4("0.0.0.0", "255.255.255.255"))
    assert wire.arrives(arp(wire.mac("liar"), own, there))
    assert wire.arrives(arp(wire.mac("liar"), "0.0.0.0", there, 1))
    local = ip_address(link_local(wire.mac("liar")))
    for source in (own6, local):
        assert wire.arrives(ipv6(source, wire.address6("witness")))
        assert wire.arrives(advertisement(source, source))


@pytest.mark.parametrize("whose", ["victim", "gateway", "nobody"])
def test_addresses_of_others_do_not_arrive(wire, whose):
    endpoint = wire.victim.endpoints[0]
    four, six = {
        "victim": (endpoint.address, endpoint.address6),
        "gateway": (endpoint.gateway, endpoint.gateway6),
        "nobody": ("203.0.113.7", "2001:db8::7"),
    }[whose]
    there, there6 = wire.address("witness"), wire.address6("witness")
    own, own6, mac = wire.address("liar"), wire.address6("liar"), wire.mac("liar")
    assert not wire.arrives(ipv4(four, there))
    assert not wire.arrives(arp(mac, four, there))
    assert not wire.arrives(arp(mac, four, there, 1))
    assert not wire.arrives(ipv6(six, there6))
    assert not wire.arrives(advertisement(own6, six))
    assert not wire.arrives(arp(wire.mac("victim"), own, there))


def tagged(frame, *tags):
    """Put tags of VLAN 0, which receivers take off, around a frame; ``tags`` from the outside."""
    protocol, body = frame
    for tag in reversed(tags):
        protocol, body = tag, struct.pack(">HH", 0, protocol) + body
    return protocol, body


@pytest.mark.parametrize(
    "tags",
    [
        (ETH_P_8021Q,),
        (ETH_P_8021AD,),
        (ETH_P_8021Q,) * 2,
        (ETH_P_8021AD, ETH_P_8021Q),
        (ETH_P_8021Q,) * 3,
    ],
)
def test_tags_hide_no_sender(net, wire, tags):
    inbox = net.socket(wire.witness.netns_fd, socket.SOCK_DGRAM)
    inbox.bind(("", 9))
    inbox.settimeout(5)
    there, own = wire.address("witness"), wire.address("liar")
    for frame in (
        ipv4(wire.address("victim"), there),
        arp(wire.mac("liar"), wire.address("victim"), there),
    ):
        assert not wire.arrives(tagged(frame, *tags))
    assert not wire.arrives(tagged(ipv4(own, there), *tags))
    assert wire.arrives(ipv4(own, there))
    assert inbox.recvfrom(100)[1][0] == own
    shown = within(wire.witness.netns_fd, lambda: run(find("ip"), "neigh", "show").out)
    assert wire.address("victim") not in shown


def test_the_mac_of_another_does_not_arrive(wire):
    own, there = wire.address("liar"), wire.address("witness")
    for mac in (wire.mac("victim"), b"\2\0\0\0\0\7"):
        assert not wire.arrives(ipv4(own, there), mac=mac)
        assert not wire.arrives((0x88B5, MARK), mac=mac)
    assert wire.arrives((0x88B5, MARK))


def test_an_address_that_a_container_gives_itself_reaches_nothing(net, engine, wire):
    liar, there = wire.liar.netns_fd, wire.witness.endpoints[0]
    mask = wire.address("liar").rpartition(".")[0] + ".99/16"
    within(liar, lambda: run(find("ip"), "addr", "add", mask, "dev", "eth0", check=True))
    net.listen(wire.witness.netns_fd, 80)
    client = net.socket(liar)
    client.bind((mask.partition("/")[0], 0))
    client.settimeout(0.4)
    assert client.connect_ex((there.address, 80)) != 0


def test_addresses_of_the_link_that_were_asked_for_arrive(net, engine):
    engine.run(engine.service.create(NetworkRequest(name="dual", ipv6=True)))
    wire = Wire(net, engine, "dual", link_local=("169.254.7.7", "fe80::77"))
    mac, there, there6 = wire.mac("liar"), wire.address("witness"), wire.address6("witness")
    for _ in range(2):
        assert wire.arrives(ipv4("169.254.7.7", there))
        assert wire.arrives(arp(mac, "169.254.7.7", there))
        assert wire.arrives(ipv6("fe80::77", there6))
        assert wire.arrives(advertisement("fe80::77", "fe80::77"))
        assert not wire.arrives(ipv4("169.254.7.8", there))
        assert not wire.arrives(ipv6("fe80::78", there6))
        engine.close()
        engine.open("liar", "victim", "witness")


def test_a_network_may_do_without(net, engine):
    options = {"berth.spoof_protection": "false"}
    engine.run(engine.service.create(NetworkRequest(name="free", options=options)))
    wire = Wire(net, engine, "free")
    there = wire.address("witness")
    assert wire.arrives(ipv4(wire.address("victim"), there))
    assert wire.arrives(arp(wire.mac("liar"), wire.address("victim"), there))


def test_the_protection_outlives_a_restart_and_what_is_gone_leaves_it(net, engine, wire):
    engine.run(engine.service.disconnect("victim"))
    engine.close()
    engine.open("liar", "witness")
    assert not wire.arrives(ipv4(wire.victim.endpoints[0].address, wire.address("witness")))
    engine.run(engine.service.disconnect("witness"))
    kept = engine.connect("more", network="dual").endpoints[0]
    listed = run(find("nft"), "list", "set", "bridge", "berth-test", "macs", check=True).out
    assert kept.mac in listed
    assert wire.witness.endpoints[0].mac not in listed
    assert HOST not in listed


def test_after_a_flush_of_all_rules_the_next_change_brings_everything_back(net, engine, wire):
    victim, there = wire.victim.endpoints[0].address, wire.address("witness")
    run(find("nft"), "flush", "ruleset", check=True)
    run(find("ip"), "link", "delete", "bd012345in", check=True)
    assert wire.arrives(ipv4(victim, there))  # until the engine hears of it
    container = engine.connect("more", (80, 8080), network="dual")
    assert not wire.arrives(ipv4(victim, there))
    server = net.listen(container.netns_fd, 80, "::")
    assert net.talk(server, net.outside_fd, (HOST, 8080))
    assert net.talk(server, net.outside_fd, (HOST6, 8080))
