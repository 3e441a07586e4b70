"""How builds at the same time share a cache of RUN --mount: at once, each its own, or one after the other."""

from __future__ import annotations

SHARED, PRIVATE, LOCKED = SHARINGS = ("shared", "private", "locked")
