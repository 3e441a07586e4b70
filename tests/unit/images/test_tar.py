from __future__ import annotations

import io
import os
import tarfile
from pathlib import PurePosixPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from berth.errors import BerthError, InvalidArgument
from berth.images import tar
from berth.images.streams import ByteStream
from berth.images.tar import TarReader

NAMES = st.text(
    st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), min_size=1, max_size=120
).filter(lambda name: name.strip("/") == name)
IDS = st.integers(0, (1 << 31) - 1)
KINDS = {
    tarfile.REGTYPE: tar.REGULAR,
    tarfile.DIRTYPE: tar.DIRECTORY,
    tarfile.SYMTYPE: tar.SYMLINK,
    tarfile.LNKTYPE: tar.LINK,
    tarfile.FIFOTYPE: tar.FIFO,
    tarfile.CHRTYPE: tar.CHARACTER,
    tarfile.BLKTYPE: tar.BLOCK_DEVICE,
}


def reader(data):
    return TarReader(ByteStream(iter([data] if data else [])))


def written(members, form=tarfile.PAX_FORMAT):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


@st.composite
def members(draw):
    info = tarfile.TarInfo(draw(NAMES))
    info.type = draw(st.sampled_from(list(KINDS)))
    info.mode = draw(st.integers(0, 0o7777))
    info.uid, info.gid = draw(IDS), draw(IDS)
    info.mtime = draw(st.integers(0, 1 << 33))
    if info.type in (tarfile.SYMTYPE, tarfile.LNKTYPE):
        info.linkname = draw(NAMES)
    if info.type in (tarfile.CHRTYPE, tarfile.BLKTYPE):
        info.devmajor, info.devminor = draw(st.integers(0, 4095)), draw(st.integers(0, 255))
    data = draw(st.binary(max_size=2000)) if info.type == tarfile.REGTYPE else b""
    info.size = len(data)
    return info, data


@given(st.lists(members(), max_size=5), st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]))
def test_what_tarfile_writes_is_read_back(wanted, form):
    archive = reader(written(wanted, form))
    for (info, data), member in zip(wanted, archive, strict=True):
        assert member.name.rstrip("/") == info.name
        assert member.kind == KINDS[info.type]
        assert (member.mode, member.uid, member.gid) == (info.mode, info.uid, info.gid)
        assert member.mtime_ns == info.mtime * 1_000_000_000
        assert member.linkname == info.linkname
        assert (member.major, member.minor) == (info.devmajor, info.devminor)
        assert archive.read_data(member.size) == data


@given(
    st.lists(members(), min_size=1, max_size=3),
    st.integers(0, 600),
    st.binary(min_size=1, max_size=8),
)
def test_damage_is_an_error_of_ours_or_harmless(wanted, at, junk):
    data = bytearray(written(wanted))
    data[at : at + len(junk)] = junk
    try:
        found = sum(1 for _ in reader(bytes(data)))
    except BerthError as error:
        assert error.message
    else:
        assert found <= len(data) // 512


@given(st.binary(max_size=2048))
@example(b"\x80" * 512)
def test_noise_is_refused_or_empty(data):
    try:
        assert list(reader(data)) == []
    except InvalidArgument as error:
        assert "\n" not in str(error)


def test_skipped_data_is_passed_over():
    info = tarfile.TarInfo("a")
    info.size = 1500
    data = written([(info, bytes(1500)), (tarfile.TarInfo("b"), b"")])
    assert [member.name for member in reader(data)] == ["a", "b"]


def test_times_keep_their_nanoseconds():
    info = tarfile.TarInfo("a")
    info.pax_headers = {"mtime": "1700000000.123456789"}
    (member,) = reader(written([(info, b"")]))
    assert member.mtime_ns == 1_700_000_000_123_456_789


@pytest.mark.parametrize(
    ("text", "ns"),
    [("-1.5", -1_500_000_000), ("12", 12_000_000_000), ("0.1", 100_000_000), ("9" * 40, 0)],
)
def test_odd_times(text, ns):
    info = tarfile.TarInfo("a")
    info.pax_headers = {"mtime": text}
    (member,) = reader(written([(info, b"")]))
    assert member.mtime_ns == ns


def test_attributes_of_star_and_libarchive_are_read():
    info = tarfile.TarInfo("a")
    info.pax_headers = {
        "SCHILY.xattr.user.one": "1",
        "LIBARCHIVE.xattr.user.one": "Mg==",
        "LIBARCHIVE.xattr.user.t%77o": "AP8",
    }
    (member,) = reader(written([(info, b"")]))
    assert member.xattrs == {"user.one": b"1", "user.two": b"\x00\xff"}


def test_names_that_are_not_utf8_survive():
    data = written([(tarfile.TarInfo(os.fsdecode(b"\xff\xfe")), b"")], tarfile.GNU_FORMAT)
    (member,) = reader(data)
    assert os.fsencode(member.name) == b"\xff\xfe"


def test_the_prefix_of_ustar_counts():
    name = "/".join(["directory" * 3] * 5)
    (member,) = reader(written([(tarfile.TarInfo(name), b"")], tarfile.USTAR_FORMAT))
    assert PurePosixPath(member.name) == PurePosixPath(name)


def test_a_regular_file_with_a_slash_at_the_end_is_a_directory():
    header = bytearray(tarfile.TarInfo("old/").tobuf(tarfile.USTAR_FORMAT)[:512])
    header[0:5] = b"old/\0"
    header[156:157] = b"0"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (member,) = reader(bytes(header) + bytes(1024))
    assert member.kind == tar.DIRECTORY


def test_a_member_that_claims_more_than_there_is_is_cut_off():
    info = tarfile.TarInfo("huge")
    info.size = 1 << 50
    with pytest.raises(InvalidArgument, match="unexpected EOF"):
        list(reader(info.tobuf(tarfile.GNU_FORMAT) + bytes(2000)))


def test_an_end_without_zero_blocks_is_an_end():
    assert [m.name for m in reader(tarfile.TarInfo("a").tobuf())] == ["a"]


def test_a_cut_header_is_cut_off():
    with pytest.raises(InvalidArgument, match="unexpected EOF"):
        list(reader(tarfile.TarInfo("a").tobuf()[:300]))


def test_huge_extended_headers_are_not_read_into_memory():
    info = tarfile.TarInfo("././@LongLink")
    info.type = b"L"
    info.size = 1 << 40
    with pytest.raises(InvalidArgument, match="extended header"):
        list(reader(info.tobuf(tarfile.GNU_FORMAT)))


def test_negative_sizes_are_refused():
    header = bytearray(tarfile.TarInfo("a").tobuf(tarfile.GNU_FORMAT))
    header[124:136] = (-512).to_bytes(12, "big", signed=True)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:512])
    with pytest.raises(InvalidArgument, match="invalid tar header"):
        list(reader(bytes(header)))


@pytest.mark.parametrize("records", [b"5 a=b\n", b"x a=b\n", b"99 a=b\n", b"6 abc\n", b"0 a=b\n"])
def test_damaged_pax_records_are_refused(records):
    with pytest.raises(InvalidArgument, match="invalid tar header"):
        tar.pax_records(records)
