"""Macvlan and ipvlan, and what else the options of networks can make of them."""

import asyncio
import os
import socket
from pathlib import Path

import pytest
from msgspec.structs import replace

from berth.errors import Failed, Forbidden, InvalidArgument, NotFound, Unsupported
from berth.network.records import EndpointRequest, NetworkRequest, SubnetRecord
from support.networks import HOST, NAMES, OUTSIDE, within
from support.programs import find, run

BRIDGE = "com.docker.network.bridge."
WAN = {"parent": "wan0", "macvlan_mode": "bridge"}
LAN = {"subnet": "198.51.100.0/24", "gateway": OUTSIDE, "ip_range": "198.51.100.64/26"}


def create(engine, name, **options):
    return engine.run(engine.service.create(NetworkRequest(name=name, **options)))


def links():
    """Return the names of interfaces; their states change by themselves."""
    listed = run(find("ip"), "-o", "link", check=True).out
    return [line.split(": ")[1] for line in listed.splitlines()]


@pytest.fixture
def macvlan(engine):
    return create(engine, "lan", driver="macvlan", options=WAN, **LAN)


def test_a_macvlan_is_a_neighbour_of_its_host(net, engine, macvlan):
    one, two = engine.connect("c1", network="lan"), engine.connect("c2", network="lan")
    (first,), (second,) = one.endpoints, two.endpoints
    assert (first.address, first.gateway, first.interface) == ("198.51.100.64", OUTSIDE, "")
    world = net.listen(net.outside_fd, 9000)
    assert net.talk(world, one.netns_fd, (OUTSIDE, 9000)) == first.address
    server = net.listen(one.netns_fd, 80)
    assert net.talk(server, two.netns_fd, (first.address, 80)) == second.address
    assert net.talk(server, net.outside_fd, (first.address, 80)) == OUTSIDE


def test_a_namespace_that_others_stay_in_loses_its_interfaces(engine, macvlan):
    for network in ("bridge", "lan"):
        netns_fd = os.dup(engine.connect("c1", network=network).netns_fd)
        engine.run(engine.service.disconnect("c1", is_shared=True))
        assert "eth0" not in within(netns_fd, links)
        os.close(netns_fd)


def test_a_macvlan_may_have_several_subnets(net, engine):
    more = (
        SubnetRecord(subnet="10.77.2.0/24", gateway="10.77.2.9", ip_range="10.77.2.64/26"),
        SubnetRecord(subnet="fd00:77::/64"),
    )
    first = {"subnet": "10.77.1.0/30", "gateway": "10.77.1.1", "subnet6": "fd00:76::/64"}
    network = create(engine, "lan", driver="macvlan", options=WAN, **first, more=more, ipv6=True)
    ends = [engine.connect(f"c{n}", network="lan").endpoints[0] for n in range(3)]
    assert [(e.address, e.prefix_length, e.gateway) for e in ends] == [
        ("10.77.1.2", 30, "10.77.1.1"),
        ("10.77.2.64", 24, "10.77.2.9"),
        ("10.77.2.65", 24, "10.77.2.9"),
    ]
    chosen = engine.connect("c4", network="lan", address="10.77.2.99", address6="fd00:77::5")
    assert (chosen.endpoints[0].address6, chosen.endpoints[0].prefix_length6) == ("fd00:77::5", 64)
    route = within(chosen.netns_fd, lambda: run(find("ip"), "route", check=True).out)
    assert "default via 10.77.2.9" in route
    with pytest.raises(Forbidden, match="overlaps"):
        create(engine, "other", subnet="10.77.2.128/25")
    with pytest.raises(Forbidden, match="overlaps"):
        create(engine, "other", driver="macvlan", subnet="10.78.0.0/16", more=(more[0], more[0]))
    assert engine.service.inspect("lan") == network


def test_a_private_macvlan_keeps_its_members_apart(net, engine):
    create(engine, "lan", driver="macvlan", options={**WAN, "macvlan_mode": "private"}, **LAN)
    one, two = engine.connect("c1", network="lan"), engine.connect("c2", network="lan")
    server = net.listen(one.netns_fd, 80)
    address = one.endpoints[0].address
    assert net.talk(server, net.outside_fd, (address, 80)) == OUTSIDE
    client = net.socket(two.netns_fd)
    client.settimeout(0.4)
    assert client.connect_ex((address, 80)) != 0


