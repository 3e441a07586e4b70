from __future__ import annotations

import time

import pytest

from berth.builds.pruning import Entry, Pruning, of_filters
from berth.errors import InvalidArgument

HOUR_NS = 3600 * 10**9
OLD = Entry(id="sha256:abc", kind="regular", size_bytes=10, used_ns=0, description="RUN x")
NEW = Entry(id="f00", kind="exec.cachemount", size_bytes=10, used_ns=time.time_ns(), parent="p")
SHARED = Entry(id="s", kind="regular", size_bytes=1, used_ns=0, shared=True)
USED = Entry(id="u", kind="regular", size_bytes=1, used_ns=0, in_use=True)


def chosen(filters, **more):
    wanted = of_filters(filters, **more)
    return [entry.id for entry in (OLD, NEW, SHARED, USED) if wanted.chooses(entry)]


@pytest.mark.parametrize(
    ("filters", "ids"),
    [
        ({}, ["sha256:abc", "f00"]),
        ({"until": ["1h"]}, ["sha256:abc"]),
        ({"unused-for": ["1h"]}, ["sha256:abc"]),
        ({"id": ["abc"]}, ["sha256:abc"]),
        ({"type": ["exec.cachemount"]}, ["f00"]),
        ({"parent": ["p"]}, ["f00"]),
        ({"parent": []}, ["f00"]),
        ({"description": ["RUN x"]}, ["sha256:abc"]),
        ({"private": []}, ["sha256:abc", "f00"]),
        ({"shared": []}, []),
        ({"inuse": ["true"]}, []),
        ({"label": ["x"]}, ["sha256:abc", "f00"]),
        ({"type": ["regular"], "id": ["f"]}, []),
    ],
)
def test_filters_choose(filters, ids):
    assert chosen(filters) == ids


def test_everything_has_what_images_are_made_of_but_not_what_is_in_use():
    assert chosen({}, everything=True) == ["sha256:abc", "f00", "s"]
    assert chosen({"shared": ["true"]}, everything=True) == ["s"]


@pytest.mark.parametrize(
    ("filters", "words"),
    [
        ({"bogus": ["x"]}, "invalid filter 'bogus'"),
        ({"until": ["1h"], "unused-for": ["1h"]}, 'conflicting filters: "until" and "unused-for"'),
        ({"until": ["1h", "2h"]}, "filters expect only one value"),
        ({"id": ["a", "b"]}, "filters expect only one value"),
        ({"unused-for": ["soon"]}, '"unused-for" filter expects a duration'),
    ],
)
def test_other_filters_are_refused(filters, words):
    with pytest.raises(InvalidArgument, match=words):
        of_filters(filters)


@pytest.mark.parametrize(
    ("sizes", "free", "kept"),
    [
        ({}, 0, None),
        ({"reserved_bytes": 30}, 0, 30),
        ({"max_used_bytes": 50}, 0, 50),
        ({"max_used_bytes": 20, "reserved_bytes": 30}, 0, 30),
        ({"min_free_bytes": 10}, 50, 100),
        ({"min_free_bytes": 70}, 50, 80),
        ({"min_free_bytes": 1000}, 50, 0),
        ({"min_free_bytes": 1000, "reserved_bytes": 25}, 50, 25),
        ({"min_free_bytes": 70, "max_used_bytes": 60}, 50, 60),
        ({"min_free_bytes": 70, "max_used_bytes": 90}, 50, 80),
    ],
)
def test_sizes_say_how_much_of_100_bytes_is_kept(sizes, free, kept):
    assert Pruning(**sizes).keep_bytes(100, free) == kept
