"""What every driver of networks does, by the service: bridge, and macvlan and ipvlan on an interface."""

import os

import pytest

from berth.errors import Forbidden, InvalidArgument, Unsupported
from berth.network.records import EndpointRequest, NetworkRequest
from kernel.network.conftest import engine, net  # noqa: F401 - fixtures
from kernel.network.test_names import Client
from support.networks import NAMES, sandbox_request, within
from support.programs import find, run

SUBNET = {"subnet": "10.66.0.0/24", "gateway": "10.66.0.1", "ip_range": "10.66.0.64/26"}
SUBNET6 = {"ipv6": True, "subnet6": "fd00:66::/64", "gateway6": "fd00:66::1"}
DRIVERS = {
    "bridge": ("bridge", {}),
    "bridge of small packets": ("bridge", {"com.docker.network.driver.mtu": "1400"}),
    "macvlan": ("macvlan", {"parent": "wan0"}),
    "macvlan alone": ("macvlan", {}),
    "ipvlan": ("ipvlan", {"parent": "wan0"}),
    "ipvlan of layer 3": ("ipvlan", {"parent": "wan0", "ipvlan_mode": "l3"}),
}

pytestmark = pytest.mark.parametrize("engine", [0], indirect=True)


@pytest.fixture(params=DRIVERS)
def network(request, engine):  # noqa: F811
    """A network of the driver, with addresses of both versions of IP."""
    driver, options = DRIVERS[request.param]
    asked = NetworkRequest(name="own", driver=driver, options=options, **SUBNET, **SUBNET6)
    try:
        return engine.run(engine.service.create(asked))
    except Unsupported as error:
        assert f"has no {driver} (CONFIG_{driver.upper()})" in error.message
        pytest.skip(f"needs a kernel with {driver}")


def links(fd=None):
    """Return the names of the interfaces in a namespace, or on the host."""
    listed = lambda: run(find("ip"), "-o", "link", check=True).out  # noqa: E731
    text = listed() if fd is None else within(fd, listed)
    return {line.split(": ")[1].partition("@")[0] for line in text.splitlines()}


def test_members_reach_each_other_by_both_versions_and_by_name(net, engine, network):  # noqa: F811
    one, two = engine.connect("c1", network="own"), engine.connect("c2", network="own")
    (first,), (second,) = one.endpoints, two.endpoints
    assert (first.address, first.prefix_length) == ("10.66.0.64", 24)
    server = net.listen(one.netns_fd, 80, "::")
    assert net.talk(server, two.netns_fd, (first.address, 80)) == f"::ffff:{second.address}"
    assert net.talk(server, two.netns_fd, (first.address6, 80)) == second.address6
    code, answer = Client(net, engine, two.netns_fd).ask("c1")
    assert (code, answer[-4:]) == (0, bytes(map(int, first.address.split("."))))


def test_an_address_may_be_chosen_once(engine, network):  # noqa: F811
    chosen = engine.connect("c1", network="own", address="10.66.0.7", address6="fd00:66::7")
    assert (chosen.endpoints[0].address, chosen.endpoints[0].address6) == (
        "10.66.0.7",
        "fd00:66::7",
    )
    with pytest.raises(Forbidden, match="Address already in use"):
        engine.connect("c2", network="own", address="10.66.0.7")
    with pytest.raises(InvalidArgument, match="does not belong to any of this network's subnets"):
        engine.connect("c2", network="own", address="10.67.0.7")
    assert engine.service.endpoints_of("c2") == ()


def test_members_come_and_go_while_they_run(net, engine, network):  # noqa: F811
    one, two = engine.connect("c1"), engine.connect("c2", network="own")
    request = EndpointRequest(network="own", address="10.66.0.9")
    engine.run(engine.service.attach("c1", request))
    assert {"eth0", "eth1"} <= links(one.netns_fd)
    server = net.listen(one.netns_fd, 80)
    assert net.talk(server, two.netns_fd, ("10.66.0.9", 80)) == two.endpoints[0].address
    with pytest.raises(Forbidden, match="already exists in network own"):
        engine.run(engine.service.attach("c1", request))
    engine.run(engine.service.detach("c1", "own"))
    assert "eth1" not in links(one.netns_fd)
    engine.run(engine.service.attach("c1", request))  # the address is free again


def test_a_network_goes_when_nobody_is_in_it_and_leaves_nothing(engine, network):  # noqa: F811
    engine.connect("c1", network="own")
    with pytest.raises(Forbidden, match="has active endpoints"):
        engine.run(engine.service.remove("own"))
    engine.run(engine.service.disconnect("c1"))
    engine.run(engine.service.remove("own"))
    assert {n for n in links() if not n.startswith("bv")} == {
        *("lo", "wan0", NAMES.bridge, "bd012345in", "bd012345out")
    }


def test_members_outlive_a_restart(net, engine, network):  # noqa: F811
    one, two = engine.connect("c1", network="own"), engine.connect("c2", network="own")
    held = [os.dup(sandbox.netns_fd) for sandbox in (one, two)]
    try:
        engine.close()
        engine.open("c1", "c2")
        adopted = engine.run(
            engine.service.adopt(sandbox_request("c1", (EndpointRequest(network="own"),)))
        )
        assert adopted.endpoints == one.endpoints
        server = net.listen(held[0], 80)
        assert net.talk(server, held[1], (one.endpoints[0].address, 80))
        assert engine.connect("c3", network="own").endpoints[0].address == "10.66.0.66"
    finally:
        for fd in held:
            os.close(fd)


def test_an_internal_network_leads_nowhere(net, engine, network):  # noqa: F811
    engine.run(engine.service.remove("own"))
    driver, options = network.driver, network.options
    asked = NetworkRequest(name="own", driver=driver, options=options, internal=True, **SUBNET)
    engine.run(engine.service.create(asked))
    one, two = engine.connect("c1", network="own"), engine.connect("c2", network="own")
    server = net.listen(one.netns_fd, 80)
    assert net.talk(server, two.netns_fd, (one.endpoints[0].address, 80))
    route = within(one.netns_fd, lambda: run(find("ip"), "route", check=True).out)
    assert "default" not in route
