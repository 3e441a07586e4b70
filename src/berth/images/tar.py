"""Reading tar streams: headers into members, nothing on disk.

ustar, GNU (long names, base-256 numbers, old sparse files), pax (paths, times in nanoseconds, extended
attributes as star, GNU tar and libarchive write them, sparse files 0.1 and 1.0) and star's variant.
Formats: POSIX.1-2024 pax(1); GNU tar manual, "Tar Internals". Everything in a stream is hostile.
"""

from __future__ import annotations

import os
from base64 import b64decode
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote

from berth.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK = 512
ZERO_BLOCK = bytes(BLOCK)
PIECE_BYTES = 1 << 20
MAX_EXTENSION_BYTES = 1 << 20  # pax records and long names, as Go's archive/tar bounds them
MAX_SPARSE_REGIONS = 100_000
MAX_ID = (1 << 32) - 2
MAX_DEVICE = (1 << 31) - 1  # major or minor
MAX_SECONDS = 1 << 40
MAX_SIZE = (1 << 63) - 1

REGULAR, LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = "0", "1", "2", "3", "4", "5", "6"
_REGULAR_FLAGS = (b"0", b"\0", b"7")
_SPARSE, _LONG_NAME, _LONG_LINK, _PAX, _PAX_SOLARIS, _PAX_GLOBAL = (
    b"S",
    b"L",
    b"K",
    b"x",
    b"X",
    b"g",
)
_WITHOUT_DATA = (LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO)
_KNOWN = frozenset(b"0\x001234567S")

SCHILY_XATTR = "SCHILY.xattr."
LIBARCHIVE_XATTR = "LIBARCHIVE.xattr."

Region = tuple[int, int]  # offset in the file, bytes there


class Stream(Protocol):
    """What is read from."""

    def read(self, size: int) -> bytes:
        """Return ``size`` bytes, fewer at the end."""

    def pieces(self, size: int) -> Iterator[memoryview]:
        """Yield ``size`` bytes as they came, fewer at the end."""

    def skip(self, size: int) -> int:
        """Pass over ``size`` bytes; return how many there were."""


class Member:
    """One entry. ``size`` counts its bytes in the stream, ``real_size`` those of the file."""

    __slots__ = (
        "gid",
        "kind",
        "linkname",
        "major",
        "minor",
        "mode",
        "mtime_ns",
        "name",
        "real_size",
        "regions",
        "size",
        "uid",
        "xattrs",
    )

    def __init__(self, header: bytes) -> None:
        flag = header[156:157]
        self.kind = REGULAR if flag in _REGULAR_FLAGS else flag.decode("latin-1")
        self.mode = number(header[100:108]) & 0o7777
        self.uid = number(header[108:116])
        self.gid = number(header[116:124])
        self.size = number(header[124:136])
        self.mtime_ns = _time_ns(number(header[136:148]), 0)
        self.name = _text(header[:100])
        self.linkname = _text(header[157:257])
        self.major = self.minor = 0
        self.xattrs: dict[str, bytes] | None = None
        self.regions: list[Region] | None = None
        self.real_size = self.size
        if flag in b"34" and flag:
            self.major = number(header[329:337])
            self.minor = number(header[337:345])
        if header[257:263] == b"ustar\0":
            star = header[508:512] == b"tar\0"
            prefix = _text(header[345:476] if star else header[345:500])
            if prefix:
                self.name = f"{prefix}/{self.name}"


def bad_header(why: str = "") -> InvalidArgument:
    """Return the error for a damaged archive, in the words Docker's users know."""
    return InvalidArgument("archive/tar: invalid tar header" + (f": {why}" if why else ""))


def cut_off() -> InvalidArgument:
    """Return the error for an archive that ends too soon."""
    return InvalidArgument("unexpected EOF")


def number(field: bytes) -> int:
    """Read a numeric field: octal digits, or base-256 when the top bit is set."""
    first = field[0]
    if first & 0x80:
        value = int.from_bytes(field, "big") & ((1 << (len(field) * 8 - 1)) - 1)
        if first & 0x40:
            value -= 1 << (len(field) * 8 - 1)
        return value
    digits = field.partition(b"\0")[0].strip(b" ")
    if not digits:
        return 0
    try:
        if digits.isdigit():
            return int(digits, 8)
    except ValueError:
        pass
    raise bad_header("a number is not octal")


def _text(field: bytes) -> str:
    return os.fsdecode(field.partition(b"\0")[0])


def _time_ns(seconds: int, nanoseconds: int) -> int:
    """Return a time, the epoch when it is out of all bounds."""
    if not -MAX_SECONDS < seconds < MAX_SECONDS:
        return 0
    return seconds * 1_000_000_000 + nanoseconds


