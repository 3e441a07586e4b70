from __future__ import annotations

import base64
import json

import pytest

from berth.buildkit.located import MAX_ROWS, Dockerfile, Located, in_words
from berth.buildkit.subrequests import MAX_TABLE, BuildError, checked, excerpt, table
from berth.dockerfile import stages
from berth.dockerfile.syntax import SyntaxFault
from berth.errors import Failed


def details_of(text, lines):
    error = Located.of(Failed("why"), Dockerfile(name="Dockerfile", text=text), lines)
    return [json.loads(data) for _, data in error.details]


def test_an_error_carries_its_lines():
    [found] = details_of("FROM x\nRUN y\n", (2, 3))
    assert base64.b64decode(found["info"]["data"]) == b"FROM x\nRUN y\n"
    assert found["ranges"] == [
        {"start": {"line": 2}, "end": {"line": 2}},
        {"start": {"line": 3}, "end": {"line": 3}},
    ]
    assert details_of("FROM x\n", (0, 0)) == []


@pytest.mark.parametrize("at", [1, 5, 9, 10, 5000, 9999, 10000])
def test_of_a_long_file_only_the_lines_around_are_sent(at):
    text = "\n".join(f"# {number} {'x' * 50}" for number in range(1, 10001))
    [found] = details_of(text, (at, at))
    data = base64.b64decode(found["info"]["data"]).decode()
    assert len(data) < 20_000
    rows = data.split("\n")
    assert rows[at - 1] == text.split("\n")[at - 1]
    shown = [row for row in rows if row]
    assert len(shown) <= 17
    assert details_of("x" * (1 << 20), (1, 1)) == []


def test_faults_have_buildkits_words():
    with pytest.raises(SyntaxFault) as caught:
        stages.read("FROM x\nRUM \\\n  y\n")
    assert caught.value.lines == (2, 3)
    assert in_words(caught.value).message == (
        "dockerfile parse error on line 2: unknown instruction: RUM (did you mean RUN?)"
    )


def test_excerpts_are_as_clients_show_them():
    source = Dockerfile(name="F", text="a\nb\nc\nd\ne\nf")
    rule = "--------------------\n"
    assert excerpt(source, (1, 1)) == (
        f"F:1\n{rule}   1 | >>> a\n   2 |     b\n   3 |     c\n{rule}"
    )
    assert excerpt(source, (3, 4)) == (
        f"F:3\n{rule}   2 |     b\n   3 | >>> c\n   4 | >>> d\n   5 |     e\n{rule}"
    )


def test_of_an_instruction_without_end_little_is_told():
    text = "RUN a \\\n" * 20_000
    assert details_of(text, (1, 20_000)) == []
    source = Dockerfile(name="Dockerfile", text=text)
    answer = checked(source, [], BuildError(message="why", lines=(1, 20_000)))
    ranges = json.loads(answer["result.json"])["buildError"]["location"]["ranges"]
    assert [ranges[0]["start"]["line"], ranges[-1]["end"]["line"]] == [1, 1 + MAX_ROWS]


def test_columns_that_are_too_wide_are_none():
    assert table([["A", "B"], ["long", "x"]], 1) == "A    B\nlong x\n"
    rows = [["x" * 5000, "y"], *[["a", "b"]] * (MAX_TABLE // 5000)]
    assert table(rows, 1).splitlines()[:2] == ["x" * 5000 + " y", "a b"]
