from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.errors import BerthError, Failed, Forbidden, InvalidArgument
from berth.network import ipam
from berth.network.ipam import AddressPool, Plan, choose_subnet

SUBNET = IPv4Network("10.9.0.0/29")  # addresses 1 to 6


def chosen(count, **asked):
    """Choose so many subnets, one after the other."""
    taken = []
    for _ in range(count):
        taken.append(choose_subnet(taken, Plan().spaces("engine", **asked)))
    return [str(subnet) for subnet in taken]


def test_default_subnets_are_dockers():
    subnets = chosen(15 + 16)
    assert subnets[:2] == ["172.17.0.0/16", "172.18.0.0/16"]
    assert subnets[14:17] == ["172.31.0.0/16", "192.168.0.0/20", "192.168.16.0/20"]
    with pytest.raises(Failed, match="fully subnetted"):
        chosen(15 + 16 + 1)


def test_a_subnet_that_overlaps_a_route_is_passed_over():
    taken = [IPv4Network("172.17.5.0/24"), IPv4Network("172.18.0.0/15")]
    assert str(choose_subnet(taken, Plan().spaces(""))) == "172.20.0.0/16"
    with pytest.raises(Failed, match="fully subnetted"):
        choose_subnet([IPv4Network("128.0.0.0/1")], Plan().spaces(""))


def test_subnets_may_be_of_another_size():
    assert chosen(3, size=24) == [f"172.17.{n}.0/24" for n in range(3)]
    with pytest.raises(InvalidArgument, match="invalid address pool"):
        chosen(1, size=15)
    (whole,) = chosen(1, version=6)
    taken = [IPv6Network(whole)]
    small = choose_subnet(taken, Plan().spaces("engine", version=6, size=126))  # at once
    assert small.network_address == taken[0].broadcast_address + 1


def test_subnets_come_from_pools_of_their_version():
    plan = Plan(pools=(("fd00:1::/48", 64), ("10.0.0.0/8", 24)))
    assert str(choose_subnet([], plan.spaces("", version=6))) == "fd00:1::/64"
    assert str(choose_subnet([], plan.spaces(""))) == "10.0.0.0/24"
    assert Plan(pools=(("fd00:1::/48", 64),)).spaces("") == []
    four = Plan(pools=(("10.0.0.0/8", 24),))
    assert (
        four.spaces("a", version=6) == Plan().spaces("a", version=6) != four.spaces("b", version=6)
    )


def test_a_freed_address_rests_until_the_others_had_their_turn():
    pool = AddressPool(SUBNET)
    pool.claim(IPv4Address("10.9.0.1"))
    first = pool.allocate()
    pool.release(first)
    others = [pool.allocate() for _ in range(5)]
    assert others[-1] == first
    assert len(set(others)) == 5
    with pytest.raises(Failed, match="no available IPv4 addresses"):
        pool.allocate()


def test_network_and_broadcast_addresses_are_never_given():
    found = {str(AddressPool(SUBNET).allocate())}
    pool = AddressPool(SUBNET)
    found |= {str(pool.allocate()) for _ in range(6)}
    assert found == {f"10.9.0.{n}" for n in range(1, 7)}
    for taken in (SUBNET[0], SUBNET[-1]):
        with pytest.raises(Forbidden, match="Address already in use"):
            pool.claim(taken)
    with pytest.raises(Forbidden, match="Address already in use"):
        AddressPool(IPv6Network("fd00::/64")).claim(IPv6Address("fd00::"))


def test_a_subnet_of_two_addresses_has_two():
    pool = AddressPool(IPv4Network("10.9.0.0/31"))
    assert [str(pool.allocate()) for _ in range(2)] == ["10.9.0.0", "10.9.0.1"]
    with pytest.raises(Failed):
        pool.allocate()


def test_a_claimed_address_is_taken_once():
    pool = AddressPool(SUBNET)
    pool.claim(IPv4Address("10.9.0.5"))
    with pytest.raises(Forbidden, match="Address already in use"):
        pool.claim(IPv4Address("10.9.0.5"))
    with pytest.raises(InvalidArgument, match="does not belong"):
        pool.claim(IPv4Address("10.9.0.9"))


def test_an_earlier_address_is_taken_again_if_it_is_free():
    pools = ipam.Pools([AddressPool(SUBNET)])
    first = IPv4Address("10.9.0.3")
    assert pools.claim_any(["", "nonsense", "10.8.0.1", "fe80::1", "10.9.0.3"]) == first
    assert pools.claim_any(["10.9.0.3"]) is None
    pools.release(first)
    assert pools.claim_any(["10.9.0.3"]) == first


def test_a_range_limits_what_is_given_but_not_what_is_claimed():
    pool = AddressPool(IPv4Network("10.9.0.0/16"), ip_range=IPv4Network("10.9.5.0/30"))
    assert [str(pool.allocate()) for _ in range(2)] == ["10.9.5.0", "10.9.5.1"]
    pool.claim(IPv4Address("10.9.77.1"))
    with pytest.raises(InvalidArgument, match="ip-range"):
        AddressPool(SUBNET, ip_range=IPv4Network("10.10.0.0/30"))


def test_restored_addresses_are_taken_and_followed():
    pool = AddressPool(SUBNET)
    pool.restore(IPv4Address("10.9.0.3"))
    assert str(pool.allocate()) == "10.9.0.4"


@given(st.lists(st.integers(-1, 5), max_size=60))
def test_no_address_is_given_twice(steps):
    pool, held = AddressPool(SUBNET), []
    for step in steps:
        if step < 0 and held:
            pool.release(held.pop(0))
            continue
        try:
            address = pool.allocate()
        except BerthError:
            assert len(held) == 6
            continue
        assert address not in held
        held.append(address)


def test_a_mac_belongs_to_its_address():
    assert ipam.mac_of(IPv4Address("172.17.0.2")) == "02:42:ac:11:00:02"
    assert ipam.parse_mac("02:42:AC:11:00:02") == bytes.fromhex("0242ac110002")


@pytest.mark.parametrize("text", ["", "02:42", "zz:00:00:00:00:00", "01:00:00:00:00:00"])
def test_what_is_no_mac_of_an_interface_is_refused(text):
    with pytest.raises(InvalidArgument):
        ipam.parse_mac(text)


def test_what_is_no_subnet_or_address_is_refused():
    with pytest.raises(InvalidArgument):
        ipam.parse_subnet("10.0.0.0/33")
    with pytest.raises(InvalidArgument):
        ipam.parse_address("10.0.0")
