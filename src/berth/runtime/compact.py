"""Lay out the zygote's memory for forks: what a fork writes to should lie close together.

A fork copies a page as soon as it writes to it, and Python writes wherever it goes: reference counts, free
lists. CPython's allocator puts each new object into a hole of a pool of its size class, wherever the imports
have left one, so that a fork's few thousand objects are on hundreds of pages. With the holes filled, new
objects come from fresh pools, one after the other.
"""

from __future__ import annotations

import sys

COUNTED_INSTANCES = 30
POOL_BYTES = 1 << 14  # obmalloc's, since Python 3.10
POOL_HEAD_BYTES = 48
LARGEST_BYTES = 512
STEP_BYTES = 16
BYTES_OVERHEAD = 33  # of a bytes object
# Where pools are of another kind, this ends the search: some megabytes are lost, nothing else.
MOST_FILLERS = 2000

_fillers: list[object] = []


def fill_holes() -> None:
    """Fill the pools that are in use, so that the next object of any size is the first of a pool."""
    for size in range(STEP_BYTES, LARGEST_BYTES + 1, STEP_BYTES):
        for _ in range(MOST_FILLERS):
            filler = bytes(size - BYTES_OVERHEAD) if size > BYTES_OVERHEAD + 1 else _small(size)
            if id(filler) % POOL_BYTES == POOL_HEAD_BYTES:
                break
            _fillers.append(filler)


def make_first_instances() -> None:
    """Make as many instances of each class as CPython 3.11 and 3.12 count, beside the class."""
    new: object = object.__new__
    for module in list(sys.modules.values()):
        if module.__name__.startswith("berth."):
            for kind in list(vars(module).values()):
                if isinstance(kind, type) and kind.__new__ is new:
                    for _ in range(COUNTED_INSTANCES):
                        object.__new__(kind)


def _small(size: int) -> object:
    return object() if size == STEP_BYTES else int.from_bytes(b"\xff" * 7, "little")
