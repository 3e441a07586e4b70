from __future__ import annotations

import pytest

from berth.builds import fetching
from berth.builds.copies import absolute
from berth.errors import InvalidArgument


@pytest.mark.parametrize(
    ("directory", "target", "wanted"),
    [
        ("", "x", "/x"),
        ("/app", ".", "/app/"),
        ("/app", "./", "/app/"),
        ("/app", "x/", "/app/x/"),
        ("/app", "../../../x", "/x"),
        ("/app", "/", "/"),
        ("", ".", "/"),
        ("/app", "//y", "/y"),
    ],
)
def test_targets_are_below_the_working_directory(directory, target, wanted):
    assert absolute(directory, target) == wanted


def test_urls_have_names():
    assert fetching.name_of("http://h/a/b%20c.txt?q=1#f") == "b c.txt"
    for url in (
        "http://h",
        "http://h/",
        "http://h/a/",
        "http://h/..",
        "http://h/%2e%2e",
        "http://h/a%2Fb",
    ):
        with pytest.raises(InvalidArgument, match="cannot determine filename"):
            fetching.name_of(url)
