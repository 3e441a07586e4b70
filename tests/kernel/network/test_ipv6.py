"""IPv6: networks of both versions or of this one alone, with real connections."""

import json
import socket
from ipaddress import ip_address, ip_network

import pytest

from berth.errors import Failed, Forbidden, InvalidArgument
from berth.network.records import EndpointRequest, NetworkRequest
from support.networks import HOST, HOST6, NAMES, OUTSIDE, OUTSIDE6, within
from support.programs import find, run


@pytest.fixture(autouse=True)
def _plain_bridges(engine):
    with open("/proc/sys/net/bridge/bridge-nf-call-ip6tables", "w") as file:
        file.write("0")


@pytest.fixture
def dual(engine):
    return engine.run(engine.service.create(NetworkRequest(name="dual", ipv6=True)))


@pytest.fixture
def six(engine):
    return engine.run(
        engine.service.create(
            NetworkRequest(name="six", ipv4=False, ipv6=True, subnet6="2001:db8:9::/64")
        )
    )


def test_a_unique_local_subnet_is_chosen(engine, dual):
    subnet = ip_network(dual.subnet6)
    assert subnet.subnet_of(ip_network("fd00::/8"))
    assert subnet.prefixlen == 64
    assert dual.gateway6 == str(subnet[1])
    other = engine.run(engine.service.create(NetworkRequest(name="other", ipv6=True)))
    assert not ip_network(other.subnet6).overlaps(subnet)
    assert ip_network(other.subnet6).supernet(new_prefix=48) == subnet.supernet(new_prefix=48)


def test_containers_of_a_network_of_both_versions_reach_each_other_by_both(net, engine, dual):
    one, two = engine.connect("c1", network="dual"), engine.connect("c2", network="dual")
    (first,), (second,) = one.endpoints, two.endpoints
    assert ip_address(first.address6) in ip_network(dual.subnet6)
    assert (first.prefix_length6, first.gateway6) == (64, dual.gateway6)
    six, four = net.listen(one.netns_fd, 80, "::"), net.listen(one.netns_fd, 81)
    assert net.talk(six, two.netns_fd, (first.address6, 80)) == second.address6
    assert net.talk(four, two.netns_fd, (first.address, 81)) == second.address
    assert net.talk(six, net.host_fd, (first.address6, 80)) == dual.gateway6


def test_the_world_sees_the_address_of_the_host(net, engine, dual, six):
    world = net.listen(net.outside_fd, 9000, OUTSIDE6)
    for number, network in enumerate((dual, six)):
        inside = engine.connect(f"c{number}", network=network.name)
        assert net.talk(world, inside.netns_fd, (OUTSIDE6, 9000)) == HOST6
    four = net.listen(net.outside_fd, 9001)
    assert net.socket(inside.netns_fd).connect_ex((OUTSIDE, 9001)) != 0
    assert net.talk(four, engine.connect("c3", network="dual").netns_fd, (OUTSIDE, 9001)) == HOST


def test_a_network_of_ipv6_alone_has_nothing_else(engine, six):
    (endpoint,) = engine.connect("c1", network="six").endpoints
    assert (endpoint.address, endpoint.gateway) == ("", "")
    assert (endpoint.address6, endpoint.gateway6) == ("2001:db8:9::2", "2001:db8:9::1")
    assert (six.subnet, six.gateway) == ("", "")


def test_a_published_port_is_reached_by_both_versions_and_sees_the_sender(net, engine, dual):
    container = engine.connect("c1", (80, 8080), network="dual")
    assert [(p.host_ip, p.host_port) for p in container.ports] == [("0.0.0.0", 8080), ("::", 8080)]
    server = net.listen(container.netns_fd, 80, "::")  # of both versions
    assert net.talk(server, net.outside_fd, (HOST6, 8080)) == OUTSIDE6
    assert net.talk(server, net.outside_fd, (HOST, 8080)) == f"::ffff:{OUTSIDE}"
    for address in ("::1", HOST6, dual.gateway6):
        assert ip_address(net.talk(server, net.host_fd, (address, 8080)))
    other = engine.connect("c2", network="dual")
    for client in (container, other):
        for address in (HOST6, dual.gateway6):
            assert net.talk(server, client.netns_fd, (address, 8080)) == dual.gateway6


