from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.dockerfile.substitution import expand, expand_document, expand_words
from berth.errors import InvalidArgument

VARIABLES = {"x": "1", "empty": "", "file": "a.tar.gz", "two": "a b", "UPPER_1": "u"}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("plain", "plain"),
        ("$x${x}$UPPER_1", "11u"),
        ("$unset-${unset}", "-"),
        ("${unset:-d}${empty:-d}${empty-d}${x:-d}", "dd1"),
        ("${x:+set}${empty:+set}${empty+set}${unset+set}", "setset"),
        ("${unset:-${x}}", "1"),
        ("${x:?}", "1"),
        ("'$x' \"$x\" \\$x", "$x 1 $x"),
        ('"a\\"b\\$x\\n"', 'a"b$x\\n'),
        ("a\\ b\\", "a b"),
        ("$", "$"),
        ("$$x", "x"),
        ("a$-b", "ab"),
        ("${file%.gz} ${file%%.*} ${file#*.} ${file##*.}", "a.tar a tar.gz gz"),
        ("${file/./-} ${file//./-}", "a-tar.gz a-tar-gz"),
    ],
)
def test_variables_and_quotes(text, wanted):
    assert expand(text, VARIABLES) == wanted


def test_the_escape_character_may_be_another():
    assert expand("`$x \\$x", VARIABLES, "`") == "$x \\1"


@pytest.mark.parametrize(
    "text", ["'", '"', "${x", "${", "${}", "${x:?", "${x!y}", "${unset:?gone}"]
)
def test_what_makes_no_sense_is_refused(text):
    with pytest.raises(InvalidArgument):
        expand(text, VARIABLES)


def test_words_split_where_no_quotes_are():
    assert expand_words('80 $two "$two" "" $unset', VARIABLES) == ["80", "a", "b", "a b", ""]


def test_quotes_are_plain_in_a_document():
    assert expand_document("'$x' \"${x}\" \\$x \\n\n", VARIABLES) == "'1' \"1\" $x \\n\n"


@given(st.text(alphabet="$x{}:-+?#%/'\"\\ ab", max_size=20))
def test_any_text_expands_or_is_refused(text):
    try:
        whole = expand(text, VARIABLES)
    except InvalidArgument:
        return
    assert isinstance(whole, str)
    expand_words(text, VARIABLES)


@given(st.text(alphabet=st.characters(blacklist_characters="$'\"\\"), max_size=20))
def test_a_text_without_signs_stays_as_it_is(text):
    assert expand(text, VARIABLES) == text
