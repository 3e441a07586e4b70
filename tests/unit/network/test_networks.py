from ipaddress import IPv4Network, IPv6Network

import pytest

from berth.errors import Failed, InvalidArgument, NotFound
from berth.network.ipam import Plan
from berth.network.networks import Networks
from berth.network.records import NetworkRequest


def test_three_networks_always_exist(state):
    assert [(n.name, n.driver) for n in Networks(state, Plan()).all()] == [
        ("bridge", "bridge"),
        ("host", "host"),
        ("none", "null"),
    ]
    assert len(Networks(state, Plan()).all()) == 3


def test_the_default_network_keeps_its_subnet_unless_it_may_move(state):
    networks = Networks(state, Plan())
    networks.settle_default("berth0", occupied=[], movable=True)
    taken = [IPv4Network("172.17.0.0/24")]
    networks.settle_default("berth0", occupied=taken, movable=False)
    assert networks.default().subnet == "172.17.0.0/16"
    networks.settle_default("berth0", occupied=taken, movable=True)
    assert networks.default().subnet == "172.18.0.0/16"
    assert networks.default().gateway == "172.18.0.1"


def settled(state, plan, *, movable=True):
    networks = Networks(state, plan)
    networks.settle_default("berth0", occupied=[], movable=movable)
    return networks.default()


def test_the_default_network_is_as_the_settings_say(state):
    plan = Plan(
        range="10.9.8.0/24", ipv6=True, range6="fd00:9::/64", icc=False, binding="127.0.0.1"
    )
    found = settled(state, plan)
    assert (found.gateway, found.subnet, found.ip_range) == (
        *("10.9.8.1", "10.9.8.0/24"),
        "10.9.8.0/24",
    )
    assert (found.gateway6, found.subnet6) == ("fd00:9::1", "fd00:9::/64")
    assert (found.icc, found.masquerade, found.binding) == (False, True, "127.0.0.1")
    # A range is a part of the bridge's subnet.
    found = settled(state, Plan(bip="10.9.0.7/16", range="10.9.8.0/24"))
    assert (found.gateway, found.subnet, found.ip_range) == (
        *("10.9.0.7", "10.9.0.0/16"),
        "10.9.8.0/24",
    )
    assert (found.subnet6, found.gateway6, found.icc) == ("", "", True)


def test_the_default_network_gets_a_unique_local_subnet_and_keeps_it(state):
    found = settled(state, Plan(ipv6=True))
    assert IPv6Network(found.subnet6).subnet_of(IPv6Network("fd00::/8"))
    assert settled(state, Plan(ipv6=True)).subnet6 == found.subnet6
    assert settled(state, Plan(), movable=False).subnet6 == found.subnet6  # somebody is in it
    assert settled(state, Plan()).subnet6 == ""
    assert settled(state, Plan(ipv6=True, bip6="fd00:1::5/64")).gateway6 == "fd00:1::5"


def test_without_a_free_subnet_the_refusal_says_what_to_set(state):
    taken = [IPv4Network("172.16.0.0/12"), IPv4Network("192.168.0.0/16")]
    with pytest.raises(Failed, match='error creating default "bridge" network: all') as refused:
        Networks(state, Plan()).settle_default("berth0", occupied=taken, movable=True)
    assert "bip" in refused.value.hint


def test_a_network_is_found_by_name_id_and_start_of_id(state):
    networks = Networks(state, Plan())
    made = networks.create(NetworkRequest(name="own"), occupied=[])
    assert networks.find("own") == networks.find(made.id) == networks.find(made.id[:12]) == made
    assert Networks(state, Plan()).find("own") == made
    with pytest.raises(NotFound, match="network missing not found"):
        networks.find("missing")
    with pytest.raises(NotFound):
        networks.find("")


def test_options_are_read(state):
    options = {
        "com.docker.network.driver.mtu": "1400",
        "com.docker.network.bridge.name": "br-own",
        "com.docker.network.bridge.enable_icc": "false",
        "com.docker.network.bridge.enable_ip_masquerade": "0",
    }
    request = NetworkRequest(
        name="own", subnet="10.9.0.0/16", ip_range="10.9.5.0/24", options=options
    )
    made = Networks(state, Plan()).create(request, occupied=[])
    assert (made.mtu, made.bridge, made.icc, made.masquerade) == (1400, "br-own", False, False)
    assert (made.gateway, made.ip_range) == ("10.9.5.0", "10.9.5.0/24")  # as in Docker


@pytest.mark.parametrize(
    "options",
    [
        {"com.docker.network.driver.mtu": "many"},
        {"com.docker.network.bridge.name": "../escape"},
        {"com.docker.network.bridge.name": "longer-than-the-kernel-takes"},
    ],
)
def test_options_that_cannot_be_are_refused(state, options):
    with pytest.raises(InvalidArgument):
        Networks(state, Plan()).create(NetworkRequest(name="own", options=options), occupied=[])