def test_a_port_is_reached_while_the_kernel_looks_whether_the_bridges_own_address_is_taken(
    net, engine
):
    with open("/proc/sys/net/ipv6/conf/default/dad_transmits", "w") as file:
        file.write("60")  # a second each
    engine.run(engine.service.create(NetworkRequest(name="new", ipv6=True)))
    server = net.listen(engine.connect("c1", (80, 8080), network="new").netns_fd, 80, "::")
    assert net.talk(server, net.outside_fd, (HOST6, 8080)) == OUTSIDE6


def test_a_port_of_a_container_of_ipv6_alone_is_published_there_alone(net, engine, six):
    container = engine.connect("c1", (80, 8080), network="six")
    assert [p.host_ip for p in container.ports] == ["::"]
    server = net.listen(container.netns_fd, 80, "::")
    assert net.talk(server, net.outside_fd, (HOST6, 8080)) == OUTSIDE6
    assert net.socket(net.outside_fd).connect_ex((HOST, 8080)) != 0


@pytest.mark.parametrize("host_ip", ["::1", HOST6])
def test_a_port_on_one_address_is_reached_there_only(net, engine, dual, host_ip):
    container = engine.connect("c1", (80, 8080, "tcp", host_ip), network="dual")
    server = net.listen(container.netns_fd, 80, "::")
    assert net.talk(server, net.host_fd, (host_ip, 8080))
    other = HOST6 if host_ip == "::1" else "::1"
    assert net.socket(net.host_fd, near="::").connect_ex((other, 8080)) != 0
    assert net.socket(net.host_fd).connect_ex((HOST, 8080)) != 0


def test_a_container_does_not_reach_what_is_published_for_the_host_alone(net, engine, dual):
    container = engine.connect("c1", (80, 8080, "tcp", "::1"), network="dual")
    net.listen(container.netns_fd, 80, "::")
    other = engine.connect("c2", network="dual")
    run_in = lambda: run(find("ip"), "-6", "route", "add", "::1/128", "via", dual.gateway6)  # noqa: E731
    within(other.netns_fd, run_in)
    assert net.socket(other.netns_fd, near="::").connect_ex(("::1", 8080)) != 0


@pytest.fixture(params=["0", "1"], ids=["plain bridges", "bridges that call ip6tables"])
def either(request, engine):
    with open("/proc/sys/net/bridge/bridge-nf-call-ip6tables", "w") as file:
        file.write(request.param)
    return engine.run(engine.service.create(NetworkRequest(name="either", ipv6=True)))


def test_the_loopback_address_leads_to_published_ports(net, engine, either):
    ports = (80, 8080), (81, 8081, "tcp", "::1"), (82, 8082, "tcp", HOST6), (53, 5353, "udp")
    container = engine.connect("c1", *ports, network="either")
    servers = [net.listen(container.netns_fd, port, "::") for port in (80, 81, 82)]
    for server, port in zip(servers[:2], (8080, 8081), strict=True):
        assert net.talk(server, net.host_fd, ("::1", port)) == either.gateway6
    assert net.socket(net.host_fd, near="::").connect_ex(("::1", 8082)) != 0
    for address in (HOST6, either.gateway6):
        assert net.talk(servers[0], net.host_fd, (address, 8080))
        assert net.talk(servers[0], container.netns_fd, (address, 8080)) == either.gateway6
    assert net.talk(servers[0], net.outside_fd, (HOST6, 8080)) == OUTSIDE6
    names = net.socket(container.netns_fd, socket.SOCK_DGRAM, near="::")
    names.bind(("::", 53))
    client = net.socket(net.host_fd, socket.SOCK_DGRAM, near="::")
    client.connect(("::1", 5353))
    for _ in range(2):
        client.send(b"question")
        _, peer = names.recvfrom(100)
        assert peer[0] == either.gateway6
        names.sendto(b"answer", peer)
        assert client.recv(100) == b"answer"
    engine.run(engine.service.disconnect("c1"))
    later = engine.connect("c2", *ports, network="either")  # with a sender that goes on
    there = net.socket(later.netns_fd, socket.SOCK_DGRAM, near="::")
    there.bind(("::", 53))
    client.send(b"again")
    assert there.recv(100) == b"again"
    own = net.listen(net.host_fd, 9000, "::1")  # what is the host's stays so
    assert net.talk(own, net.host_fd, ("::1", 9000)) == "::1"
    engine.run(engine.service.disconnect("c2"))
    with pytest.raises(ConnectionRefusedError):
        net.socket(net.host_fd, near="::").connect(("::1", 8080))


