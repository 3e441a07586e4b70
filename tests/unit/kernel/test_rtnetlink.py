from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from berth.kernel import rtnetlink
from berth.kernel.netlink import NLM_F_CREATE, NLM_F_EXCL, NetlinkSocket, decode

MAC = bytes.fromhex("0242ac110002")


def read(kind, message):
    """Decode with pyroute2 what we encoded."""
    other = kind(message.encode(1))
    other.decode()
    return other


def test_a_veth_pair_has_its_peer_in_the_other_namespace():
    message = rtnetlink.veth_message(
        "bv0", master=3, mtu=1400, peer="eth0", peer_address=MAC, peer_netns_fd=9
    )
    link = read(ifinfmsg, message)
    assert message.flags == NLM_F_CREATE | NLM_F_EXCL
    assert link["state"] == "up"
    assert (link.get_attr("IFLA_IFNAME"), link.get_attr("IFLA_MASTER")) == ("bv0", 3)
    assert link.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") == "veth"
    peer = link.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA", "VETH_INFO_PEER")
    assert dict(peer["attrs"]) == {
        "IFLA_IFNAME": "eth0",
        "IFLA_ADDRESS": "02:42:ac:11:00:02",
        "IFLA_MTU": 1400,
        "IFLA_NET_NS_FD": 9,
    }
    assert peer["flags"] == 0


def test_a_bridge_is_made_up_with_its_own_mac():
    link = read(ifinfmsg, rtnetlink.bridge_message("berth0", address=MAC, mtu=1500))
    assert link["state"] == "up"
    assert link.get_attr("IFLA_ADDRESS") == "02:42:ac:11:00:02"
    assert link.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") == "bridge"


def test_hairpin_is_a_setting_of_the_port():
    link = read(ifinfmsg, rtnetlink.hairpin_message("bv0"))
    assert link.get_nested("IFLA_LINKINFO", "IFLA_INFO_SLAVE_KIND") == "bridge"
    assert link.get_nested("IFLA_LINKINFO", "IFLA_INFO_SLAVE_DATA", "IFLA_BRPORT_MODE") == 1


def test_an_address_comes_with_the_broadcast_of_its_subnet():
    address = read(ifaddrmsg, rtnetlink.address_message(2, bytes((172, 17, 0, 2)), 16))
    assert (address["index"], address["prefixlen"]) == (2, 16)
    assert address.get_attr("IFA_LOCAL") == address.get_attr("IFA_ADDRESS") == "172.17.0.2"
    assert address.get_attr("IFA_BROADCAST") == "172.17.255.255"


def test_the_default_route_goes_to_the_gateway():
    route = read(rtmsg, rtnetlink.default_route_message(bytes((172, 17, 0, 1)), index=2))
    assert (route["dst_len"], route["table"], route["type"]) == (0, 254, 1)
    assert (route.get_attr("RTA_GATEWAY"), route.get_attr("RTA_OIF")) == ("172.17.0.1", 2)


def test_the_loopback_interface_of_this_machine_is_found():
    with NetlinkSocket(0) as sock:
        link = rtnetlink.find_link(sock, "lo")
        assert link is not None
        assert (link.index, link.kind, link.master) == (rtnetlink.LOOPBACK_INDEX, "", 0)
        assert "lo" in [other.name for other in rtnetlink.links(sock)]
        assert bytes((127, 0, 0, 1)) in [a.address for a in rtnetlink.addresses(sock)]
        assert rtnetlink.find_link(sock, "no-such-link") is None


def test_an_entry_of_a_dump_is_read():
    other = rtmsg()
    other["family"], other["dst_len"], other["table"] = 2, 8, 254
    other["attrs"] = [("RTA_DST", "10.0.0.0"), ("RTA_GATEWAY", "192.0.2.1"), ("RTA_OIF", 4)]
    other.encode()
    route = rtnetlink.Route(decode(bytes(other.data))[0])
    assert (route.destination, route.prefix_length) == (bytes((10, 0, 0, 0)), 8)
    assert (route.gateway, route.index, route.table) == (bytes((192, 0, 2, 1)), 4, 254)
