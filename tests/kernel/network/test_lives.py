"""What networks and endpoints are after a crash, a refusal, a cancellation and the end."""

import asyncio
import fcntl
import json
import os
import socket
import threading
import time
from contextlib import contextmanager
from functools import partial

import msgspec
import pytest

from berth.errors import BerthError, Conflict, Failed, Forbidden, InvalidArgument, NotFound
from berth.kernel import nftables
from berth.kernel.netlinkevents import NFTABLES, Listener
from berth.network import choosing
from berth.network.ipam import Plan
from berth.network.records import EndpointRequest, NetworkRequest, PortRequest
from berth.network.wiring import RESOLVER
from support.networks import HOST, NAMES, OUTSIDE, Engine, sandbox_request
from support.programs import find, run


def objects(kind):
    """What nft(8) says is in the engine's table, by name."""
    listed = json.loads(run(find("nft"), "-j", "list", "ruleset", check=True).out)["nftables"]
    found = [entry[kind] for entry in listed if kind in entry]
    return {entry.get("name", ""): entry for entry in found if NAMES.table in entry.values()}


def elements(name):
    kind = "map" if name in ("ports", "any_ports") else "set"
    return objects(kind)[name].get("elem", [])


def links():
    listed = json.loads(run(find("ip"), "-d", "-j", "link", check=True).out)
    return {link["ifname"]: link for link in listed}


def test_the_table_is_what_nft_would_have_made(engine):
    assert objects("table").keys() == {NAMES.table}
    chains = objects("chain")
    assert {
        name: (c["type"], c["hook"], c["prio"]) for name, c in chains.items() if "hook" in c
    } == {
        "prerouting": ("nat", "prerouting", -100),
        "input": ("filter", "input", 0x7FFFFFF0),
        "output": ("nat", "output", -100),
        "forward": ("filter", "forward", 0),
        "postrouting": ("nat", "postrouting", 100),
        "check": ("filter", "prerouting", -300),
    }
    assert elements("bridges") == [NAMES.bridge]
    assert elements("subnets") == [{"prefix": {"addr": "172.17.0.0", "len": 16}}]
    assert elements("pairs") == [{"concat": [NAMES.bridge, NAMES.bridge]}]


def test_ports_are_elements_of_maps(engine):
    address = engine.connect("c1", (80, 8080), (53, 53, "udp", "127.0.0.1")).endpoints[0].address
    assert elements("any_ports") == [[{"concat": ["tcp", 8080]}, {"concat": [address, 80]}]]
    assert elements("ports") == [[{"concat": ["127.0.0.1", "udp", 53]}, {"concat": [address, 53]}]]
    engine.run(engine.service.disconnect("c1"))
    assert elements("any_ports") == elements("ports") == []


def test_changes_of_elements_wake_nobody_and_losses_do(engine):
    listener = Listener(NFTABLES, ignored=nftables.ORDINARY_EVENTS)
    try:
        engine.connect("c1", (80, 8080))
        engine.run(engine.service.disconnect("c1"))
        engine.connect("c2")
        assert listener.read() == []
        run(find("nft"), "flush", "chain", "ip", NAMES.table, "forward", check=True)
        events = listener.read()
        assert any(nftables.is_loss(event, NAMES.table) for event in events)
        assert not any(nftables.is_loss(event, "other") for event in events)
    finally:
        listener.close()


def test_changes_between_those_of_another_engine_restore_nothing(engine, caplog, monkeypatch):
    table, look = engine.service._base.table, engine.service._base.table._is_whole
    changes = iter(range(10))

    def look_and_be_late():
        is_whole = look()
        for number in changes:  # what another engine does meanwhile
            words = ("add" if number % 2 == 0 else "delete", "table", "ip", "berth-other")
            run(find("nft"), *words, check=True)
            break
        return is_whole

    run(find("nft"), "add", "table", "ip", "berth-before", check=True)
    monkeypatch.setattr(table, "_is_whole", look_and_be_late)
    engine.connect("c1", (80, 8080))
    assert next(changes, None) is None
    assert len(elements("any_ports")) == 1
    assert "changed by somebody else" not in caplog.text


