from __future__ import annotations

import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.dockerfile import globs
from berth.dockerfile.substitution import MAX_PUT_IN, Expansion, expand
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
    assert Expansion(VARIABLES).words('80 $two "$two" "" $unset') == ["80", "a", "b", "a b", ""]


def test_quotes_are_plain_in_a_document():
    assert Expansion(VARIABLES).document("'$x' \"${x}\" \\$x \\n\n") == "'1' \"1\" $x \\n\n"


@given(st.text(alphabet="$x{}:-+?#%/'\"\\ ab", max_size=20))
def test_any_text_expands_or_is_refused(text):
    try:
        whole = expand(text, VARIABLES)
    except InvalidArgument:
        return
    assert isinstance(whole, str)
    Expansion(VARIABLES).words(text)


@given(st.text(alphabet=st.characters(blacklist_characters="$'\"\\"), max_size=20))
def test_a_text_without_signs_stays_as_it_is(text):
    assert expand(text, VARIABLES) == text


def test_what_is_put_into_an_instruction_is_bounded():
    put_in = Expansion({"half": "x" * (MAX_PUT_IN // 2)})
    assert len(put_in("$half$half")) == MAX_PUT_IN
    with pytest.raises(InvalidArgument, match="an instruction becomes more than 1 MiB"):
        put_in("$half")


@pytest.mark.parametrize(
    "text", ["$x" * 3, "${x+}" * 3, "${x/x/}" * 3, "${x//x/$y}", "${x#$z}" * 9]
)
def test_what_is_looked_at_counts_as_well(text):
    variables = {"x": "x" * (MAX_PUT_IN // 2), "y": "yyy", "z": "z" * 1024}
    with pytest.raises(InvalidArgument, match="an instruction becomes more than 1 MiB"):
        expand(text, variables)


def test_substitutions_nest_only_so_deep():
    assert expand("${u:-" * 32 + "a" + "}" * 32, {}) == "a"
    with pytest.raises(InvalidArgument, match="nested more than 32 deep"):
        expand("${u:-" * 1000 + "a" + "}" * 1000, {})
    with pytest.raises(InvalidArgument, match="longer than 1024 letters"):
        expand("${x#" + "a" * 1025 + "}", VARIABLES)


@pytest.mark.parametrize("text", ["${x#*b*b*c}", "${x%%c*b*b*}", "${x//a*b/c}", "${x/?*a?*b/c}"])
def test_patterns_take_no_longer_than_the_value_is(text):
    """Those that try every length or place take hours for these."""
    value = "a" * (MAX_PUT_IN // 2)
    assert expand(text, {"x": value}) == value


@given(
    value=st.text(alphabet="ab[", max_size=8),
    pattern=st.text(alphabet="ab*?[]!", max_size=6),
    side=st.sampled_from("#%"),
    longest=st.booleans(),
)
def test_what_is_trimmed_is_what_the_shell_trims(value, pattern, side, longest):
    lengths = [
        length
        for length in range(len(value) + 1)
        if fnmatch.fnmatchcase(
            value[:length] if side == "#" else value[len(value) - length :], pattern
        )
    ]
    cut = (max(lengths) if longest else min(lengths)) if lengths else 0
    wanted = value[cut:] if side == "#" else value[: len(value) - cut]
    assert globs.trimmed(value, pattern, side, longest=longest) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("${x//b*b/-}", "a-a"), ("${x//[ab]/-}", "-----"), ("${x/*/-}", "-"), ("${x//*/-}", "-")],
)
def test_what_is_replaced_is_the_longest(text, wanted):
    assert expand(text, {"x": "ababa"}) == wanted