def _pax_time_ns(text: str) -> int:
    """Read a decimal time. Negative ones count down from the second below, as GNU tar does."""
    sign = -1 if text.startswith("-") else 1
    whole, _, fraction = text.removeprefix("-").partition(".")
    if not (whole + fraction).isdecimal() or not (whole + fraction).isascii():
        raise bad_header("a time is not decimal")
    if len(whole) > len(str(MAX_SECONDS)):
        return 0
    return sign * _time_ns(int(whole or "0"), int((fraction + "000000000")[:9]))


def check_sum(header: bytes) -> None:
    """Raise unless the header's checksum is right, with unsigned or (old tars) signed bytes."""
    recorded = number(header[148:156])
    plain = header[:148] + header[156:]
    unsigned = sum(plain) + 8 * 32
    if recorded != unsigned:
        negative = sum(byte > 127 for byte in plain)
        if recorded != unsigned - 256 * negative:
            raise bad_header()


class TarReader:
    """Iterates over a stream's members. A member's data is read before the next one, or passed over."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._left = 0  # of the current member's data
        self._padding = 0

    def __iter__(self) -> Iterator[Member]:
        while (member := self._next()) is not None:
            yield member

    def read_data(self, size: int) -> bytes:
        """Return ``size`` bytes of the current member's data."""
        assert size <= self._left
        data = self._stream.read(size)
        if len(data) != size:
            raise cut_off()
        self._left -= size
        return data

    def pieces(self, size: int) -> Iterator[memoryview]:
        """Yield ``size`` bytes of the current member's data, as they came."""
        assert size <= self._left
        for data in self._stream.pieces(size):
            size -= len(data)
            self._left -= len(data)
            yield data
        if size:
            raise cut_off()

    def _next(self) -> Member | None:
        """Read headers up to that of the next member; None at the end."""
        pax: dict[str, bytes] = {}
        name = link = None
        while True:
            header = self._header()
            if header is None:
                return None
            flag = header[156:157]
            if flag in (_PAX, _PAX_SOLARIS):
                pax = pax_records(self._extension(header))
            elif flag == _PAX_GLOBAL:
                self._extension(header)  # as in Docker, its defaults do not count
            elif flag == _LONG_NAME:
                name = _text(self._extension(header))
            elif flag == _LONG_LINK:
                link = _text(self._extension(header))
            else:
                return self._member(header, name, link, pax)

    def _header(self) -> bytes | None:
        if self._left and self._stream.skip(self._left) != self._left:
            raise cut_off()
        self._stream.skip(
            self._padding
        )  # which the last member may lack: Go's writers leave it out
        self._left = self._padding = 0
        header = self._stream.read(BLOCK)
        if not header or header == ZERO_BLOCK:
            return None
        if len(header) < BLOCK:
            raise cut_off()
        check_sum(header)
        return header

    def _extension(self, header: bytes) -> bytes:
        size = number(header[124:136])
        if not 0 <= size <= MAX_EXTENSION_BYTES:
            raise bad_header(f"an extended header of {size} bytes")
        self._begin_data(size)
        return self.read_data(size)

    def _begin_data(self, size: int) -> None:
        self._left = size
        self._padding = -size % BLOCK

    def _member(
        self, header: bytes, name: str | None, link: str | None, pax: dict[str, bytes]
    ) -> Member:
        if header[156] not in _KNOWN:
            raise bad_header(f"unknown type {header[156:157]!r}")
        member = Member(header)
        member.name = name or member.name
        member.linkname = link or member.linkname
        if pax:
            apply_pax(member, pax)
        if member.kind == REGULAR and member.name.endswith("/"):
            member.kind = DIRECTORY  # so wrote tars before ustar
        if member.kind in _WITHOUT_DATA:
            member.size = member.real_size = 0
        check_member(member)
        self._begin_data(member.size)
        if header[156:157] == _SPARSE:
            self._old_sparse(member, header)
        elif pax and any(key.startswith("GNU.sparse.") for key in pax):
            self._pax_sparse(member, pax)
        return member

    def _old_sparse(self, member: Member, header: bytes) -> None:
        """Read GNU tar's map: four regions in the header, 21 in each extension block."""
        member.kind = REGULAR
        fields, more = header[386:482], header[482]
        regions = _regions(fields)
        while more:
            block = self._stream.read(BLOCK)
            if len(block) < BLOCK:
                raise cut_off()
            regions += _regions(block[:504])
            more = block[504]
            if len(regions) > MAX_SPARSE_REGIONS:
                raise bad_header("too many sparse regions")
        self._set_regions(member, regions, number(header[483:495]))

    def _pax_sparse(self, member: Member, pax: dict[str, bytes]) -> None:
        """Read the map of pax sparse 1.0, which leads the data, or of 0.1, which is a record."""
        real = pax.get("GNU.sparse.realsize") or pax.get("GNU.sparse.size") or b"0"
        if pax.get("GNU.sparse.major") == b"1" and pax.get("GNU.sparse.minor") == b"0":
            numbers = self._leading_map()
        elif "GNU.sparse.map" in pax:
            numbers = [_decimal(text) for text in pax["GNU.sparse.map"].split(b",") if text]
        else:
            raise bad_header("this kind of sparse file is not supported")
        regions = list(zip(numbers[::2], numbers[1::2], strict=False))
        self._set_regions(member, regions, _decimal(real))

    def _leading_map(self) -> list[int]:
        """Read newline-terminated decimals from the data: a count, then pairs, padded to a block."""
        text = b""
        wanted = 1
        lines: list[bytes] = []
        while len(lines) < wanted:
            if self._left < BLOCK or len(text) > MAX_EXTENSION_BYTES:
                raise bad_header("a sparse map is damaged")
            text += self.read_data(BLOCK)
            lines = text.split(b"\n")[:-1]
            if lines:
                wanted = 1 + 2 * _decimal(lines[0])
            if wanted > 2 * MAX_SPARSE_REGIONS:
                raise bad_header("too many sparse regions")
        return [_decimal(line) for line in lines[1:wanted]]

    def _set_regions(self, member: Member, regions: list[Region], real_size: int) -> None:
        """Give a member its map, checked: in order, within the file, as long as the data."""
        end = 0
        for offset, size in regions:
            if offset < end or size < 0:
                raise bad_header("a sparse map is out of order")
            end = offset + size
        if not end <= real_size <= MAX_SIZE or sum(size for _, size in regions) != self._left:
            raise bad_header("a sparse map does not fit its file")
        member.regions = regions
        member.real_size = real_size


