"""What the host's own rules forbid stays forbidden for published ports."""

import socket
from pathlib import Path

import pytest

from berth.network.records import NetworkRequest
from support.networks import HOST, HOST6, OUTSIDE, OUTSIDE6, within
from support.programs import find, run

RULES = """
table inet host {{
    chain input {{
        type filter hook input priority 0; policy {policy};
        ct state established,related accept
        iifname "lo" accept
        meta l4proto ipv6-icmp accept
        {rules}
    }}
}}
"""


def host_rules(*rules, policy="drop"):
    """Set the host's firewall, as an administrator would."""
    text = "\n".join(rules)
    script = "add table inet host\ndelete table inet host\n" + RULES.format(
        policy=policy, rules=text
    )
    run(find("nft"), "-f", "-", stdin=script.encode(), check=True)


@pytest.fixture
def server(net, engine):
    engine.run(engine.service.create(NetworkRequest(name="dual", ipv6=True)))
    container = engine.connect("server", (80, 8080), (53, 5353, "udp"), network="dual")
    return net.listen(container.netns_fd, 80, "::")


def reaches(net, address, port=8080):
    with net.socket(net.outside_fd, near=address) as client:
        client.settimeout(0.5)
        return client.connect_ex((address, port)) == 0


def test_a_port_is_closed_unless_the_host_accepts_it(net, server):
    host_rules()
    for address in (HOST, HOST6):
        assert not reaches(net, address)
    host_rules("tcp dport 8080 accept")
    assert net.talk(server, net.outside_fd, (HOST, 8080)) == f"::ffff:{OUTSIDE}"
    assert net.talk(server, net.outside_fd, (HOST6, 8080)) == OUTSIDE6


def test_a_refusal_is_the_hosts_own(net, server):
    host_rules("tcp dport 8080 reject with tcp reset", policy="accept")
    for address in (HOST, HOST6):
        with pytest.raises(ConnectionRefusedError):
            net.socket(net.outside_fd, near=address).connect((address, 8080))


def test_rules_by_source_and_interface_hold(net, server):
    host_rules(f"ip saddr {OUTSIDE} tcp dport 8080 drop", policy="accept")
    assert not reaches(net, HOST)
    assert net.talk(server, net.outside_fd, (HOST6, 8080)) == OUTSIDE6
    host_rules('iifname "wan0" tcp dport 8080 accept')
    assert net.talk(server, net.outside_fd, (HOST, 8080)) == f"::ffff:{OUTSIDE}"


def test_a_connection_goes_on_when_its_port_is_closed_for_others(net, server):
    client = net.socket(net.outside_fd)
    client.connect((HOST, 8080))
    accepted, _ = server.accept()
    net._sockets.append(accepted)
    host_rules()
    assert not reaches(net, HOST)
    client.sendall(b"still here")
    assert accepted.recv(100) == b"still here"


def test_the_host_and_its_containers_reach_what_is_closed_to_the_world(net, engine, server):
    host_rules()
    other = engine.connect("other", network="dual")
    for fd, address in ((net.host_fd, "127.0.0.1"), (net.host_fd, HOST), (other.netns_fd, HOST)):
        assert net.talk(server, fd, (address, 8080))


def test_datagrams_are_judged_too(net, engine, server):
    inside = engine.service._sandboxes._held["server"].netns_fd
    names = net.socket(inside, socket.SOCK_DGRAM, near="::")
    names.bind(("::", 53))
    for address in (HOST, HOST6):
        host_rules()
        client = net.socket(net.outside_fd, socket.SOCK_DGRAM, near=address)
        client.connect((address, 5353))
        client.send(b"forbidden")
        host_rules("udp dport 5353 accept")
        for size in (8, 1400, 4000):  # the last one in several pieces
            sent = bytes(size)
            client = net.socket(net.outside_fd, socket.SOCK_DGRAM, near=address)
            client.connect((address, 5353))
            client.send(sent)
            data, peer = names.recvfrom(5000)
            assert data == sent
            names.sendto(b"answer", peer)
            assert client.recv(100) == b"answer"


@pytest.mark.parametrize("strict", ["0", "1", "2"])
def test_reverse_path_filters_do_not_hinder(net, server, strict):
    def filter_all():
        with open("/proc/sys/net/ipv4/conf/all/rp_filter", "w") as file:
            file.write(strict)

    within(net.host_fd, filter_all)
    assert net.talk(server, net.outside_fd, (HOST, 8080)) == f"::ffff:{OUTSIDE}"


def test_a_port_that_is_not_published_any_more_goes_round_once(net, engine, server):
    engine.run(engine.service.disconnect("server"))
    assert net.socket(net.outside_fd).connect_ex((HOST, 8080)) != 0
    listed = run(find("ip"), "-s", "-j", "link", "show", "bd012345out", check=True).out
    assert '"packets":' in listed


def test_rules_for_forwarding_hold(net, server):
    script = """
    table inet host {
        chain forward { type filter hook forward priority 0; policy drop; }
    }
    """
    run(find("nft"), "-f", "-", stdin=script.encode(), check=True)
    assert not reaches(net, HOST)
    assert not reaches(net, HOST6)


def test_no_neighbour_reaches_the_hosts_loopback_where_packets_cannot_be_copied(
    net, engine, monkeypatch
):
    engine.close(remove=True)
    monkeypatch.setattr("berth.network.table.is_possible", lambda *_, **__: False)
    engine.open()
    container = engine.connect("server", (53, 5353, "udp", "127.0.0.1"), (54, 5354, "udp"))
    servers = [net.socket(container.netns_fd, socket.SOCK_DGRAM) for _ in range(2)]
    for number, server in enumerate(servers):
        server.bind(("0.0.0.0", 53 + number))
    within(net.outside_fd, lambda: lead_to_host("127.0.0.1"))
    neighbour, host = (net.socket(fd, socket.SOCK_DGRAM) for fd in (net.outside_fd, net.host_fd))
    for number, server in enumerate(servers):
        neighbour.sendto(b"neighbour", ("127.0.0.1", 5353 + number))
        host.sendto(b"host", ("127.0.0.1", 5353 + number))
        assert server.recv(100) == b"host"
    neighbour.sendto(b"neighbour", (HOST, 5354))
    assert servers[1].recv(100) == b"neighbour"


def lead_to_host(address):
    """Have a neighbour's packets for an address of every host's go to this one."""
    run(find("ip"), "route", "add", f"{address}/32", "via", HOST, "dev", "lan0", check=True)


def test_what_the_host_itself_leads_to_its_loopback_arrives(net, engine):
    Path("/proc/sys/net/ipv4/conf/wan0/route_localnet").write_text("1")
    rules = """
    table ip own {
        chain before { type nat hook prerouting priority dstnat; tcp dport 7000 dnat to 127.0.0.1:7001; }
    }
    """
    run(find("nft"), "-f", "-", stdin=rules.encode(), check=True)
    server = net.listen(net.host_fd, 7001, "127.0.0.1")
    assert net.talk(server, net.outside_fd, (HOST, 7000)) == OUTSIDE
    container = engine.connect("c1")
    assert net.is_silent(container.netns_fd, (container.endpoints[0].gateway, 7000))
