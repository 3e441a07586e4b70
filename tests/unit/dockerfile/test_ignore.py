from __future__ import annotations

import fnmatch
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.dockerfile import ignore
from berth.errors import InvalidArgument


@pytest.mark.parametrize(
    ("patterns", "path", "wanted"),
    [
        ("*.md", "a.md", True),
        ("*.md", "a/b.md", False),
        ("**/*.md", "a.md", True),
        ("**/*.md", "a/b/c.md", True),
        ("a", "a/b/c", True),
        ("/a/", "a/b", True),
        ("a/**", "a/b/c", True),
        ("a/**/c", "a/c", True),
        ("a?c", "abc", True),
        ("a?c", "a/c", False),
        ("[a-c]x", "bx", True),
        ("[^a-c]x", "bx", False),
        ("\\*", "*", True),
        ("\\*", "a", False),
        ("*\n!keep", "keep", False),
        ("*\n!keep\nkeep", "keep", True),
        ("dir\n!dir/keep", "dir/keep/deep", False),
        ("dir\n!dir/keep", "dir/other", True),
        ("!never", "never", False),
        ("# a\n\n  a  ", "a", True),
        ("./a/../b", "b", True),
        (".", "anything", False),
        ("a.c", "abc", False),
    ],
)
def test_patterns_are_docker_s(patterns, path, wanted):
    assert ignore.Patterns(ignore.read(patterns)).excludes(path) is wanted


@pytest.mark.parametrize("pattern", ["[", "[a", "a\\", "[z-a]", "[]"])
def test_what_is_no_pattern_is_refused(pattern):
    with pytest.raises(InvalidArgument, match="syntax error in pattern"):
        ignore.expression(pattern)


@given(st.text(alphabet="ab*?/.[]^-\\!", max_size=12), st.text(alphabet="ab/.-", max_size=12))
def test_any_pattern_matches_or_is_refused(pattern, path):
    try:
        ignore.expression(pattern).fullmatch(path)
        excluded = ignore.Patterns(ignore.read(pattern)).excludes(path or "x")
    except InvalidArgument as error:
        assert "syntax error in pattern" in error.message
    else:
        assert excluded in (True, False)


@given(st.text(alphabet="ab*?", max_size=8), st.text(alphabet="ab", min_size=1, max_size=8))
def test_plain_patterns_are_those_of_a_shell(pattern, path):
    if "**" not in pattern:
        assert bool(ignore.expression(pattern).fullmatch(path)) == fnmatch.fnmatchcase(
            path, pattern
        )


@given(
    st.lists(st.sampled_from(["a", "b", "/", "*", "?", "**/", "a**", "[ab]"]), max_size=8),
    st.text(alphabet="ab/", max_size=9),
)
def test_patterns_match_what_their_signs_say(units, path):
    """The same as trying every place for every sign."""
    pattern = "".join(units)
    signs = re.findall(r"\*\*/?|\[ab\]|.", pattern)
    meanings = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    plain = "".join(meanings.get(sign, sign) for sign in signs)
    assert bool(ignore.expression(pattern).fullmatch(path)) == bool(re.fullmatch(plain, path))


def test_stars_inside_of_names_are_few():
    assert ignore.expression("a**/b").fullmatch("ab")
    with pytest.raises(InvalidArgument, match="too many"):
        ignore.expression("a**/" * 5)


@pytest.mark.parametrize("sign", ["**/", "**", "**/a/", "*a", "a**", "**/*a*", "*/"])
def test_no_pattern_takes_for_ever(sign):
    """Trying every place for every sign would."""
    rules = ignore.Patterns([sign * 40 + "x"])
    assert not rules.excludes("a/" * 60 + "y")
    assert not rules.excludes("a" * 240 + "y")
