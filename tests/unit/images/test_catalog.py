from __future__ import annotations

import pytest

from berth.errors import Conflict, InvalidArgument, NotFound
from berth.images.catalog import Catalog, created_ns, matches
from berth.images.records import Image
from berth.oci.image import ImageConfig

ONE, TWO = "sha256:" + "1a" * 32, "sha256:" + "2b" * 32


def image(id_=ONE, *names, created="2024-01-01T00:00:00Z", labels=None, **more):
    return Image(
        id=id_,
        config=ImageConfig(labels=labels),
        chain_id="",
        diff_ids=[],
        size_bytes=0,
        created=created,
        names=list(names),
        **more,
    )


@pytest.fixture
def catalog(state):
    return Catalog(state)


def test_images_are_found_by_everything_docker_takes(catalog):
    catalog.put(image(ONE, "busybox:latest", "reg.example:5000/a/b:1"))
    catalog.put(image(TWO, repo_digests=[f"x@sha256:{'0' * 64}"]))
    for ref in (
        "busybox",
        "busybox:latest",
        "docker.io/library/busybox",
        "library/busybox",
        "reg.example:5000/a/b:1",
        ONE,
        ONE.removeprefix("sha256:"),
        "1a1a",
        "sha256:1a1a",
    ):
        assert catalog.resolve(ref).id == ONE, ref
    assert catalog.resolve(f"x@sha256:{'0' * 64}").id == TWO


@pytest.mark.parametrize(
    ("ref", "shown"),
    [("nope", "nope:latest"), ("nope:1", "nope:1"), ("abc", "abc:latest"), ("a/b", "a/b:latest")],
)
def test_what_is_missing_is_named_as_docker_does(catalog, ref, shown):
    with pytest.raises(NotFound, match=f"^No such image: {shown}$"):
        catalog.resolve(ref)


def test_a_wrong_reference_is_invalid(catalog):
    with pytest.raises(InvalidArgument, match="invalid reference format"):
        catalog.resolve("a b")


def test_a_name_that_looks_like_an_id_is_a_name(catalog):
    catalog.put(image(ONE))
    catalog.put(image(TWO, "1a1a:latest"))
    assert catalog.resolve("1a1a").id == TWO


def test_a_name_moves(catalog, state):
    catalog.put(image(ONE, "a:1"))
    catalog.put(image(TWO))
    catalog.give_name(catalog.resolve(TWO), "a:1")
    again = Catalog(state)
    assert again.resolve("a:1").id == TWO
    assert again.resolve(ONE).names == []
    assert again.resolve(TWO).tagged_ns > 0


def test_the_built_in_name_does_not_move(catalog):
    catalog.put(image(ONE, "host:latest", builtin=True))
    catalog.put(image(TWO))
    with pytest.raises(Conflict, match="built-in"):
        catalog.give_name(catalog.resolve(TWO), "host:latest")
    assert catalog.resolve("host").id == ONE


def test_filters_are_dockers(catalog):
    catalog.put(image(ONE, "a:1", "b:2", created="2024-01-01T00:00:00Z", labels={"k": "v"}))
    catalog.put(image(TWO, created="2024-06-01T00:00:00Z"))

    def ids(**filters):
        return [found.id for found in catalog.select(filters)]

    assert ids() == [TWO, ONE]
    assert ids(dangling=["true"]) == [TWO]
    assert ids(dangling=["false"]) == [ONE]
    assert ids(label=["k"]) == ids(label=["k=v"]) == [ONE]
    assert ids(label=["k=w"]) == []
    assert ids(before=[TWO]) == [ONE]
    assert ids(since=["a:1"]) == [TWO]
    assert ids(until=["2024-03-01T00:00:00Z"]) == [ONE]
    (found,) = catalog.select({"reference": ["b:*"]})
    assert found.names == ["b:2"]
    with pytest.raises(InvalidArgument, match="invalid filter 'color'"):
        ids(color=["red"])
    with pytest.raises(InvalidArgument, match="invalid filter 'dangling="):
        ids(dangling=["maybe"])


def test_patterns_stop_at_slashes():
    assert matches("reg.example:5000/a/b:1", ["reg.example:5000/*/b"])
    assert not matches("a/b:1", ["*"])
    assert matches("a:1", ["a"])
    assert not matches("ab:1", ["a"])


def test_an_image_that_says_no_time_was_made_at_the_beginning():
    assert created_ns("nonsense") == 0


def test_moments_are_compared_and_not_their_texts(catalog):
    catalog.put(image(ONE, "a:1", created="2024-01-01T00:00:00Z"))
    catalog.put(image(TWO, "b:1", created="2024-01-01T02:00:00.5+02:00"))
    assert [found.id for found in catalog.all()] == [TWO, ONE]
    assert [found.id for found in catalog.select({"before": ["b:1"]})] == [ONE]
    assert [found.id for found in catalog.select({"since": ["a:1"]})] == [TWO]
    assert [found.id for found in catalog.select({"until": ["2024-01-01T00:00:00.4Z"]})] == [ONE]
