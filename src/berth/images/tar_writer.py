"""Writing tar streams: ustar headers, and pax records for what does not fit them (POSIX.1-2024, pax(1))."""

from __future__ import annotations

import os
from typing import Protocol

from berth.images.tar import BLOCK, CHARACTER, SCHILY_XATTR, Member

END = bytes(2 * BLOCK)
NAME_BYTES = 100
MAX_ID_FIELD = 0o7777777
MAX_SIZE_FIELD = 0o77777777777
PAX = "x"
NANOSECONDS = 1_000_000_000
WITH_DEVICE = (CHARACTER, "4")


class Sink(Protocol):
    """Where a tar stream goes."""

    def write(self, data: bytes) -> None:
        """Take bytes."""

    def copy(self, fd: int, size: int) -> None:
        """Take ``size`` bytes of the file ``fd``, zeros for what it has not."""


def new_member(name: str, kind: str, status: os.stat_result) -> Member:
    """Return a member for the file that ``status`` is of."""
    member = Member(bytes(BLOCK))
    member.name = name
    member.kind = kind
    member.mode = status.st_mode & 0o7777
    member.uid, member.gid = status.st_uid, status.st_gid
    member.mtime_ns = status.st_mtime_ns
    if kind in WITH_DEVICE:
        member.major, member.minor = os.major(status.st_rdev), os.minor(status.st_rdev)
    return member


def headers(member: Member) -> bytes:
    """Return what precedes a member's data."""
    name, link = os.fsencode(member.name), os.fsencode(member.linkname)
    records = _records(member, name, link)
    if not records:
        return _header(member, name, link)
    data = b"".join(_record(key, value) for key, value in records)
    extension = Member(bytes(BLOCK))
    extension.kind, extension.mode, extension.size = PAX, 0o644, len(data)
    leaf = b"PaxHeaders.0/" + name.rstrip(b"/").rpartition(b"/")[2]
    head = _header(extension, leaf[:NAME_BYTES], b"")
    return head + data + padding(len(data)) + _header(member, name[:NAME_BYTES], link[:NAME_BYTES])


def padding(size: int) -> bytes:
    """Return the zeros that fill up the last block of ``size`` bytes."""
    return bytes(-size % BLOCK)


def _records(member: Member, name: bytes, link: bytes) -> list[tuple[bytes, bytes]]:
    """Return the pax records that a member needs, sorted by key."""
    texts = ((b"path", name), (b"linkpath", link))
    found = {key: text for key, text in texts if len(text) > NAME_BYTES or not text.isascii()}
    for key, value, limit in (
        (b"uid", member.uid, MAX_ID_FIELD),
        (b"gid", member.gid, MAX_ID_FIELD),
        (b"size", member.size, MAX_SIZE_FIELD),
    ):
        if value > limit:
            found[key] = b"%d" % value
    seconds, rest = divmod(member.mtime_ns, NANOSECONDS)
    if rest or not 0 <= seconds <= MAX_SIZE_FIELD:
        found[b"mtime"] = _time(member.mtime_ns)
    for attribute, value_bytes in (member.xattrs or {}).items():
        found[os.fsencode(SCHILY_XATTR + attribute)] = value_bytes
    return sorted(found.items())


def _time(nanoseconds: int) -> bytes:
    seconds, rest = divmod(abs(nanoseconds), NANOSECONDS)
    sign = b"-" if nanoseconds < 0 else b""
    return (sign + b"%d.%09d" % (seconds, rest)).rstrip(b"0").rstrip(b".")


def _record(key: bytes, value: bytes) -> bytes:
    """Return "LENGTH KEY=VALUE" and a newline; the length counts its own digits."""
    size = len(key) + len(value) + 3
    length = size + len(str(size))
    length = size + len(str(length))
    return b"%d %b=%b\n" % (length, key, value)


def _header(member: Member, name: bytes, link: bytes) -> bytes:
    head = b"".join(
        (
            *(name.ljust(NAME_BYTES, b"\0"), _octal(member.mode, 8)),
            *(_octal(min(member.uid, MAX_ID_FIELD), 8), _octal(min(member.gid, MAX_ID_FIELD), 8)),
            _octal(min(member.size, MAX_SIZE_FIELD), 12),
            _octal(min(max(member.mtime_ns // NANOSECONDS, 0), MAX_SIZE_FIELD), 12),
            *(b" " * 8, member.kind.encode(), link.ljust(NAME_BYTES, b"\0"), b"ustar\x0000"),
            *(bytes(64), _octal(member.major, 8), _octal(member.minor, 8), bytes(167)),
        )
    )
    return head[:148] + b"%06o\0 " % sum(head) + head[156:]


def _octal(number: int, width: int) -> bytes:
    return b"%0*o\0" % (width - 1, number)


class TarWriter:
    """Writes members, each with its data, and the end. None is said to be younger than ``latest_ns``."""

    def __init__(self, sink: Sink, *, latest_ns: int | None = None) -> None:
        self._sink = sink
        self._latest_ns = latest_ns
        self.file_bytes = 0  # in the files so far, as layers are counted

    def add(self, member: Member) -> None:
        """Write a member that has no data."""
        if self._latest_ns is not None:
            member.mtime_ns = min(member.mtime_ns, self._latest_ns)
        self._sink.write(headers(member))

    def add_file(self, member: Member, fd: int) -> None:
        """Write a member with the data of the file ``fd``."""
        self.add(member)
        self._sink.copy(fd, member.size)
        self.file_bytes += member.size
        if fill := padding(member.size):
            self._sink.write(fill)

    def end(self) -> None:
        """Write the end of the archive."""
        self._sink.write(END)
