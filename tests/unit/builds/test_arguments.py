from __future__ import annotations

import pytest

from berth.builds.arguments import BuildArguments, automatic_arguments
from berth.dockerfile import stages
from berth.errors import InvalidArgument
from berth.oci.platform import Platform


def declared(text, given):
    """Return the scope of the first stage of a Dockerfile after its ARG instructions."""
    file = stages.read(text)
    build = BuildArguments(given, {"TARGETARCH": "amd64"})
    build.declare_globals(file.globals, "\\")
    scope = build.scope()
    said = [scope.declare(step, scope.values({}), "\\") for step in file.stages[0].steps]
    return build, scope, said


def test_given_counts_more_than_default_and_global():
    build, scope, said = declared(
        "ARG G=global\nARG H=$G-2\nFROM x\nARG A=1\nARG B=$A\nARG G\nARG N\nARG TARGETARCH\n",
        {"B": "given", "P": "unused", "N": None},
    )
    assert scope.values({}) == {"A": "1", "B": "given", "G": "global", "TARGETARCH": "amd64"}
    assert build.globals()["H"] == "global-2"
    assert said == ["ARG A=1", "ARG B=1", "ARG G", "ARG N", "ARG TARGETARCH"]
    assert build.unused() == ["P"]


def test_variables_hide_arguments():
    _, scope, _ = declared("FROM x\nARG A=1\nARG B=2", {})
    assert scope.values({"A": "env"}) == {"B": "2"}


def test_proxies_need_no_declaration_and_leave_no_trace():
    _, scope, _ = declared("FROM x\nARG A=1", {"HTTP_PROXY": "p", "no_proxy": "n"})
    values = scope.values({})
    assert values == {"A": "1", "HTTP_PROXY": "p", "no_proxy": "n"}
    assert scope.prefix(values) == ["|1", "A=1"]
    _, scope, _ = declared("FROM x\nARG HTTP_PROXY", {"HTTP_PROXY": "p"})
    assert scope.prefix(scope.values({})) == ["|1", "HTTP_PROXY=p"]
    assert scope.prefix({}) == []


def test_platforms_are_arguments():
    found = automatic_arguments(Platform.parse("linux/arm/v7"), Platform.parse("amd64"), "")
    assert found["TARGETSTAGE"] == "default"
    assert found["TARGETPLATFORM"] == "linux/arm"
    assert found["BUILDARCH"] == "amd64"


def test_defaults_that_grow_from_each_other_are_bounded():
    growing = "ARG A=0123456789\n" + "ARG A=$A$A\n" * 40
    with pytest.raises(InvalidArgument, match="more than 1 MiB"):
        declared(f"{growing}FROM x", {})
    with pytest.raises(InvalidArgument, match="more than 1 MiB"):
        declared(f"FROM x\n{growing}", {})
    large = f"ARG L={'x' * 900_000}\n"
    with pytest.raises(InvalidArgument, match="a stage's arguments have more than 1 MiB"):
        declared(f"FROM x\n{large}ARG B=$L\n", {})


def test_a_stage_has_the_arguments_of_the_one_that_it_begins_with():
    build, scope, _ = declared("FROM x\nARG A=1\nARG B=2", {"B": "given"})
    (step,) = stages.read("FROM x\nARG A=3").stages[0].steps
    below = build.scope(scope)
    assert below.values({}) == {"A": "1", "B": "given"}
    below.declare(step, {}, "\\")
    assert (below.values({})["A"], scope.values({})["A"]) == ("3", "1")


def test_what_is_given_overrides_what_is_automatic():
    build = BuildArguments({"TARGETARCH": "arm64"}, {"TARGETARCH": "amd64", "TARGETOS": "linux"})
    assert build.globals() == {"TARGETARCH": "arm64", "TARGETOS": "linux"}


def test_what_is_for_the_builder_itself_needs_no_declaration():
    given = {"BUILDKIT_INLINE_CACHE": "1", "SOURCE_DATE_EPOCH": "7", "OTHER": "x"}
    build = BuildArguments(given, {})
    assert build.unused() == ["OTHER"]
    assert build.epoch == 7
    assert BuildArguments({}, {}).epoch is None
    with pytest.raises(InvalidArgument, match="invalid SOURCE_DATE_EPOCH: now"):
        _ = BuildArguments({"SOURCE_DATE_EPOCH": "now"}, {}).epoch