def test_a_macvlan_without_a_parent_leads_nowhere_but_to_its_members(net, engine):
    network = create(engine, "alone", driver="macvlan")
    assert (network.internal, network.parent) == (True, f"dm-{network.id[:12]}")
    one, two = engine.connect("c1", network="alone"), engine.connect("c2", network="alone")
    assert one.endpoints[0].gateway == ""
    server = net.listen(one.netns_fd, 80)
    assert net.talk(server, two.netns_fd, (one.endpoints[0].address, 80))
    for container in ("c1", "c2"):
        engine.run(engine.service.disconnect(container))
    engine.run(engine.service.remove("alone"))
    assert network.parent not in links()


def test_a_vlan_is_made_for_its_network_and_goes_with_it(net, engine):
    options = {"parent": "wan0.7"}
    try:
        network = create(engine, "tagged", driver="macvlan", options=options, **LAN)
    except Unsupported as error:
        assert "has no vlans (CONFIG_VLAN_8021Q): wan0.7" in error.message
        return
    assert "wan0.7@wan0" in links()
    one, two = engine.connect("c1", network="tagged"), engine.connect("c2", network="tagged")
    server = net.listen(one.netns_fd, 80)
    assert net.talk(server, two.netns_fd, (one.endpoints[0].address, 80))
    for container in ("c1", "c2"):
        engine.run(engine.service.disconnect(container))
    engine.run(engine.service.remove(network.id))
    assert "wan0.7@wan0" not in links()
    assert any(name.startswith("wan0@") for name in links())


def test_a_parent_that_was_made_goes_with_the_last_of_its_networks(engine):
    made, other = {"options": {"parent": "vlan7"}}, {"subnet": "10.78.0.0/24"}
    # As if it had made it: not every kernel has vlans.
    run(find("ip"), "link", "add", "vlan7", "type", "bridge", check=True)
    first = create(engine, "first", driver="macvlan", **made, **LAN)
    engine.service._networks._put(replace(first, is_ours=True))
    create(engine, "second", driver="macvlan", **made, **other)
    engine.connect("c1", network="second")
    engine.run(engine.service.remove("first"))
    assert "vlan7" in links()
    engine.run(engine.service.disconnect("c1"))
    engine.run(engine.service.remove("second"))
    assert "vlan7" not in links()


def test_a_parent_goes_also_when_its_last_networks_go_at_once(engine):
    made, other = {"options": {"parent": "vlan7"}}, {"subnet": "10.78.0.0/24"}
    run(find("ip"), "link", "add", "vlan7", "type", "bridge", check=True)
    first = create(engine, "first", driver="macvlan", **made, **LAN)
    engine.service._networks._put(replace(first, is_ours=True))
    create(engine, "second", driver="macvlan", **made, **other)

    async def remove():
        await asyncio.gather(*(engine.service.remove(name) for name in ("first", "second")))

    engine.run(remove())
    assert "vlan7" not in links()


def test_a_member_of_a_macvlan_may_come_and_go(net, engine, macvlan):
    container = engine.connect("c1", (80, 8080))
    engine.run(engine.service.attach("c1", EndpointRequest(network="lan")))
    server = net.listen(container.netns_fd, 80)
    address = engine.service.endpoints_of("c1")[1].address
    assert net.talk(server, net.outside_fd, (address, 80)) == OUTSIDE
    engine.close()
    engine.open("c1")
    assert [e.network_name for e in engine.service.endpoints_of("c1")] == ["bridge", "lan"]
    later = engine.connect("c2", network="lan").endpoints[0]
    assert later.address != address


def test_a_detached_macvlan_is_gone_from_its_container(net, engine, macvlan):
    container = engine.connect("c1")
    engine.run(engine.service.attach("c1", EndpointRequest(network="lan")))
    engine.run(engine.service.detach("c1", "lan"))
    assert "eth1" not in within(container.netns_fd, links)


def test_ports_are_not_published_on_a_macvlan(engine, macvlan):
    assert engine.connect("c1", (80, 8080), network="lan").ports == ()


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"parent": "lo"}, InvalidArgument, "loopback interface is not a valid macvlan parent"),
        ({"parent": "nowhere"}, InvalidArgument, "invalid subinterface vlan name nowhere"),
        ({"parent": "nowhere.7"}, InvalidArgument, "was not found on the host: nowhere"),
        ({"parent": "wan0.5000"}, InvalidArgument, "vlan id must be between 1-4094"),
        ({"parent": "wan0.x"}, InvalidArgument, "unable to parse a valid vlan id"),
        ({"macvlan_mode": "odd"}, InvalidArgument, "requested macvlan mode 'odd' is not valid"),
    ],
)
def test_a_macvlan_that_cannot_be_is_refused_and_leaves_nothing(engine, options, error, text):
    before = links()
    with pytest.raises(error, match=text):
        create(engine, "lan", driver="macvlan", options=options, **LAN)
    assert [n.name for n in engine.service.networks()] == ["bridge", "host", "none"]
    assert links() == before