def test_the_bridge_has_the_gateway_and_a_lasting_mac(engine):
    before = links()[NAMES.bridge]["address"]
    engine.connect("c1")
    link = links()[NAMES.bridge]
    assert link["linkinfo"]["info_kind"] == "bridge"
    assert link["address"] == before == "02:42:ac:11:00:01"
    assert "172.17.0.1/16" in run(find("ip"), "addr", "show", NAMES.bridge).out


def test_containers_get_addresses_in_turn_with_the_mac_that_belongs_to_them(engine):
    first = engine.connect("c1").endpoints[0]
    engine.run(engine.service.disconnect("c1"))
    second = engine.connect("c2").endpoints[0]
    assert (first.address, first.mac) == ("172.17.0.2", "02:42:ac:11:00:02")
    assert second.address == "172.17.0.3"
    assert (second.prefix_length, second.gateway) == (16, "172.17.0.1")


def test_spares_keep_no_address_from_who_needs_the_last(net, tmp_path):
    engine = Engine(tmp_path / "state.db", 2, plan=Plan(bip="10.7.0.1/29"))
    engine.open()
    macs = [f"02:00:00:00:00:0{number}" for number in range(5)]  # no spare has one of them
    found = {engine.connect(mac, mac=mac).endpoints[0].address for mac in macs}
    assert found == {f"10.7.0.{number}" for number in range(2, 7)}
    with pytest.raises(Failed, match="no available IPv4 addresses"):
        engine.connect("one too many")
    engine.finish()


def test_who_has_an_address_again_is_found_whoever_holds_the_former_namespace(net, engine):
    other = engine.connect("other")
    for is_held in (False, True):
        sandbox = engine.connect("c1", address="172.17.0.77")
        server = net.listen(sandbox.netns_fd, 80)
        assert net.talk(server, other.netns_fd, ("172.17.0.77", 80))
        if not is_held:
            netns_fd = os.dup(sandbox.netns_fd)
            engine.run(engine.service.disconnect("c1"))
    os.close(netns_fd)


def test_one_mac_of_two_takes_nothing_from_the_first(engine):
    interfaces = [
        engine.connect(name, mac="02:00:00:00:00:07").endpoints[0].interface for name in "ab"
    ]
    assert set(interfaces) <= set(links())


def test_a_mac_can_be_chosen(engine):
    assert engine.connect("c1", mac="02:00:00:00:00:07").endpoints[0].mac == "02:00:00:00:00:07"
    with pytest.raises(InvalidArgument, match="invalid MAC address"):
        engine.connect("c2", mac="01:00:00:00:00:07")


def test_an_address_can_be_chosen_on_a_network_of_ones_own(engine):
    engine.run(engine.service.create(NetworkRequest(name="own", subnet="10.9.0.0/24")))
    endpoint = engine.connect("c1", network="own", address="10.9.0.77").endpoints[0]
    assert (endpoint.address, endpoint.gateway) == ("10.9.0.77", "10.9.0.1")
    with pytest.raises(Forbidden, match="Address already in use"):
        engine.connect("c2", network="own", address="10.9.0.77")
    with pytest.raises(InvalidArgument, match="does not belong"):
        engine.connect("c2", network="own", address="10.8.0.77")
    with pytest.raises(InvalidArgument, match="invalid link local IP address"):
        engine.connect("c2", network="own", link_local=("10.9.0.78",))


def test_a_port_of_another_container_is_refused(engine):
    engine.connect("c1", (80, 8080))
    with pytest.raises(Failed) as refused:
        engine.connect("c2", (81, 8081), (80, 8080))
    assert refused.value.message.startswith(
        "driver failed programming external connectivity on endpoint c2 ("
    )
    assert refused.value.message.endswith(
        "): Bind for 0.0.0.0:8080 failed: port is already allocated"
    )
    assert engine.service.endpoints_of("c2") == ()
    assert engine.connect("c3", (81, 8081)).ports[0].host_port == 8081


