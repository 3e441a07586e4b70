"""Questions read and answered, and bytes that are none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.network import dns
from berth.network.names import Directory
from berth.network.records import EndpointRecord

HEAD = b"\x12\x34\x01\0\0\1\0\0\0\0\0\0"
NAME = b"\x02DB\x03own\0"
A_QUESTION = HEAD + NAME + b"\0\1\0\1"


def test_a_question_is_read_without_regard_to_case():
    question = dns.parse(A_QUESTION)
    assert (question.id, question.name, question.kind) == (0x1234, "db.own", dns.A)
    assert question.is_internet


def test_an_answer_repeats_the_question_and_points_to_its_name():
    found = dns.answer(dns.parse(A_QUESTION), addresses=[bytes((10, 0, 0, 2))])
    assert found == (
        b"\x12\x34\x81\x80\0\1\0\1\0\0\0\0"
        + NAME
        + b"\0\1\0\1"
        + b"\xc0\x0c\0\1\0\1\0\0\x02\x58\0\4\x0a\0\0\2"
    )


def test_an_address_is_answered_with_a_name():
    asked = HEAD + dns.encode_name("2.0.0.10.in-addr.arpa") + b"\0\x0c\0\1"
    question = dns.parse(asked)
    assert dns.reversed_address(question.name) == bytes((10, 0, 0, 2))
    assert dns.answer(question, name="db.own").endswith(b"\0\x08\x02db\x03own\0")


def test_an_answer_is_cut_to_the_room_there_is():
    many = [bytes((10, 0, i, j)) for i in range(10) for j in range(100)]
    plain = dns.parse(A_QUESTION)

    def answered(question, **options):
        found = dns.answer(question, addresses=many, **options)
        return len(found), bool(found[2] & 2), int.from_bytes(found[6:8], "big")

    size, is_cut, count = answered(plain)
    assert (size <= 512 < size + 16, is_cut, count) == (True, True, 30)
    assert answered(plain, stream=True)[1:] == (False, 1000)
    rooms = {100: 512, 1232: 1232, 65535: 4096}
    for asked, room in rooms.items():
        edns = b"\0\0\x29" + asked.to_bytes(2, "big") + b"\0\0\0\0\0\0"
        size, is_cut, _ = answered(dns.parse(HEAD[:10] + b"\0\1" + A_QUESTION[12:] + edns))
        assert (size <= room < size + 16, is_cut) == (True, True), asked


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", None),
        (HEAD[:11], None),
        (b"\x12\x34\x81\0" + A_QUESTION[4:], None),  # an answer
        (b"\x12\x34\x28\0" + A_QUESTION[4:], dns.NOT_IMPLEMENTED),
        (HEAD[:4] + b"\0\2" + A_QUESTION[6:], dns.FORMAT_ERROR),
        (HEAD + b"\xc0\x0c\0\1\0\1", dns.FORMAT_ERROR),  # a pointer to itself
        (HEAD + b"\x3fshort", dns.FORMAT_ERROR),
        (HEAD + b"\x02db\0\0", dns.FORMAT_ERROR),
        (HEAD + b"\x3f" + b"a" * 63 + (b"\x3f" + b"a" * 63) * 4 + b"\0\0\1\0\1", dns.FORMAT_ERROR),
    ],
)
def test_what_is_no_question_is_refused_or_met_with_silence(data, code):
    with pytest.raises(dns.Malformed) as refused:
        dns.parse(data)
    assert refused.value.code == code


@given(st.binary(max_size=600))
def test_garbage_is_answered_or_refused_and_nothing_else(data):
    try:
        question = dns.parse(data)
    except dns.Malformed as error:
        assert error.code is None or len(dns.refusal(data, error.code)) == 12
        return
    assert dns.answer(question)[12:].startswith(question.raw)


@given(st.binary(max_size=100))
def test_only_an_answer_to_what_was_asked_is_taken(data):
    assert not dns.is_answer_to(data, dns.parse(A_QUESTION), 0x1234) or data[
        12:
    ].lower().startswith(A_QUESTION[12:].lower()[: len(data) - 12])


def test_an_answer_with_another_id_or_question_is_not_taken():
    question = dns.parse(A_QUESTION)
    found = dns.answer(question)
    assert dns.is_answer_to(found, question, 0x1234)
    assert not dns.is_answer_to(found, question, 0x1235)
    assert not dns.is_answer_to(found.replace(b"own", b"owm"), question, 0x1234)


def endpoint(name, address, *, aliases=(), links=()):
    return EndpointRecord(
        id=name,
        container_id=name * 20,
        container_name=name,
        network_id="n",
        network_name="own",
        address=address,
        aliases=aliases,
        links=links,
    )


def test_links_are_names_for_one_asker_alone():
    linked = endpoint("client", "10.0.0.3", links=("server:db",))
    server = endpoint("server", "10.0.0.2", aliases=("web",))
    directory = Directory([linked, server])
    assert directory.addresses("db", linked) == [bytes((10, 0, 0, 2))]
    assert directory.addresses("db", server) == []
    assert directory.addresses("web.own", server) == [bytes((10, 0, 0, 2))]
    assert directory.name(bytes((10, 0, 0, 2))) == "server.own"