def test_passthru_has_its_parent_for_itself(engine, macvlan):
    options = {"parent": "wan0", "macvlan_mode": "passthru"}
    with pytest.raises(Failed, match="cannot use mode passthru"):
        create(engine, "second", driver="macvlan", options=options, subnet="198.51.101.0/24")


def test_ipvlan_works_or_is_refused_in_plain_words(net, engine):
    options = {"parent": "wan0", "ipvlan_mode": "l2"}
    try:
        create(engine, "lan", driver="ipvlan", options=options, **LAN)
    except Unsupported as error:
        assert error.message == "the kernel of this host has no ipvlan (CONFIG_IPVLAN)"
        assert [n.name for n in engine.service.networks()] == ["bridge", "host", "none"]
        return
    one, two = engine.connect("c1", network="lan"), engine.connect("c2", network="lan")
    server = net.listen(one.netns_fd, 80)
    assert net.talk(server, net.outside_fd, (one.endpoints[0].address, 80)) == OUTSIDE
    assert net.talk(server, two.netns_fd, (one.endpoints[0].address, 80))


# Bridges


def route_to(net, network, address=HOST):
    work = lambda: run(find("ip"), "route", "add", network.subnet, "via", address, check=True)  # noqa: E731
    within(net.outside_fd, work)


def answers(net, fd, address):
    with net.socket(fd) as client:
        client.settimeout(0.4)
        return client.connect_ex(address) == 0


def test_a_routed_network_shows_its_own_addresses_and_opens_published_ports(net, engine):
    network = create(engine, "open", options={BRIDGE + "gateway_mode_ipv4": "routed"})
    route_to(net, network)
    one = engine.connect("c1", (80, 8080), network="open")
    assert [(p.host_ip, p.host_port) for p in one.ports] == [("0.0.0.0", 0)]
    server = net.listen(one.netns_fd, 80)
    net.listen(one.netns_fd, 81)
    address = one.endpoints[0].address
    assert net.talk(server, net.outside_fd, (address, 80)) == OUTSIDE
    assert not answers(net, net.outside_fd, (address, 81))
    assert not answers(net, net.outside_fd, (HOST, 8080))
    world = net.listen(net.outside_fd, 9000)
    assert net.talk(world, one.netns_fd, (OUTSIDE, 9000)) == address
    ping = lambda: run(find("busybox"), "ping", "-c", "1", "-W", "2", address)  # noqa: E731
    assert within(net.outside_fd, ping).code == 0
    engine.run(engine.service.disconnect("c1"))
    assert not engine.service.endpoints_of("c1")


def test_a_container_behind_nat_is_not_reached_by_its_own_address(net, engine):
    network = create(engine, "plain")
    route_to(net, network)
    one = engine.connect("c1", (80, 8080), network="plain")
    server = net.listen(one.netns_fd, 80)
    assert not answers(net, net.outside_fd, (one.endpoints[0].address, 80))
    assert net.talk(server, net.outside_fd, (HOST, 8080)) == OUTSIDE


def test_an_unprotected_network_is_reached_by_its_own_addresses(net, engine):
    network = create(engine, "bare", options={BRIDGE + "gateway_mode_ipv4": "nat-unprotected"})
    route_to(net, network)
    one = engine.connect("c1", network="bare")
    server = net.listen(one.netns_fd, 81)
    assert net.talk(server, net.outside_fd, (one.endpoints[0].address, 81)) == OUTSIDE


def test_a_trusted_interface_reaches_published_ports_directly(net, engine):
    options = {BRIDGE + "trusted_host_interfaces": "wan0:wan1"}
    network = create(engine, "trusting", options=options)
    route_to(net, network)
    one = engine.connect("c1", (80, 8080), network="trusting")
    server = net.listen(one.netns_fd, 80)
    net.listen(one.netns_fd, 81)
    assert net.talk(server, net.outside_fd, (one.endpoints[0].address, 80)) == OUTSIDE
    assert not answers(net, net.outside_fd, (one.endpoints[0].address, 81))