@pytest.mark.parametrize("reuse", [0, 1])
def test_a_port_of_a_host_process_is_refused(net, engine, reuse):
    server = net.socket(net.host_fd)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
    server.bind((HOST, 8080))
    server.listen()
    with pytest.raises(Failed) as refused:
        engine.connect("c1", (80, 8080))
    address = engine.connect("c2").endpoints[0].address
    prefix, _, last = address.rpartition(".")
    previous = f"{prefix}.{int(last) - 1}"
    assert refused.value.message.endswith(
        f"): failed to bind host port for 0.0.0.0:8080:{previous}:80/tcp: address already in use"
    )


@pytest.mark.parametrize("reuse", [0, 1])
def test_a_host_process_does_not_get_a_published_port(net, engine, reuse):
    engine.connect("c1", (80, 8080), (53, 5353, "udp"))
    server = net.socket(net.host_fd)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
    with pytest.raises(OSError, match="in use"):
        server.bind(("0.0.0.0", 8080))
    server = net.socket(net.host_fd, socket.SOCK_DGRAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
    with pytest.raises(OSError, match="in use"):
        server.bind(("0.0.0.0", 5353))


def test_a_reservation_that_its_monitor_still_holds_does_not_hinder_the_next_start(engine):
    for protocol in ("tcp", "udp"):
        engine.connect("c1", (80, 8080, protocol))
        held = [os.dup(fd) for fd in engine.service.unkept("c1")]
        engine.run(engine.service.disconnect("c1"))
        assert engine.connect("c1", (80, 8080, protocol)).ports[0].host_port == 8080
        engine.run(engine.service.disconnect("c1"))
        for fd in held:
            os.close(fd)


def test_a_free_port_is_found_past_those_of_others(net, engine):
    net.listen(net.host_fd, 32768)
    ports = engine.connect("c1", (80, 0), (81, 0)).ports
    assert [port.host_port for port in ports] == [32769, 32770]


def test_host_and_none_have_no_interface_and_publish_nothing(engine):
    host = engine.connect("c1", (80, 8080), network="host")
    none = engine.connect("c2", (80, 8080), network="none")
    assert host.netns_fd is none.netns_fd is None  # that of "none" is made with the process
    assert host.ports == none.ports == ()
    assert [e.container_id for e in engine.service.endpoints(host.endpoints[0].network_id)] == [
        "c1"
    ]


def test_what_runs_keeps_its_network_over_a_crash_and_the_rest_is_released(net, engine):
    kept, _ = engine.connect("kept", (80, 8080)), engine.connect("gone", (80, 8081))
    netns_fd, held = os.dup(kept.netns_fd), [os.dup(fd) for fd in engine.service.unkept("kept")]
    engine.close()
    run(find("nft"), "delete", "table", "ip", NAMES.table, check=True)
    run(find("ip"), "link", "delete", NAMES.bridge, check=True)
    engine.open("kept")
    adopted = engine.run(engine.service.adopt(sandbox_request("kept"), kept=held))
    assert engine.service.unkept("kept") == ()  # its monitor has them
    assert adopted.endpoints == kept.endpoints
    assert engine.run(engine.service.adopt(sandbox_request("gone"))) is None
    server = net.listen(netns_fd, 80)
    assert net.talk(server, net.outside_fd, (HOST, 8080)) == OUTSIDE
    assert net.talk(server, net.host_fd, ("127.0.0.1", 8080))
    with pytest.raises(Failed, match="port is already allocated"):
        engine.connect("c2", (80, 8080))
    assert engine.connect("c3", (80, 8081)).endpoints[0].address != kept.endpoints[0].address
    engine.run(engine.service.disconnect("kept"))
    os.close(netns_fd)


def test_a_port_at_the_address_where_names_are_asked_for_survives_a_restart(net, engine):
    engine.run(engine.service.create(NetworkRequest(name="own")))
    kept = engine.connect("kept", (80, 8080, "tcp", RESOLVER), network="own")
    netns_fd, held = os.dup(kept.netns_fd), [os.dup(fd) for fd in engine.service.unkept("kept")]
    engine.close()
    engine.open("kept")
    request = sandbox_request("kept", (EndpointRequest(network="own"),))
    adopted = engine.run(
        engine.service.adopt(request, open_namespace=lambda: os.dup(netns_fd), kept=held)
    )
    assert adopted.resolves
    server = net.listen(netns_fd, 80)
    assert net.talk(server, net.host_fd, (RESOLVER, 8080))
    with pytest.raises(OSError, match="in use"):
        net.listen(net.host_fd, 8080, RESOLVER)
    engine.run(engine.service.disconnect("kept"))
    net.listen(net.host_fd, 8080, RESOLVER)
    os.close(netns_fd)


def test_networks_survive_a_restart(engine):
    made = engine.run(engine.service.create(NetworkRequest(name="own", labels={"a": "b"})))
    engine.close()
    run(find("ip"), "link", "delete", made.bridge, check=True)
    engine.open()
    assert engine.service.inspect(made.id[:6]) == made
    assert made.bridge in links()
    assert sorted(elements("bridges")) == sorted([NAMES.bridge, made.bridge])


def test_the_default_network_moves_when_the_host_uses_its_subnet(engine):
    engine.close(remove=True)
    run(find("ip"), "addr", "add", "172.17.5.1/24", "dev", "wan0", check=True)
    engine.open()
    assert engine.service.inspect("bridge").subnet == "172.18.0.0/16"
    assert elements("subnets") == [{"prefix": {"addr": "172.18.0.0", "len": 16}}]


@contextmanager
def others_choose():
    """Somebody else in this network namespace chooses a subnet."""
    fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def routed_meanwhile(engine, work):
    """Return what ``work`` gives when another network takes 172.18.0.0/16 while it waits."""

    async def other():
        with others_choose():
            task = asyncio.ensure_future(work)
            await asyncio.sleep(0.2)
            await asyncio.to_thread(
                run, find("ip"), "addr", "add", "172.18.5.1/24", "dev", "wan0", check=True
            )
        return await task

    return engine.run(other())


def test_two_engines_do_not_choose_the_same_subnet(engine):
    made = routed_meanwhile(engine, engine.service.create(NetworkRequest(name="own")))
    assert made.subnet == "172.19.0.0/16"


def test_the_default_network_waits_for_what_others_choose(engine):
    engine.close(remove=True)
    run(find("ip"), "addr", "add", "172.17.5.1/24", "dev", "wan0", check=True)
    with others_choose():
        opening = threading.Thread(target=engine.open)
        opening.start()
        time.sleep(0.2)
        run(find("ip"), "addr", "add", "172.18.5.1/24", "dev", "wan0", check=True)
    opening.join()
    assert engine.service.inspect("bridge").subnet == "172.19.0.0/16"


def test_who_never_lets_others_choose_is_passed_over(engine, monkeypatch):
    monkeypatch.setattr(choosing, "TRIES", 10)
    with others_choose():
        made = engine.run(engine.service.create(NetworkRequest(name="own")))
    assert made.subnet == "172.18.0.0/16"


def test_networks_are_made_and_removed(engine):
    made = engine.run(engine.service.create(NetworkRequest(name="own")))
    assert made.subnet == "172.18.0.0/16"
    engine.connect("c1", network="own")
    with pytest.raises(Forbidden, match="has active endpoints"):
        engine.run(engine.service.remove("own"))
    engine.run(engine.service.disconnect("c1"))
    engine.run(engine.service.remove("own"))
    assert made.bridge not in links()
    assert elements("bridges") == [NAMES.bridge]
    assert elements("subnets") == [{"prefix": {"addr": "172.17.0.0", "len": 16}}]


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        ({"name": "bridge"}, Forbidden, "predefined bridge network"),
        ({"name": "own", "subnet": "172.17.3.0/24"}, Forbidden, "Pool overlaps"),
        ({"name": "own", "subnet": "10.0.0.0/32"}, InvalidArgument, "too small"),
        (
            {"name": "own", "subnet": "10.0.0.0/24", "gateway": "10.1.0.1"},
            InvalidArgument,
            "belong",
        ),
        ({"name": "own", "driver": "overlay"}, NotFound, 'plugin "overlay" not found'),
        ({"name": " "}, InvalidArgument, "invalid name"),
        (
            {"name": "own", "options": {"com.docker.network.bridge.name": "wan0"}},
            Conflict,
            "already",
        ),
    ],
)
def test_a_network_that_cannot_be_is_refused_and_leaves_nothing(engine, options, kind, text):
    before = links().keys()
    with pytest.raises(kind, match=text):
        engine.run(engine.service.create(NetworkRequest(**options)))
    assert len(engine.service.networks()) == 3
    assert elements("bridges") == [NAMES.bridge]
    assert links().keys() == before or engine.service._base.stock._size