def test_nobody_takes_the_hosts_way_to_its_loopback_address(net, engine, either):
    container = engine.connect("c1", (80, 8080, "tcp", "::1"), (81, 8081), network="either")
    for port in (80, 81):
        net.listen(container.netns_fd, port, "::")
    other = engine.connect("c2", network="either")
    listed = json.loads(run(find("ip"), "-6", "-j", "route", check=True).out)
    ways = [route["dst"] for route in listed if route["dev"].startswith("bd")]
    addresses = [way for way in ways if way.startswith("fd")]
    assert len(addresses) == 2
    there = ("route", "add", "fd00::/8", "via", HOST6)
    within(net.outside_fd, lambda: run(find("ip"), "-6", *there, check=True))
    for client in (other.netns_fd, net.outside_fd):
        for address in addresses:
            for port in (8080, 8081):
                assert net.is_silent(client, (address, port))


def test_datagrams_over_ipv6_reach_a_published_port(net, engine, dual):
    container = engine.connect("c1", (53, 5353, "udp"), network="dual")
    server = net.socket(container.netns_fd, socket.SOCK_DGRAM, near="::")
    server.bind(("::", 53))
    for fd, address in ((net.outside_fd, HOST6), (net.host_fd, "::1"), (net.host_fd, HOST6)):
        client = net.socket(fd, socket.SOCK_DGRAM, near="::")
        client.connect((address, 5353))
        client.send(b"question")
        _, peer = server.recvfrom(100)
        server.sendto(b"answer", peer)
        assert client.recv(100) == b"answer"


def test_a_port_taken_in_one_version_is_refused_for_both(net, engine, dual):
    net.listen(net.host_fd, 8080, "::")
    with pytest.raises(Failed, match="address already in use"):
        engine.connect("c1", (80, 8080), network="dual")
    engine.connect("c2", (80, 8081, "tcp", "::"), network="dual")
    with pytest.raises(Failed, match=r"Bind for \[::\]:8081 failed: port is already allocated"):
        engine.connect("c3", (80, 8081), network="dual")
    assert engine.connect("c4", (80, 8081, "tcp", "0.0.0.0"), network="dual").ports


def test_networks_are_apart_in_ipv6_too(net, engine, dual, six):
    one, two = engine.connect("c1", network="dual"), engine.connect("c2", network="six")
    net.listen(one.netns_fd, 80, "::")
    assert net.is_silent(two.netns_fd, (one.endpoints[0].address6, 80))


def test_an_internal_network_has_no_way_out_in_ipv6(net, engine):
    asked = NetworkRequest(name="inner", ipv6=True, internal=True)
    engine.run(engine.service.create(asked))
    one, two = engine.connect("c1", network="inner"), engine.connect("c2", network="inner")
    assert one.endpoints[0].gateway6 == ""
    net.listen(net.outside_fd, 9000, OUTSIDE6)
    assert net.socket(one.netns_fd, near="::").connect_ex((OUTSIDE6, 9000)) != 0
    server = net.listen(one.netns_fd, 80, "::")
    assert net.talk(server, two.netns_fd, (one.endpoints[0].address6, 80))