def test_an_isolated_gateway_is_not_on_the_bridge(net, engine):
    options = {BRIDGE + "gateway_mode_ipv4": "isolated", BRIDGE + "name": "brtest7"}
    with pytest.raises(InvalidArgument, match="'isolated' can only be used for an internal"):
        create(engine, "inner", options=options)
    create(engine, "inner", internal=True, options=options)
    assert "inet " not in run(find("ip"), "addr", "show", "brtest7", check=True).out
    one, two = engine.connect("c1", network="inner"), engine.connect("c2", network="inner")
    server = net.listen(one.netns_fd, 80)
    assert net.talk(server, two.netns_fd, (one.endpoints[0].address, 80))


def test_an_isolated_gateway_is_not_there_by_ipv6_either(net, engine):
    options = {BRIDGE + f"gateway_mode_ipv{n}": "isolated" for n in (4, 6)}
    options[BRIDGE + "name"] = "brtest7"
    create(engine, "inner", internal=True, ipv6=True, options=options)
    shown = lambda: run(find("ip"), "addr", "show", "brtest7", check=True).out  # noqa: E731
    assert "inet" not in shown()
    one, two = engine.connect("c1", network="inner"), engine.connect("c2", network="inner")
    server = net.listen(one.netns_fd, 80, "::")
    assert net.talk(server, two.netns_fd, (one.endpoints[0].address6, 80))
    assert "inet" not in shown()


@pytest.mark.parametrize("has_ipv6", [True, False])
def test_the_host_has_ipv6_on_a_bridge_as_its_network_has(engine, has_ipv6):
    create(engine, "some", ipv6=has_ipv6, options={BRIDGE + "name": "brtest7"})
    engine.connect("c1", network="some")
    shown = run(find("ip"), "addr", "show", "brtest7", check=True).out
    assert ("inet6" in shown) == has_ipv6


def test_a_bridge_may_have_no_address(engine):
    options = {BRIDGE + "inhibit_ipv4": "true", BRIDGE + "name": "brtest7"}
    create(engine, "bare", options=options)
    assert "inet " not in run(find("ip"), "addr", "show", "brtest7", check=True).out


def test_a_bridge_that_was_there_is_used_and_stays(net, engine):
    run(find("ip"), "link", "add", "brtest7", "type", "bridge", check=True)
    run(find("ip"), "addr", "add", "10.77.0.9/24", "dev", "brtest7", check=True)
    network = create(engine, "mine", subnet="10.77.0.0/24", options={BRIDGE + "name": "brtest7"})
    assert not network.is_ours
    world = net.listen(net.outside_fd, 9000)
    one = engine.connect("c1", network="mine")
    assert net.talk(world, one.netns_fd, (OUTSIDE, 9000)) == HOST
    engine.run(engine.service.disconnect("c1"))
    engine.run(engine.service.remove("mine"))
    assert "10.77.0.9/24" in run(find("ip"), "addr", "show", "brtest7", check=True).out


LOCALNET = Path("/proc/sys/net/ipv4/conf/brtest7/route_localnet")


@pytest.fixture
def brown(net):
    """A bridge of somebody else's."""
    run(find("ip"), "link", "add", "brtest7", "type", "bridge", check=True)
    run(find("ip"), "addr", "add", "10.77.0.9/24", "dev", "brtest7", check=True)
    return {"subnet": "10.77.0.0/24", "options": {BRIDGE + "name": "brtest7"}}


@pytest.mark.parametrize("before", ["0\n", "1\n"])
def test_what_is_switched_on_at_a_bridge_of_somebody_elses_is_put_back(brown, engine, before):
    LOCALNET.write_text(before)
    create(engine, "mine", **brown)
    assert LOCALNET.read_text() == "1\n"
    engine.close()
    engine.open()
    assert LOCALNET.read_text() == "1\n"
    engine.run(engine.service.remove("mine"))
    assert LOCALNET.read_text() == before
    create(engine, "again", **brown)
    engine.close(remove=True)
    assert LOCALNET.read_text() == before
    engine.open()


def test_what_another_engine_needs_stays_switched_on(brown, engine):
    create(engine, "mine", **brown)
    for line in (
        "add table ip berth-other",
        "add set ip berth-other bridges { type ifname; }",
        'add element ip berth-other bridges { "brtest77", "brtest7" }',
    ):
        run(find("nft"), line, check=True)
    engine.run(engine.service.remove("mine"))
    assert LOCALNET.read_text() == "1\n"
    LOCALNET.write_text("0\n")
    create(engine, "again", **brown)
    run(find("nft"), "delete element ip berth-other bridges { brtest7 }", check=True)
    engine.run(engine.service.remove("again"))
    assert LOCALNET.read_text() == "0\n"


