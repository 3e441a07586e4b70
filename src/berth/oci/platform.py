"""Platforms: what an image is for, and which of several suits a machine (image-spec, image-index.md)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from berth.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Sequence

MACHINES = {
    "x86_64": ("amd64", ""),
    "aarch64": ("arm64", "v8"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "i386": ("386", ""),
    "i686": ("386", ""),
    "riscv64": ("riscv64", ""),
    "ppc64le": ("ppc64le", ""),
    "s390x": ("s390x", ""),
}
SYNONYMS = {**MACHINES, "arm64": ("arm64", "v8"), "armhf": ("arm", "v7"), "x86-64": ("amd64", "")}
# The variant that an architecture means when none is written.
DEFAULT_VARIANTS = {"arm64": "v8", "arm": "v7"}
MAX_PARTS = 3


class Platform(msgspec.Struct, frozen=True, kw_only=True):
    """An operating system on an architecture; the variant is empty when it does not matter."""

    os: str = "linux"
    architecture: str = ""
    variant: str = ""

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Read ``linux/arm64/v8``, ``linux/amd64`` or ``arm64``, as --platform takes it."""
        parts = text.lower().split("/")
        if not all(part.replace("_", "").replace("-", "").isalnum() for part in parts):
            raise InvalidArgument(
                f'"{text}" is an invalid component of "{text}": platform specifier'
            )
        if len(parts) == 1:
            parts = [*((parts[0],) if parts[0] == "linux" else ("linux", parts[0]))]
        if len(parts) > MAX_PARTS:
            raise InvalidArgument(f'"{text}": cannot parse platform specifier')
        machine = parts[1] if len(parts) > 1 else this_machine().architecture
        architecture, variant = SYNONYMS.get(machine, (machine, ""))
        written = parts[2] if len(parts) == MAX_PARTS else variant
        return cls(os=parts[0], architecture=architecture, variant=written).normal()

    def normal(self) -> Platform:
        """Return the same platform without the variant that its architecture implies."""
        if self.variant == DEFAULT_VARIANTS.get(self.architecture):
            return Platform(os=self.os, architecture=self.architecture)
        return self

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


def this_machine() -> Platform:
    """Return the platform of the running kernel."""
    machine = os.uname().machine
    architecture, variant = MACHINES.get(machine, (machine, ""))
    return Platform(architecture=architecture, variant=variant).normal()


def choose(wanted: Platform, offered: Sequence[Platform | None]) -> int | None:
    """Return the index of the best offer: the same variant, else the same architecture. None: neither.

    An offer without a platform suits when it is the only one.
    """
    if len(offered) == 1 and offered[0] is None:
        return 0
    suiting = [
        (index, offer.normal())
        for index, offer in enumerate(offered)
        if offer is not None and (offer.os, offer.architecture) == (wanted.os, wanted.architecture)
    ]
    for index, offer in suiting:
        if offer.variant == wanted.normal().variant:
            return index
    # An arm machine runs older variants: the newest that is not newer than it.
    older = [(offer.variant, index) for index, offer in suiting if offer.variant <= wanted.variant]
    if older:
        return max(older)[1]
    return suiting[0][0] if suiting and not wanted.variant else None