def test_a_cancelled_connection_leaves_nothing(engine):
    request = sandbox_request("c1", (EndpointRequest(mac="02:00:00:00:00:07"),))

    async def cancel():
        task = asyncio.ensure_future(engine.service.connect(request))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    engine.run(cancel())
    assert engine.service.endpoints_of("c1") == ()
    assert engine.connect("c1").endpoints


def test_a_cancelled_creation_leaves_nothing(engine):
    made = NetworkRequest(name="own", subnet="10.9.0.0/24")

    async def cancel(delay):
        task = asyncio.ensure_future(engine.service.create(made))
        await asyncio.sleep(delay)
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            await engine.service.remove("own")

    for number in range(30):
        engine.run(cancel(number / 3000))
    assert not [name for name in links() if name.startswith("br-")]
    assert elements("bridges") == [NAMES.bridge]
    assert engine.run(engine.service.create(made))


def test_a_network_is_removed_once(engine, caplog):
    engine.run(engine.service.create(NetworkRequest(name="own")))

    async def remove_twice():
        work = [engine.service.remove("own") for _ in range(2)]
        return await asyncio.gather(*work, return_exceptions=True)

    _, second = engine.run(remove_twice())
    assert isinstance(second, NotFound)
    assert not caplog.records


def test_fifty_containers_connect_at_once(engine):
    async def connect_all():
        names = [f"c{number}" for number in range(50)]
        work = [engine.service.connect(sandbox_request(name)) for name in names]
        found = await asyncio.gather(*work)
        for name in names:
            await engine.service.disconnect(name)
        return found

    sandboxes = engine.run(connect_all())
    assert len({sandbox.endpoints[0].address for sandbox in sandboxes}) == 50


