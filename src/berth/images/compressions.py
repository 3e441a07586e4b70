"""How archives are compressed, by their first bytes: what unpacks them is loaded by those who do."""

from __future__ import annotations

import os

GZIP, ZSTD, XZ, BZIP2 = "gzip", "zstd", "xz", "bzip2"
MAGICS = (
    (b"\x1f\x8b", GZIP),
    (b"\x28\xb5\x2f\xfd", ZSTD),
    (b"\xfd7zXZ\0", XZ),
    (b"BZh", BZIP2),
)
MAGIC_BYTES = 6
HEAD_BYTES = 512  # by which an archive is known
TAR_MAGIC = slice(257, 262)
SKIPPABLE_FRAME = b"\x2a\x4d\x18"  # zstd frames 0x184D2A5?, little-endian


def compression(head: bytes) -> str | None:
    """Return the name of the compression that begins with ``head``; None for plain bytes."""
    for magic, name in MAGICS:
        if head.startswith(magic):
            return name
    if head[1:4] == SKIPPABLE_FRAME and head[0] & 0xF0 == 0x50:
        return ZSTD
    return None


def is_archive(head: bytes) -> bool:
    """Say whether HEAD_BYTES begin an archive, plain or compressed."""
    return compression(head) is not None or head[TAR_MAGIC] == b"ustar"


def compression_of(fd: int) -> str | None:
    """Return the compression of an open file."""
    return compression(os.pread(fd, MAGIC_BYTES, 0))