def test_nothing_of_a_removed_network_is_left_to_the_next_of_its_bridge(engine):
    def make(network, **options):
        options = {f"com.docker.network.bridge.{key}": value for key, value in options.items()}
        asked = NetworkRequest(name=network, ipv6=network != "former", options=options)
        engine.run(engine.service.create(asked))

    make("former", name="own0")
    make("dual")
    engine.run(engine.service.remove("former"))
    make("apart", name="own0", enable_icc="false")
    pairs = run(find("nft"), "list", "set", "ip6", NAMES.table, "pairs", check=True).out
    assert "own0" not in pairs


def test_an_address_can_be_chosen(engine, dual, six):
    (endpoint,) = engine.connect("c1", network="six", address6="2001:db8:9::77").endpoints
    assert endpoint.address6 == "2001:db8:9::77"
    with pytest.raises(Forbidden, match="Address already in use"):
        engine.connect("c2", network="six", address6="2001:db8:9::77")
    with pytest.raises(InvalidArgument, match="does not belong"):
        engine.connect("c2", network="six", address6="2001:db8:8::77")
    chosen = str(ip_network(dual.subnet6)[77])
    assert engine.connect("c2", network="dual", address6=chosen).endpoints[0].address6 == chosen


def test_each_version_leads_out_by_a_network_that_has_it(net, engine, six):
    engine.run(engine.service.create(NetworkRequest(name="alpha")))
    both = engine.connect("c1", (80, 8080), networks=["six", "alpha"])
    ports = {e.network_name: [p.host_ip for p in e.ports] for e in both.endpoints}
    assert ports == {"six": ["::"], "alpha": ["0.0.0.0"]}
    server = net.listen(both.netns_fd, 80, "::")
    for host, outside in ((HOST, f"::ffff:{OUTSIDE}"), (HOST6, OUTSIDE6)):
        assert net.talk(server, net.outside_fd, (host, 8080)) == outside


def test_ports_follow_to_a_network_that_brings_ipv6(net, engine, dual):
    container = engine.connect("c1", (80, 8080))
    server = net.listen(container.netns_fd, 80, "::")
    engine.run(engine.service.attach("c1", EndpointRequest(network="dual")))
    assert net.talk(server, net.outside_fd, (HOST6, 8080)) == OUTSIDE6
    assert net.talk(server, net.outside_fd, (HOST, 8080)) == f"::ffff:{OUTSIDE}"
    engine.run(engine.service.detach("c1", "dual"))
    assert net.talk(server, net.outside_fd, (HOST, 8080)) == f"::ffff:{OUTSIDE}"
    assert net.socket(net.outside_fd, near="::").connect_ex((HOST6, 8080)) != 0


def test_addresses_and_ports_outlive_a_restart(net, engine, dual):
    container = engine.connect("c1", (80, 8080), network="dual")
    server = net.listen(container.netns_fd, 80, "::")
    before = container.endpoints
    engine.close()
    engine.open("c1")
    assert engine.service.endpoints_of("c1") == before
    assert net.talk(server, net.outside_fd, (HOST6, 8080)) == OUTSIDE6
    later = engine.connect("c2", network="dual").endpoints[0]
    assert later.address6 not in (before[0].address6, dual.gateway6)


def test_the_table_for_ipv6_is_there_while_a_network_needs_it(engine):
    def tables():
        listed = run(find("nft"), "list", "tables", check=True).out.split()
        return [listed[i + 1] for i, word in enumerate(listed) if word == "table"]

    assert "ip6" not in tables()
    for _ in range(2):
        engine.run(engine.service.create(NetworkRequest(name="six", ipv4=False, ipv6=True)))
        assert "ip6" in tables()
        engine.run(engine.service.remove("six"))
        assert "ip6" not in tables()


def test_a_network_needs_a_version(engine):
    with pytest.raises(InvalidArgument, match="IPv4 or IPv6 must be enabled"):
        engine.run(engine.service.create(NetworkRequest(name="bare", ipv4=False)))