def test_an_engine_that_leaves_for_good_leaves_nothing(engine):
    engine.run(engine.service.create(NetworkRequest(name="own")))
    engine.close(remove=True)
    assert run(find("nft"), "list", "ruleset", check=True).out == ""
    assert [
        link for link in links().values() if link.get("linkinfo", {}).get("info_kind") == "bridge"
    ] == []
    assert not [name for name in links() if name.startswith("bd")]


def test_a_container_connects_once(engine):
    engine.connect("c1")
    with pytest.raises(BerthError, match="connected already"):
        engine.connect("c1")


def test_a_pair_that_nobody_knows_is_removed_when_the_engine_opens(engine):
    kept = engine.connect("kept")
    netns_fd = os.dup(kept.netns_fd)
    engine.close()
    stray = f"bv{NAMES.name[:6]}stray"
    run(find("ip"), "link", "add", stray, "type", "veth", "peer", "name", "other0", check=True)
    engine.open("kept")
    assert stray not in links()
    assert kept.endpoints[0].interface in links()
    os.close(netns_fd)


def test_an_endpoint_whose_pair_is_gone_is_forgotten(engine):
    kept = engine.connect("kept", (80, 8080))
    netns_fd = os.dup(kept.netns_fd)
    engine.close()
    run(find("ip"), "link", "delete", kept.endpoints[0].interface, check=True)
    engine.open("kept")
    adopt(engine, "kept", netns_fd, "bridge")
    assert engine.service.endpoints_of("kept") == ()
    assert elements("any_ports") == []
    engine.run(engine.service.disconnect("kept"))
    os.close(netns_fd)


