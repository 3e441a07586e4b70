"""Uploads that were begun and have not ended: where they go on, also for a later berthd."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from berth.state import State

KEPT_S = 24 * 3600.0  # registries forget them sooner or later


class UploadRecord(msgspec.Struct, kw_only=True):
    """One upload: the place that the registry named for it."""

    url: str
    begun_s: float


class BegunUploads:
    """By the URL that the blob will have. Used in the loop only."""

    def __init__(self, state: State) -> None:
        self._table = state.table("uploads", UploadRecord)
        for key, record in self._table.items():
            if time.time() - record.begun_s > KEPT_S:
                self._table.remove(key)

    def get(self, blob_url: str) -> str:
        """Return the place of an upload, "" when none is known."""
        record = self._table.get(blob_url)
        return record.url if record else ""

    def note(self, blob_url: str, place: str) -> None:
        """Remember an upload; without a place, that it has ended."""
        if place:
            self._table.put(blob_url, UploadRecord(url=place, begun_s=time.time()))
        else:
            self._table.remove(blob_url)
