"""What of that which builds have left is to go: how much, how old, and which."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from berth.errors import InvalidArgument
from berth.oci.times import moment_ns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

AGES = ("until", "unused-for")  # the latter is what the former was called
FIELDS = ("id", "parent", "type", "description", "inuse", "shared", "private")
PASSED_OVER = ("label", "label!")
TRUE = "true"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A step of a build, or a cache of its commands."""

    id: str
    kind: str
    size_bytes: int
    used_ns: int
    parent: str = ""
    description: str = ""
    in_use: bool = False
    shared: bool = False  # an image with a name is made of it

    def field(self, name: str) -> str:
        """Return what a filter sees; empty is "no"."""
        said = {"inuse": self.in_use, "shared": self.shared, "private": not self.shared}
        if name in said:
            return TRUE if said[name] else ""
        texts = {"parent": self.parent, "type": self.kind, "description": self.description}
        return texts[name]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruning:
    """What one request is about; sizes are 0 where it does not say any."""

    everything: bool = False  # also what images with names are made of
    unused_since_ns: int | None = None
    fields: tuple[tuple[str, str | None], ...] = ()
    ids: frozenset[str] | None = None  # of those that may go, None for all
    reserved_bytes: int = 0
    max_used_bytes: int = 0
    min_free_bytes: int = 0

    def chooses(self, entry: Entry) -> bool:
        """Say whether an entry may go."""
        if entry.in_use or (entry.shared and not self.everything):
            return False
        if self.unused_since_ns is not None and entry.used_ns > self.unused_since_ns:
            return False
        if self.ids is not None and entry.id not in self.ids:
            return False
        return all(_passes(entry, name, value) for name, value in self.fields)

    def keep_bytes(self, total: int, free: int) -> int | None:
        """Return how much of ``total`` may stay where so much is ``free``; None when nothing has to."""
        if not (self.reserved_bytes or self.max_used_bytes or self.min_free_bytes):
            return None
        keep = self.max_used_bytes
        if not keep and self.min_free_bytes:
            keep = total
        if (lack := self.min_free_bytes - free) > 0:
            keep = min(keep, total - lack)
        return max(keep, self.reserved_bytes, 0)


def _passes(entry: Entry, name: str, value: str | None) -> bool:
    if name == "id":
        return (value or "") in entry.id
    found = entry.field(name)
    return bool(found) if value is None else found == value


def of_filters(
    filters: Mapping[str, Sequence[str]],
    *,
    everything: bool = False,
    reserved_bytes: int = 0,
    max_used_bytes: int = 0,
    min_free_bytes: int = 0,
) -> Pruning:
    """Return what filters and sizes say. InvalidArgument in Docker's words."""
    for name in filters:
        if name not in (*AGES, *FIELDS, *PASSED_OVER):
            raise InvalidArgument(f"invalid filter '{name}'")
    ages = [(name, value) for name in AGES for value in filters.get(name, ())]
    if len({name for name, _ in ages}) > 1:
        raise InvalidArgument('conflicting filters: "until" and "unused-for"')
    fields = {name: list(filters[name]) for name in FIELDS if name in filters}
    if len(ages) > 1 or any(len(values) > 1 for values in fields.values()):
        raise InvalidArgument("filters expect only one value")
    since = None
    for name, value in ages:
        try:
            since = moment_ns(value)
        except InvalidArgument as error:
            raise InvalidArgument(
                f"\"{name}\" filter expects a duration (e.g., '24h') or a timestamp: {error.message}"
            ) from error
    chosen = tuple((name, values[0] if values else None) for name, values in fields.items())
    return Pruning(
        everything=everything,
        unused_since_ns=since,
        fields=chosen,
        reserved_bytes=reserved_bytes,
        max_used_bytes=max_used_bytes,
        min_free_bytes=min_free_bytes,
    )
