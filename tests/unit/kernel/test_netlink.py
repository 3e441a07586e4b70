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
