import socket

import pytest

from berth.errors import Failed, InvalidArgument
from berth.network.ports import Inside, PortRegistry, Reservation
from berth.network.records import PortRecord, PortRequest

TARGET = {"endpoint": "c1 (e1)", "inside": {4: Inside("172.17.0.2")}}
LOOPBACK = "127.0.0.1"


@pytest.fixture
def registry():
    registry, reservations = PortRegistry(), []
    reserve = registry.reserve

    def reserve_and_remember(*requests):
        reservation = reserve(requests, **TARGET)
        reservations.append(reservation)
        return reservation

    yield registry, reserve_and_remember
    for reservation in reservations:
        for sock in reservation.sockets:
            sock.close()


def free_port():
    with socket.socket() as sock:
        sock.bind((LOOPBACK, 0))
        return sock.getsockname()[1]


def test_one_port_of_a_request_that_is_taken_releases_the_others(registry):
    registry, reserve = registry
    first, second = free_port(), free_port()
    taken = PortRequest(container_port=80, host_ip=LOOPBACK, host_port=second)
    other = PortRequest(container_port=80, host_ip=LOOPBACK, host_port=first)
    reserve(taken)
    with pytest.raises(Failed, match="port is already allocated"):
        reserve(other, taken)
    assert [r.host_port for r in reserve(other).records] == [first]


def test_the_same_port_of_two_protocols_or_addresses_is_no_conflict(registry):
    _, reserve = registry
    port = free_port()
    for protocol, address in (("tcp", LOOPBACK), ("udp", LOOPBACK), ("tcp", "127.0.0.2")):
        request = PortRequest(container_port=80, host_port=port, protocol=protocol, host_ip=address)
        assert reserve(request).records[0].protocol == protocol
    with pytest.raises(Failed, match="already allocated"):
        reserve(PortRequest(container_port=80, host_port=port))


def test_an_address_that_the_host_does_not_have_is_refused(registry):
    _, reserve = registry
    with pytest.raises(Failed, match="cannot assign requested address"):
        reserve(PortRequest(container_port=80, host_port=8080, host_ip="203.0.113.9"))


def test_an_unknown_protocol_is_refused(registry):
    _, reserve = registry
    with pytest.raises(InvalidArgument, match="invalid proto: icmp"):
        reserve(PortRequest(container_port=80, protocol="icmp"))


def test_ports_of_a_running_container_are_taken_until_forgotten(registry):
    registry, reserve = registry
    port = free_port()
    record = PortRecord(protocol="tcp", container_port=80, host_ip=LOOPBACK, host_port=port)
    request = PortRequest(container_port=80, host_ip=LOOPBACK, host_port=port)
    registry.restore([record], owner="c1")
    with pytest.raises(Failed, match="port is already allocated"):
        reserve(request)
    registry.forget([record])
    assert reserve(request).records == [record]


def test_releasing_nothing_changes_nothing(registry):
    registry, _ = registry
    registry.release(Reservation())
    assert not registry._taken


def test_a_refusal_names_the_owner(registry):
    registry, reserve = registry
    request = PortRequest(container_port=80, host_ip=LOOPBACK, host_port=free_port())
    reserve(request)
    with pytest.raises(Failed) as refused:
        reserve(request)
    assert refused.value.hint == "c1 publishes it"