def adopt(engine, container, netns_fd, *networks, kept=()):
    """What an engine does that finds a running container."""
    asked = tuple(EndpointRequest(network=network) for network in networks)
    request = sandbox_request(container, asked)
    work = engine.service.adopt(request, open_namespace=lambda: os.dup(netns_fd), kept=kept)
    return engine.run(work)


def test_a_disconnection_that_was_broken_off_is_ended_with_route_and_ports(net, engine):
    for name in ("one", "two"):
        engine.run(engine.service.create(NetworkRequest(name=name)))
    kept = engine.connect("kept", (80, 8080), networks=["one", "two"])
    netns_fd, held = os.dup(kept.netns_fd), [os.dup(fd) for fd in engine.service.unkept("kept")]
    led = next(endpoint for endpoint in kept.endpoints if endpoint.ports)
    engine.close()
    run(find("ip"), "link", "delete", led.interface, check=True)
    engine.open("kept")
    (left,) = adopt(engine, "kept", netns_fd, "one", "two", kept=held).endpoints
    assert [port.host_port for port in left.ports] == [8080]
    server, world = net.listen(netns_fd, 80), net.listen(net.outside_fd, 9000)
    assert net.talk(server, net.outside_fd, (HOST, 8080)) == OUTSIDE
    assert net.talk(world, netns_fd, (OUTSIDE, 9000)) == HOST
    assert engine.run(engine.service.detach("kept", led.network_name)) is None
    engine.run(engine.service.disconnect("kept"))
    os.close(netns_fd)


def test_ports_that_were_closed_when_berthd_was_killed_are_opened_again(net, engine):
    kept = engine.connect("kept", (80, 8080))
    netns_fd, held = os.dup(kept.netns_fd), [os.dup(fd) for fd in engine.service.unkept("kept")]
    engine.service._sandboxes._put(msgspec.structs.replace(kept.endpoints[0], ports=()))
    engine.close()
    engine.open("kept")
    request = sandbox_request("kept", ports=(PortRequest(container_port=80, host_port=8080),))
    adopted = engine.run(
        engine.service.adopt(request, open_namespace=lambda: os.dup(netns_fd), kept=held)
    )
    assert [port.host_port for port in adopted.ports] == [8080]
    assert engine.service.has_released("kept")
    assert len(engine.service.unkept("kept")) == 1
    assert not engine.service.has_released("kept")
    assert net.talk(net.listen(netns_fd, 80), net.outside_fd, (HOST, 8080)) == OUTSIDE
    engine.run(engine.service.disconnect("kept"))
    os.close(netns_fd)


def test_a_pair_that_nobody_knows_leaves_a_container_that_was_in_no_network(engine):
    kept = engine.connect("kept")
    netns_fd = os.dup(kept.netns_fd)
    engine.run(engine.service.detach("kept", "bridge"))
    base, default = engine.service._base, engine.service.inspect("bridge")
    place = engine.service._attachments.choose(
        EndpointRequest(), default, device="eth0", container_id="kept"
    )
    plug = partial(engine.service._attachments.plug, netns_fd, place)
    stray = engine.run(base.thread.run(plug))
    engine.close()
    engine.open("kept")
    assert stray not in links()
    os.close(netns_fd)
