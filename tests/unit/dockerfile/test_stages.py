from __future__ import annotations

import time

import pytest

from berth.dockerfile import stages
from berth.errors import InvalidArgument

FILE = """ARG V=1
FROM base:$V AS one
RUN a
FROM scratch AS unused
COPY --from=one /a /b
FROM base AS Two
COPY --from=0 /a /b
FROM two
ONBUILD COPY --from=one /x /y
"""


def test_stages_have_names_and_numbers():
    found = stages.read(FILE)
    assert [(stage.name, len(stage.steps)) for stage in found.stages] == [
        ("one", 1),
        ("unused", 1),
        ("two", 1),
        ("3", 1),
    ]
    assert found.find("TWO") is found.stages[2]
    assert found.find("2") is found.stages[2]
    assert found.find("2", before=2) is None
    assert [pairs for step in found.globals for pairs in step.pairs] == [("V", "1")]


def test_only_what_is_needed_is_built():
    found = stages.read(FILE)
    bases = ["base:1", "scratch", "base", "two"]
    needed = found.needed(found.target(""), bases)
    assert [stage.name for stage in needed] == ["one", "two", "3"]
    assert [s.name for s in found.needed(found.target("unused"), bases)] == ["one", "unused"]
    assert [s.name for s in found.needed(found.target("one"), bases)] == ["one"]


def test_a_name_is_the_last_stage_s_that_has_it():
    found = stages.read("FROM a AS x\nFROM b AS x\nFROM x")
    assert found.find("x", before=2) is found.stages[1]
    assert found.find("x", before=1) is found.stages[0]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("RUN a\nFROM b", "line 1: no build stage in current context"),
        ("ARG a", "no build stage in current context"),
        ("FROM a\nFROM b c", "line 2: FROM requires either one or three"),
    ],
)
def test_what_is_no_dockerfile_is_said(text, why):
    with pytest.raises(InvalidArgument, match=why):
        stages.read(text)


def test_a_target_has_to_be_there():
    with pytest.raises(InvalidArgument, match="failed to reach build target nope"):
        stages.read(FILE).target("nope")


def cpu_s(text):
    """Return the time that reading takes, the shortest of three."""
    spans = []
    for _ in range(3):
        begin = time.process_time()
        stages.read(text)
        spans.append(time.process_time() - begin)
    return min(spans)


@pytest.mark.parametrize(
    ("before", "repeated", "after"),
    [
        ("FROM a\nENV a=", "\u20ac", ""),
        ("FROM a\nLABEL ", "a='\u20ac' ", ""),
        ("FROM a\nCOPY ", "--exclude=\u20ac ", "a b"),
        ("FROM a\nHEALTHCHECK ", "--retries=1 ", "CMD x"),
        ("FROM a\nRUN ", "\u20ac\\\n", "x"),
        ("#check=x", " ", "x\nFROM a"),
    ],
)
def test_a_long_line_takes_as_long_as_it_is(before, repeated, after):
    """Sixteen times as long: quadratic readers take 256 times as long."""
    short, long = 40_000 // len(repeated), 640_000 // len(repeated)
    assert cpu_s(f"{before}{repeated * long}{after}") < 80 * (
        cpu_s(f"{before}{repeated * short}{after}") + 0.001
    )


def test_many_stages_are_found_by_their_names():
    count = 60_000
    found = stages.read("".join(f"FROM s{n - 1} AS s{n}\n" for n in range(1, count + 1)))
    bases = [stage.head.base for stage in found.stages]
    assert len(found.needed(found.target(""), bases)) == count
    assert found.find("9" * 5000) is None
    assert found.find("0" * 5000) is found.stages[0]


def test_words_of_json_that_nest_deeper_than_can_be_read_are_the_shell_s():
    words = "[" * 100_000
    step = stages.read(f"FROM a\nCMD {words}").stages[0].steps[0]
    assert step.words == (words,)
