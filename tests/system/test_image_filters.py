"""`docker image ls --filter`: which images pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.archives import layer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.engine import EngineProcess
    from support.programs import Outcome

    Cli = Callable[..., Outcome]

OLD, NEW, NEWEST, NAMELESS = "filters/old:1", "filters/new:1", "filters/new:2", "<none>:<none>"
OURS = "reference=filters/*"
LABELS = {OLD: "colour=red", NEW: "colour=blue", NEWEST: "shape=round colour=blue"}


@pytest.fixture(scope="module")
def images(session_engine: EngineProcess) -> Iterator[EngineProcess]:
    """Three images, one after the other, and before them one that has lost its name."""
    docker = session_engine.docker
    made = [(NEWEST, "lost=yes"), *LABELS.items()]
    for number, (name, labels) in enumerate(made):
        archive = layer([("number", str(number).encode(), {})])
        done = docker("import", "-c", f"LABEL {labels}", "-", name, stdin=archive)
        assert done.code == 0, str(done)
    yield session_engine
    docker("rmi", *LABELS)
    docker("image", "prune", "-f")


def listed(cli: Cli, *filters: str) -> list[str]:
    flags = [word for text in filters for word in ("--filter", text)]
    done = cli("image", "ls", *flags, "--format", "{{.Repository}}:{{.Tag}}")
    assert done.code == 0, str(done)
    return done.lines


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ((OURS,), [NEWEST, NEW, OLD]),
        (("reference=filters/new",), [NEWEST, NEW]),
        (("reference=filters/new:2",), [NEWEST]),
        (("reference=*/*:1",), [NEW, OLD]),
        (("reference=filters/o*", "reference=filters/*:2"), [NEWEST, OLD]),
        (("reference=nothing",), []),
        (("label=colour",), [NEWEST, NEW, OLD]),
        (("label=colour=red",), [OLD]),
        (("label=colour", "label=shape=round"), [NEWEST]),
        (("label=colour=green",), []),
        ((OURS, f"before={NEW}"), [OLD]),
        ((OURS, f"since={NEW}"), [NEWEST]),
        ((OURS, f"since={OLD}", f"before={NEWEST}"), [NEW]),
        (("label=lost", "dangling=true"), [NAMELESS]),
        (("label=lost", "dangling=false"), []),
        ((OURS, "dangling=false"), [NEWEST, NEW, OLD]),
        ((OURS, "dangling=true"), []),
    ],
)
def test_images_pass_that_have_what_is_asked_for(
    cli: Cli, images: EngineProcess, filters: tuple[str, ...], found: list[str]
) -> None:
    assert sorted(listed(cli, *filters)) == sorted(found)  # the order of one second is nobody's


@pytest.mark.berth_only  # the reference is an older Docker
def test_images_pass_that_are_old_enough(cli: Cli, images: EngineProcess) -> None:
    created = images.request("GET", f"/images/{NEW}/json")[1]["Created"]
    assert listed(cli, OURS, f"until={created}") == [NEW, OLD]
    assert listed(cli, OURS, "until=1h") == []
    assert listed(cli, OURS, "until=2000-01-01") == []
    assert listed(cli, OURS, "until=0s") == [NEWEST, NEW, OLD]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("colour=red", "nvalid filter 'colour'"),
        ("before=filters/none:1", "No such image: filters/none:1"),
        ("since=filters/none:1", "No such image: filters/none:1"),
    ],
)
@pytest.mark.usefixtures("images")
def test_what_is_no_filter_is_refused(cli: Cli, text: str, words: str) -> None:
    done = cli("image", "ls", "--filter", text)
    assert (done.code, words in done.err) == (1, True), str(done)
