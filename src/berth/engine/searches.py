"""Searches for images in registries, as the API answers them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from berth.errors import InvalidArgument
from berth.images.catalog import flag
from berth.registry.auth import Credentials

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from berth.registry.client import RegistryClient
    from berth.registry.search import Repository

Document = dict[str, object]

FILTERS = ("is-automated", "is-official", "stars")
DEFAULT_LIMIT, MAX_LIMIT = 25, 100


class Searches:
    """Asks registries."""

    def __init__(self, registry: RegistryClient) -> None:
        self._registry = registry

    async def search(
        self, term: str, *, limit: int | None, filters: Mapping[str, Sequence[str]], auth: str
    ) -> list[Document]:
        """Return the repositories that a registry finds and that pass the filters."""
        count = DEFAULT_LIMIT if limit is None else limit
        if not 1 <= count <= MAX_LIMIT:
            raise InvalidArgument(f"Limit {count} is outside the range of [1, {MAX_LIMIT}]")
        for key in filters:
            if key not in FILTERS:
                raise InvalidArgument(f"invalid filter '{key}'")
        official = flag("is-official", filters["is-official"]) if "is-official" in filters else None
        automated = "is-automated" in filters and flag("is-automated", filters["is-automated"])
        stars = max([0, *map(_stars, filters.get("stars", ()))])
        found = await self._registry.search(term, count, Credentials.decode(auth))
        return [
            _document(one)
            for one in found
            # Nothing is built by the Hub itself any more.
            if not automated and one.star_count >= stars and official in (None, one.is_official)
        ]


def _stars(text: str) -> int:
    if not text.isdecimal():
        raise InvalidArgument(f"invalid filter 'stars=[{text}]'")
    return int(text)


def _document(repository: Repository) -> Document:
    shown: Document = msgspec.to_builtins(repository)
    return {**shown, "description": repository.description or "", "is_automated": False}
