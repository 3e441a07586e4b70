"""Digests: ``algorithm:hex`` names of content (image-spec, descriptor.md)."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from berth.errors import InvalidArgument

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
        return cls(f"{CANONICAL}:{hashlib.sha256(data).hexdigest()}")

    @property
    def algorithm(self) -> str:
        """The part before the colon."""
        return self.partition(":")[0]

    @property
    def encoded(self) -> str:
        """The part after the colon."""
        return self.partition(":")[2]

    def hasher(self) -> Hash:
        """Return a fresh hash of this digest's algorithm."""
        return hashlib.new(self.algorithm)
