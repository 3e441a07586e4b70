"""Digests: ``algorithm:hex`` names of content (image-spec, descriptor.md)."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from berth.errors import InvalidArgument

try:
    if sys.version_info >= (3, 12):
        from _sha2 import sha256 as _sha256
    else:
        from _sha256 import sha256 as _sha256
except ImportError:  # an interpreter that has OpenSSL's alone
    from hashlib import sha256 as _sha256

if TYPE_CHECKING:
    from typing import Protocol

    class Hash(Protocol):
        """What hashlib gives."""

        def update(self, data: bytes | memoryview, /) -> None:
            """Add bytes."""

        def hexdigest(self) -> str:
            """Return the hash of all bytes so far."""


LENGTHS = {"sha256": 64, "sha512": 128}
CANONICAL = "sha256"
HEX = frozenset("0123456789abcdef")
# For these the interpreter's own code does. hashlib takes OpenSSL along: faster, but megabytes of memory.
SMALL_BYTES = 1 << 16


def sha256(data: bytes) -> bytes:
    """Return the hash of what is small."""
    digest: bytes = _sha256(data).digest()
    return digest


class Digest(str):
    """A checked digest; it is safe as a file name once split. msgspec takes ``str()`` of it only."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Check ``text``; InvalidArgument when it is no digest of an algorithm we know."""
        algorithm, _, encoded = text.partition(":")
        length = LENGTHS.get(algorithm)
        if length is None or len(encoded) != length or not HEX.issuperset(encoded):
            raise InvalidArgument(f"invalid digest {text[:160]!r}")
        return cls(text)

    @classmethod
    def of(cls, data: bytes) -> Digest:
        """Return the canonical digest of ``data``."""
        hasher = cls(f"{CANONICAL}:").hasher(len(data))
        hasher.update(data)
        return cls(f"{CANONICAL}:{hasher.hexdigest()}")

    @property
    def algorithm(self) -> str:
        """The part before the colon."""
        return self.partition(":")[0]

    @property
    def encoded(self) -> str:
        """The part after the colon."""
        return self.partition(":")[2]

    def hasher(self, size: int | None = None) -> Hash:
        """Return a fresh hash of this digest's algorithm, for so many bytes if that is known."""
        if size is not None and size <= SMALL_BYTES and self.algorithm == CANONICAL:
            small: Hash = _sha256()
            return small
        import hashlib

        return hashlib.new(self.algorithm)
