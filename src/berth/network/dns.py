"""The part of DNS (RFC 1035) that answers for containers: one question in, one answer out. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

A, PTR, AAAA = 1, 12, 28
NO_ERROR, FORMAT_ERROR, SERVER_FAILURE, NAME_ERROR, NOT_IMPLEMENTED, REFUSED = range(6)
TTL_S = 600
REVERSE, REVERSE6 = ".in-addr.arpa", ".ip6.arpa"
MAX_NAME_BYTES = 255
DATAGRAM_BYTES = 512  # an answer's, unless who asks has room for more (EDNS, RFC 6891)
MAX_DATAGRAM_BYTES = 4096
MAX_BYTES = 65_535

_HEADER = Struct(">HHHHHH")  # id, flags, questions, answers, authorities, additionals
_QUESTION_END = Struct(">HH")  # type, class
_ANSWER = Struct(">HHHIH")  # pointer to the name, type, class, TTL, length of data
_EDNS = Struct(">BHH")  # the root's name, type, room for an answer; more follows
_EDNS_TYPE = 41
_RESPONSE, _RECURSION_WANTED, _RECURSION_AVAILABLE = 0x8000, 0x0100, 0x0080
_CUT = 0x0200
_OPCODE = 0x7800
_INTERNET = 1
_NAME_POINTER = 0xC000 | _HEADER.size


class Malformed(ValueError):
    """Bytes that are no question. ``code`` is the answer to them, None for no answer at all."""

    def __init__(self, code: int | None = None) -> None:
        super().__init__("malformed DNS message")
        self.code = code


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: a name in lower case without the last dot, and a type of records."""

    id: int
    flags: int
    name: str
    kind: int
    is_internet: bool
    raw: bytes  # as it came, to be repeated in the answer
    room: int  # bytes of an answer by datagram


def parse(data: bytes) -> Question:
    """Read a question; `Malformed` for what is none."""
    if len(data) < _HEADER.size:
        raise Malformed
    id_, flags, questions, _, _, _ = _HEADER.unpack_from(data)
    if flags & _RESPONSE:
        raise Malformed
    if flags & _OPCODE:
        raise Malformed(NOT_IMPLEMENTED)
    if questions != 1:
        raise Malformed(FORMAT_ERROR)
    name, offset = _name(data, _HEADER.size)
    if len(data) < offset + _QUESTION_END.size:
        raise Malformed(FORMAT_ERROR)
    kind, class_ = _QUESTION_END.unpack_from(data, offset)
    end = offset + _QUESTION_END.size
    raw = data[_HEADER.size : end]
    return Question(id_, flags, name.lower(), kind, class_ == _INTERNET, raw, _room(data, end))


def _room(data: bytes, offset: int) -> int:
    """Read what follows the question of who takes more than small datagrams."""
    if len(data) < offset + _EDNS.size:
        return DATAGRAM_BYTES
    root, kind, room = _EDNS.unpack_from(data, offset)
    if root or kind != _EDNS_TYPE:
        return DATAGRAM_BYTES
    return int(min(max(room, DATAGRAM_BYTES), MAX_DATAGRAM_BYTES))


def _name(data: bytes, offset: int) -> tuple[str, int]:
    """Read a name that is not compressed, as those of questions are."""
    labels: list[str] = []
    start = offset
    while True:
        if offset >= len(data):
            raise Malformed(FORMAT_ERROR)
        length = data[offset]
        offset += 1
        if length == 0:
            return ".".join(labels), offset
        if length > 63 or offset + length > len(data) or offset + length - start > MAX_NAME_BYTES:
            raise Malformed(FORMAT_ERROR)
        labels.append(data[offset : offset + length].decode("latin-1"))
        offset += length


def refusal(data: bytes, code: int) -> bytes:
    """Return an answer to bytes whose question cannot be repeated."""
    id_, flags = int.from_bytes(data[:2], "big"), int.from_bytes(data[2:4], "big")
    return _HEADER.pack(id_, _answer_flags(flags, code), 0, 0, 0, 0)


def answer(
    question: Question,
    *,
    code: int = NO_ERROR,
    addresses: Iterable[bytes] = (),
    name: str = "",
    stream: bool = False,
) -> bytes:
    """Return an answer with these packed addresses, or for a PTR this ``name``.

    What a datagram has no room for is left out, and the answer says so: who wants all asks by a ``stream``.
    """
    pairs = [(A if len(packed) == 4 else AAAA, packed) for packed in addresses]
    if name:
        pairs.append((PTR, encode_name(name)))
    room = (MAX_BYTES if stream else question.room) - _HEADER.size - len(question.raw)
    records: list[bytes] = []
    for kind, data in pairs:
        record = _ANSWER.pack(_NAME_POINTER, kind, _INTERNET, TTL_S, len(data)) + data
        room -= len(record)
        if room < 0:
            break
        records.append(record)
    flags = _answer_flags(question.flags, code) | (_CUT if room < 0 else 0)
    head = _HEADER.pack(question.id, flags, 1, len(records), 0, 0)
    return head + question.raw + b"".join(records)


def _answer_flags(flags: int, code: int) -> int:
    return _RESPONSE | flags & (_OPCODE | _RECURSION_WANTED) | _RECURSION_AVAILABLE | code


def encode_name(name: str) -> bytes:
    """Encode a name; labels are cut to the length that is allowed."""
    labels = [label.encode("latin-1", "replace")[:63] for label in name.split(".") if label]
    return b"".join(bytes((len(label),)) + label for label in labels) + b"\0"


def with_id(data: bytes, id_: int) -> bytes:
    """Return a message under another id."""
    return id_.to_bytes(2, "big") + data[2:]


def is_answer_to(data: bytes, question: Question, id_: int) -> bool:
    """Say whether a server's message answers the question that was asked under ``id_``."""
    if len(data) < _HEADER.size:
        return False
    found_id, flags, questions, _, _, _ = _HEADER.unpack_from(data)
    repeated = data[_HEADER.size : _HEADER.size + len(question.raw)]
    return (
        found_id == id_
        and bool(flags & _RESPONSE)
        and (questions == 0 or repeated.lower() == question.raw.lower())
    )


def reversed_address(name: str) -> bytes | None:
    """Return the packed address that a name below in-addr.arpa or ip6.arpa stands for."""
    if name.endswith(REVERSE6):
        digits = name.removesuffix(REVERSE6).split(".")
        if len(digits) != 32 or not all(len(d) == 1 and d in "0123456789abcdef" for d in digits):
            return None
        return bytes.fromhex("".join(reversed(digits)))
    parts = name.removesuffix(REVERSE).split(".")
    if not name.endswith(REVERSE) or len(parts) != 4:
        return None
    if not all(part.isdecimal() and part.isascii() and int(part) < 256 for part in parts):
        return None
    return bytes(int(part) for part in reversed(parts))
