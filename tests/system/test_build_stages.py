"""Stages of builds: at the same time where they can be, by name where clients say so, made at one time."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from support.projects import Project


pytestmark = pytest.mark.berth_only


# Each of two stages waits for the other's file in a cache that both share.
MEETING = """FROM busybox AS one
RUN --mount=type=cache,target=/c touch /c/one; until [ -e /c/two ]; do true; done; echo first > /f
FROM busybox AS two
RUN --mount=type=cache,target=/c touch /c/two; until [ -e /c/one ]; do true; done; echo second > /f
FROM busybox
COPY --from=one /f /1
COPY --from=two /f /2
"""


def test_stages_that_do_not_need_each_other_go_on_at_the_same_time(project: Project) -> None:
    if len(os.sched_getaffinity(project.engine.pid)) < 2:
        pytest.skip("one processor builds one stage at a time")
    done = project.write(MEETING).build(t="met")
    assert not done.error, done.error
    assert project.run("met", "cat /1 /2").split() == ["first", "second"]
    steps = [line for line in done.text.splitlines() if line.startswith("Step ")]
    assert [step.split(" : ")[0] for step in steps] == [f"Step {n}/7" for n in range(1, 8)]
    assert done.text.index("Step 2/7") < done.text.index("Step 3/7") < done.text.index("Step 5/7")


def test_the_stage_that_fails_is_heard_and_ends_the_others(project: Project) -> None:
    project.write(
        "FROM busybox AS slow\nRUN --mount=type=cache,target=/c until [ -e /c/never ]; do true; done\n"
        "FROM busybox AS broken\nRUN echo why; exit 7\n"
        "FROM busybox\nCOPY --from=slow /f /1\nCOPY --from=broken /f /2\n"
    )
    done = project.build()
    assert done.error == "The command '/bin/sh -c echo why; exit 7' returned a non-zero code: 7"
    assert "why\n" in done.text
    assert "Step 4/7 : RUN echo why" in done.text


def test_a_stage_inherits_arguments_from_the_one_that_it_begins_with(project: Project) -> None:
    project.write(
        "FROM busybox AS one\nARG OWN=default\nFROM one\nARG TARGETSTAGE\n"
        "RUN echo $OWN $TARGETSTAGE > /got\n"
    )
    assert not project.build(t="inherited", buildargs={"OWN": "given"}).error
    assert project.run("inherited", "cat /got") == "given default\n"


def test_builds_of_one_time_are_the_same(project: Project) -> None:
    project.file("a", "x")
    project.write("FROM busybox\nWORKDIR /w\nCOPY a .\nRUN date > /dev/null; echo x > /w/b\n")
    epoch = {"SOURCE_DATE_EPOCH": "1600000001"}
    built = [project.build(buildargs=epoch, nocache="1", t=name) for name in ("once", "twice")]
    assert not [one.error for one in built if one.error]
    assert built[0].image == built[1].image
    assert "not consumed" not in built[0].text
    assert project.inspect("once")["Created"].startswith("2020-09-13T12:26:41")
    found = project.run("once", "stat -c %Y /w /w/a /w/b").split()
    assert found == ["1600000001"] * 3
    assert project.build(buildargs=epoch).cached == 3
    assert project.build().cached == 0
    assert "invalid SOURCE_DATE_EPOCH" in project.build(buildargs={"SOURCE_DATE_EPOCH": "x"}).error


def test_the_host_name_of_commands_can_be_said(project: Project) -> None:
    project.write("FROM busybox\nRUN hostname > /got\n")
    done = project.build(t="named", buildargs={"BUILDKIT_SANDBOX_HOSTNAME": "sandbox"})
    assert not done.error, done.error
    assert project.run("named", "cat /got") == "sandbox\n"


def test_a_signal_that_there_is_not_is_refused(project: Project) -> None:
    project.write("FROM busybox\nARG S=NOPE\nSTOPSIGNAL SIG$S\n")
    assert "invalid signal: SIGNOPE" in project.build().error
    assert not project.build(buildargs={"S": "RTMIN+1"}).error
