from __future__ import annotations

import pytest

from berth.errors import Conflict
from berth.images.records import Image, ImageUser
from berth.images.removal import plan
from berth.oci.image import ImageConfig

ID = "sha256:" + "ab" * 32
SHORT = "abababababab"
STOPPED = ImageUser(container_id="c" * 64, image_id=ID)
RUNNING = ImageUser(container_id="d" * 64, image_id=ID, running=True)


def image(*names, digests=(), builtin=False):
    return Image(
        id=ID,
        config=ImageConfig(),
        chain_id="",
        diff_ids=[],
        size_bytes=0,
        created="",
        names=list(names),
        repo_digests=list(digests),
        builtin=builtin,
    )


def outcome(found):
    return found.names, found.deleted


def test_one_name_of_several_is_untagged():
    found = plan(image("a:1", "b:1"), "a:1", "a:1", force=False, users=[RUNNING])
    assert outcome(found) == (["a:1"], False)


def test_the_last_name_takes_the_image():
    assert outcome(plan(image("a:1"), "a:1", "a:1", force=False, users=[])) == (["a:1"], True)


def test_the_last_tag_of_a_repository_takes_its_digests():
    one = image("a:1", "b:1", digests=["a@sha256:x", "b@sha256:x"])
    found = plan(one, "a:1", "a:1", force=False, users=[])
    assert outcome(found) == (["a:1", "a@sha256:x"], False)


def test_an_id_takes_the_only_name():
    one = image("a:1", digests=["a@sha256:x"])
    assert outcome(plan(one, SHORT, None, force=False, users=[])) == (["a:1", "a@sha256:x"], True)


def test_an_id_with_several_names_must_be_forced():
    text = f"conflict: unable to delete {SHORT} (must be forced) - image is referenced in multiple"
    with pytest.raises(Conflict) as caught:
        plan(image("a:1", "a:2"), SHORT, None, force=False, users=[])
    assert str(caught.value).startswith(text)
    assert plan(image("a:1", "a:2"), SHORT, None, force=True, users=[]).deleted


def test_a_container_keeps_its_image():
    with pytest.raises(Conflict) as caught:
        plan(image("a:1"), "a:1", "a:1", force=False, users=[STOPPED])
    assert str(caught.value) == (
        'conflict: unable to remove repository reference "a:1" (must force) - container cccccccccccc'
        f" is using its referenced image {SHORT}"
    )
    with pytest.raises(Conflict, match=r"\(must be forced\) - image is being used by stopped"):
        plan(image("a:1"), SHORT, None, force=False, users=[STOPPED])
    assert plan(image("a:1"), "a:1", "a:1", force=True, users=[STOPPED]).deleted


def test_a_running_container_keeps_it_whatever_is_forced():
    text = r"\(cannot be forced\) - image is being used by running container dddddddddddd"
    with pytest.raises(Conflict, match=text):
        plan(image("a:1"), SHORT, None, force=True, users=[RUNNING])
    assert outcome(plan(image("a:1"), "a:1", "a:1", force=True, users=[RUNNING])) == (
        ["a:1"],
        False,
    )


def test_containers_of_other_images_do_not_count():
    other = ImageUser(container_id="e", image_id="sha256:other", running=True)
    assert plan(image("a:1"), "a:1", "a:1", force=False, users=[other]).deleted


def test_the_built_in_image_stays():
    built_in = image("host:latest", builtin=True)
    for name in ("host:latest", None):
        with pytest.raises(Conflict, match="built in"):
            plan(built_in, "host", name, force=True, users=[])
    named = image("h:1", "host:latest", builtin=True)
    assert outcome(plan(named, "h:1", "h:1", force=False, users=[])) == (["h:1"], False)