def check_member(member: Member) -> None:
    """Raise when a member has values that no file can have."""
    if not 0 <= member.size <= MAX_SIZE or "\0" in member.name or "\0" in member.linkname:
        raise bad_header()
    if not (0 <= member.uid <= MAX_ID and 0 <= member.gid <= MAX_ID):
        raise bad_header(f"owner {member.uid}:{member.gid}")
    if not (0 <= member.major <= MAX_DEVICE and 0 <= member.minor <= MAX_DEVICE):
        raise bad_header(f"device {member.major}:{member.minor}")


def _regions(fields: bytes) -> list[Region]:
    regions = []
    for start in range(0, len(fields), 24):
        if fields[start] == 0:
            break
        regions.append(
            (number(fields[start : start + 12]), number(fields[start + 12 : start + 24]))
        )
    return regions


def _decimal(text: bytes) -> int:
    if not text.isdigit() or len(text) > 20:
        raise bad_header("a number is not decimal")
    return int(text)


def pax_records(data: bytes) -> dict[str, bytes]:
    """Read ``length key=value newline`` records; the last of a key counts."""
    records: dict[str, bytes] = {}
    offset = 0
    while offset < len(data):
        space = data.find(b" ", offset, offset + 21)
        size = _decimal(data[offset:space]) if space > 0 else 0
        record = data[space + 1 : offset + size - 1]
        key, equals, value = record.partition(b"=")
        if not equals or data[offset + size - 1 : offset + size] != b"\n" or not key:
            raise bad_header("a pax record is damaged")
        records[os.fsdecode(key)] = value
        offset += size
    return records


def apply_pax(member: Member, pax: dict[str, bytes]) -> None:
    """Let pax records override what the header said."""
    if name := pax.get("GNU.sparse.name") or pax.get("path"):
        member.name = os.fsdecode(name)
    if link := pax.get("linkpath"):
        member.linkname = os.fsdecode(link)
    if mtime := pax.get("mtime"):
        member.mtime_ns = _pax_time_ns(os.fsdecode(mtime))
    if uid := pax.get("uid"):
        member.uid = _decimal(uid)
    if gid := pax.get("gid"):
        member.gid = _decimal(gid)
    if size := pax.get("size"):
        member.size = member.real_size = _decimal(size)
    for key, value in pax.items():
        if key.startswith((SCHILY_XATTR, LIBARCHIVE_XATTR)):
            _add_xattr(member, key, value)


def _add_xattr(member: Member, key: str, value: bytes) -> None:
    """Note an extended attribute; star's plain form counts more than libarchive's encoded one."""
    if member.xattrs is None:
        member.xattrs = {}
    is_plain = key.startswith(SCHILY_XATTR)
    name = key.removeprefix(SCHILY_XATTR) if is_plain else unquote(key[len(LIBARCHIVE_XATTR) :])
    if "\0" in name:
        raise bad_header("an extended attribute is damaged")
    if is_plain:
        member.xattrs[name] = value
        return
    try:
        member.xattrs.setdefault(name, b64decode(value + b"=" * (-len(value) % 4)))
    except ValueError:
        raise bad_header("an extended attribute is damaged") from None