def test_a_network_that_cannot_be_leaves_nothing_switched_on(brown, engine, monkeypatch):
    def fail(*_args):
        raise OSError(5, "broken")

    with monkeypatch.context() as patched:
        patched.setattr(engine.service._base.table, "change", fail)
        with pytest.raises(Failed, match="broken"):
            create(engine, "mine", **brown)
    assert LOCALNET.read_text() == "0\n"


def test_two_networks_of_one_bridge_are_refused(engine):
    create(engine, "one", options={BRIDGE + "name": "brtest7"})
    with pytest.raises(Forbidden, match="networks have same bridge name"):
        create(engine, "two", options={BRIDGE + "name": "brtest7"})


def test_the_world_sees_the_address_that_was_chosen(net, engine):
    run(find("ip"), "addr", "add", "198.51.100.9/24", "dev", "wan0", check=True)
    create(engine, "chosen", options={"com.docker.network.host_ipv4": "198.51.100.9"})
    world = net.listen(net.outside_fd, 9000)
    one = engine.connect("c1", network="chosen")
    assert net.talk(world, one.netns_fd, (OUTSIDE, 9000)) == "198.51.100.9"


def test_without_masquerading_the_world_sees_the_container(net, engine):
    network = create(engine, "seen", options={BRIDGE + "enable_ip_masquerade": "false"})
    route_to(net, network)
    world = net.listen(net.outside_fd, 9000)
    one = engine.connect("c1", network="seen")
    assert net.talk(world, one.netns_fd, (OUTSIDE, 9000)) == one.endpoints[0].address


def test_ports_are_bound_where_their_network_says(net, engine):
    create(engine, "local", options={BRIDGE + "host_binding_ipv4": "127.0.0.1"})
    one = engine.connect("c1", (80, 8080), (81, 8081, "tcp", HOST), network="local")
    assert [p.host_ip for p in one.ports] == ["127.0.0.1", HOST]
    server = net.listen(one.netns_fd, 80)
    assert net.talk(server, net.host_fd, ("127.0.0.1", 8080))
    assert not answers(net, net.outside_fd, (HOST, 8080))


def test_interfaces_have_the_prefix_of_their_network(engine):
    create(engine, "named", options={"com.docker.network.container_iface_prefix": "net"})
    both = engine.connect("c1", networks=["named", "bridge"])
    assert [e.device for e in both.endpoints] == ["net0", "eth0"]


def test_packets_are_as_large_as_the_network_allows(net, engine):
    create(engine, "small", options={"com.docker.network.driver.mtu": "600"})
    one = engine.connect("c1", network="small")
    sock = net.socket(one.netns_fd, socket.SOCK_DGRAM)
    sock.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER: do not fragment
    sock.connect((OUTSIDE, 9))
    with pytest.raises(OSError, match="Message too long"):
        sock.send(bytes(601))


@pytest.mark.parametrize(
    ("label", "value", "text"),
    [
        (BRIDGE + "enable_icc", "maybe", "failed to parse .*enable_icc value: maybe"),
        (BRIDGE + "gateway_mode_ipv4", "odd", "unknown gateway mode odd"),
        (BRIDGE + "host_binding_ipv4", "x", "failed to parse .*host_binding_ipv4 value: x"),
    ],
)
def test_options_that_make_no_sense_are_refused(engine, label, value, text):
    with pytest.raises(InvalidArgument, match=text):
        create(engine, "odd", options={label: value})


@pytest.mark.parametrize("own", ["", "tap7"])
def test_a_network_that_cannot_be_mended_keeps_no_engine_from_starting(engine, caplog, own):
    """Its parent is not there any more, or its bridge's name is another interface's."""
    ip = find("ip")
    if own:
        create(engine, "lost", options={BRIDGE + "name": own})
    else:
        create(engine, "lost", driver="macvlan", options=WAN, **LAN)
    kept = engine.connect("kept", network="lost")
    netns_fd = os.dup(kept.netns_fd)
    engine.close()
    run(ip, "link", "delete", own or "wan0", check=True)
    if own:
        run(ip, "link", "add", own, "type", "veth", "peer", "name", "tap8", check=True)
    caplog.clear()
    engine.open("kept")
    assert "network lost cannot be used" in caplog.text
    with pytest.raises(NotFound):
        engine.connect("c1", network="lost")
    assert own not in run(find("nft"), "list", "set", "ip", NAMES.table, "bridges").out or not own
    assert engine.connect("c2").endpoints
    engine.run(engine.service.disconnect("kept"))
    caplog.clear()
    engine.run(engine.service.remove("lost"))
    assert not caplog.records
    assert not own or own in {name.partition("@")[0] for name in links()}
    os.close(netns_fd)
