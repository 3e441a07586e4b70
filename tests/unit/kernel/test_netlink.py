import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from berth.kernel import netlink
from berth.kernel.netlink import Message, attribute, decode, nested, refusal, text

# An acknowledgement with CAP_ACK and EXT_ACK, as the kernel sends it: EEXIST, "File exists" in words.
REFUSED = bytes.fromhex("ef ff ff ff 54000000 1000 0506 2a000000 00000000") + attribute(1, b"why\0")


@given(st.integers(0, 0x3FFF), st.binary(max_size=70))
def test_attributes_are_read_as_written(kind, payload):
    encoded = attribute(kind, payload)
    assert len(encoded) % 4 == 0
    assert netlink.attributes(encoded) == {kind: payload}


@given(st.binary(max_size=200))
def test_garbage_is_refused_or_read_but_never_overruns(data):
    for read in (decode, netlink.attributes):
        try:
            found = read(data)
        except ValueError as error:
            assert str(error)
        else:
            assert len(found) * 4 <= len(data)


def test_messages_are_split_and_keep_their_order():
    first, second = Message(16, b"one", flags=1), Message(17, b"second")
    found = decode(first.encode(1) + second.encode(2))
    assert [(m.kind, m.sequence, m.body) for m in found] == [(16, 1, b"one"), (17, 2, b"second")]


def test_a_truncated_message_is_refused():
    with pytest.raises(ValueError, match="impossible length"):
        decode(Message(16, b"body").encode(1)[:-4])


def test_nested_attributes_are_read_by_another_codec():
    body = bytes(16) + text(3, "eth0") + nested(18, text(1, "bridge"))
    other = ifinfmsg(Message(16, body).encode(7))
    other.decode()
    assert other["header"]["sequence_number"] == 7
    assert other.get_attr("IFLA_IFNAME") == "eth0"
    assert other.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") == "bridge"


def test_a_refusal_carries_the_call_the_cause_and_the_kernels_words():
    error = refusal(Message(2, REFUSED, flags=0x300), "create link")
    assert isinstance(error, FileExistsError)
    assert error.errno == errno.EEXIST
    assert error.strerror == "create link: File exists (why)"


def test_an_acknowledgement_is_no_refusal():
    assert refusal(Message(2, bytes(20), flags=0x100), "create link") is None


class Scripted:
    """A kernel whose table is changed while it is read, as often as said."""

    def __init__(self, changes):
        self._changes = changes
        self._next = []
        self.asked = 0

    def sendto(self, data, address):
        del data, address
        self.asked += 1
        is_spoilt = self.asked <= self._changes
        flags = 0x12 if is_spoilt else 0x2  # NLM_F_MULTI, NLM_F_DUMP_INTR
        entries = [b"one"] if is_spoilt else [b"one", b"two"]
        for entry in entries:
            self._next.append(Message(16, entry, flags=flags).encode(1))
        self._next.append(Message(netlink.NLMSG_DONE, bytes(4), flags=2).encode(1))

    def recvfrom(self, size, flags):
        del size, flags
        return self._next.pop(0), (0, 0)


@pytest.fixture
def dumped(monkeypatch):
    def dump(changes):
        kernel = Scripted(changes)
        with netlink.NetlinkSocket(netlink.NETLINK_ROUTE) as sock:
            monkeypatch.setattr(sock, "_socket", kernel)
            entries = [m.body for m in sock.dump(Message(18, b""), "list links")]
            monkeypatch.undo()
        return entries, kernel.asked

    return dump


def test_a_table_that_changes_while_it_is_read_is_read_again(dumped):
    assert dumped(0) == ([b"one", b"two"], 1)
    assert dumped(2) == ([b"one", b"two"], 3)


def test_a_table_that_changes_all_the_time_is_given_as_it_was_read_at_last(dumped):
    entries, asked = dumped(1000)
    assert entries == [b"one"]
    assert asked < 100
