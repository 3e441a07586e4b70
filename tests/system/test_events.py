"""What is told of containers, images and volumes, and in which order: as dockerd tells it."""

from __future__ import annotations

import json
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from support.programs import find
from support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.engine import EngineProcess

    Tell = Callable[..., list[str]]

SLEEP = ("--network", "none", "busybox", "sleep", "600")
POLITE = (
    "--network",
    "none",
    "busybox",
    "sh",
    "-c",
    "trap 'exit 9' TERM; echo up; sleep 600 & wait",
)
DEAF = (
    "--network",
    "none",
    "busybox",
    "sh",
    "-c",
    "trap '' TERM; echo up; while :; do sleep 1; done",
)


@pytest.fixture
def tell(engine: EngineProcess) -> Iterator[Tell]:
    """Return what happened during the test, an event a line: of containers unless other kinds are named."""
    since_ns = time.time_ns()

    def told(*kinds: str) -> list[str]:
        flags = [word for kind in kinds or ("container",) for word in ("-f", f"type={kind}")]
        since, until = f"{since_ns / 1e9:.9f}", f"{time.time():.9f}"
        done = engine.docker(
            "events", *flags, "--since", since, "--until", until, "--format", "{{json .}}"
        )
        return [line(json.loads(text)) for text in done.lines]

    yield told


def line(event: dict[str, object]) -> str:
    """Return an event as one line; what differs at each run is left out."""
    actor = event["Actor"]
    assert isinstance(actor, dict)
    shown = ("signal", "exitCode", "oldName", "height", "destination", "read/write", "reclaimed")
    words = [str(event["Action"])]
    words += [f"{key}={actor['Attributes'][key]}" for key in shown if key in actor["Attributes"]]
    return " ".join(words)


def run(engine: EngineProcess, *words: str) -> None:
    done = engine.docker("run", "-d", "--name", "told", *words)
    assert done.code == 0, str(done)
    if "echo up" in words[-1]:
        wait_for(lambda: engine.docker("logs", "told").out == "up\n", "it has set its trap")


STOP = ["kill signal=15", "die exitCode=9", "stop"]
KILLED = ["kill signal=9", "die exitCode=137"]
LIVES = {
    "stop": (POLITE, ["stop told"], STOP),
    "stop of a deaf one": (DEAF, ["stop -t 0 told"], ["kill signal=15", *KILLED, "stop"]),
    "kill": (SLEEP, ["kill told"], KILLED),
    "kill by a signal": (POLITE, ["kill -s TERM told", "wait told"], STOP[:2]),
    "rm -f": (SLEEP, ["rm -f told"], [*KILLED, "destroy"]),
    "restart": (POLITE, ["restart told"], [*STOP, "start", "restart"]),
    "stop of a paused one": (
        POLITE,
        ["pause told", "stop told"],
        ["pause", "kill signal=15", "unpause", *STOP[1:]],
    ),
    "small things": (
        SLEEP,
        [
            "pause told",
            "unpause told",
            "rename told other",
            "update --cpu-shares 200 other",
            "top other",
        ],
        ["pause", "unpause", "rename oldName=/told", "update", "top"],
    ),
    "exec": (
        SLEEP,
        ["exec told sh -c false", "exec told true"],
        [
            *("exec_create: sh -c false", "exec_start: sh -c false", "exec_die exitCode=1"),
            *("exec_create: true ", "exec_start: true ", "exec_die exitCode=0"),
        ],
    ),
    "files": (
        SLEEP,
        ["cp told:/etc/passwd -", "export told", "commit --pause=false told told:1"],
        ["archive-path", "export", "commit"],
    ),
}


@pytest.mark.parametrize("case", LIVES)
def test_what_happens_to_a_container_is_told_in_dockers_order(
    engine: EngineProcess, tell: Tell, case: str
) -> None:
    words, commands, expected = LIVES[case]
    run(engine, *words)
    for command in commands:
        engine.docker(*command.split())
    assert tell() == ["create", "start", *expected]
    if case == "files":
        engine.docker("rmi", "told:1")


def test_only_clients_count_as_listeners(fresh_engine: EngineProcess) -> None:
    def listeners() -> int:
        return fresh_engine.request("GET", "/info")[1]["NEventsListener"]

    assert listeners() == 0
    command = [find("docker"), "-H", fresh_engine.host, "events"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as listening:
        wait_for(lambda: listeners() == 1, "it listens")
        listening.kill()
    wait_for(lambda: listeners() == 0, "it has gone")


def test_an_end_by_itself_is_told_before_the_removal(engine: EngineProcess, tell: Tell) -> None:
    engine.docker("run", "--rm", "--network", "none", "busybox", "false")
    assert tell() == ["create", "attach", "start", "die exitCode=1", "destroy"]


def test_a_start_that_fails_is_no_start(engine: EngineProcess, tell: Tell) -> None:
    engine.docker("run", "--network", "none", "busybox", "no-such-program")
    assert tell() == ["create", "attach"]


def test_running_out_of_memory_is_told_before_the_end(engine: EngineProcess, tell: Tell) -> None:
    greedy = ("sh", "-c", "dd if=/dev/zero of=/dev/null bs=64M count=1")
    flags = ("--network", "none", "-m", "8m", "--memory-swap", "8m")
    engine.docker("run", *flags, "busybox", *greedy)
    assert tell() == ["create", "attach", "start", "oom", "die exitCode=137"]


def test_networks_and_volumes_of_a_run_are_told(engine: EngineProcess, tell: Tell) -> None:
    volumes = ("-v", "told-volume:/named:ro", "-v", "/own")
    run(engine, *volumes, *SLEEP)
    engine.docker("rm", "-fv", "told")
    engine.docker("volume", "rm", "told-volume")
    everything = tell("container", "network", "volume")
    mounts = ["mount destination=/named read/write=false", "mount destination=/own read/write=true"]
    assert sorted(everything[4:6]) == mounts
    assert everything[:4] == ["create", "create", "create", "connect"]
    assert everything[6:8] == ["start", "kill signal=9"]
    # Docker has told of the end last since its version 23.
    assert sorted(everything[8:12]) == ["die exitCode=137", "disconnect", "unmount", "unmount"]
    assert everything[12:] == ["destroy", "destroy", "destroy"]


@pytest.mark.berth_only  # dockerd 20.10 told of the end first
def test_an_end_is_told_when_networks_and_volumes_are_let_go(
    engine: EngineProcess, tell: Tell
) -> None:
    engine.docker("run", "--rm", "-v", "/own", "busybox", "true")
    found = tell("container", "network", "volume")
    assert found[-5:] == ["disconnect", "unmount", "die exitCode=0", "destroy", "destroy"]


def test_what_happens_to_images_is_told(
    engine: EngineProcess, tell: Tell, busybox_tar: bytes
) -> None:
    done = engine.docker("import", "-c", "LABEL a=b", "-", "told:1", stdin=busybox_tar)
    image = done.out.strip()
    engine.docker("tag", "told:1", "told:2")
    archive = engine.docker("save", "told:1").raw
    engine.docker("rmi", "told:1", "told:2")
    engine.docker("load", stdin=archive)
    engine.docker("rmi", image)
    expected = [
        "tag",
        "import",
        "tag",
        "save",
        "untag",
        "untag",
        "delete",
        "load",
        "untag",
        "delete",
    ]
    assert tell("image") == expected
    events = engine.docker(
        *("events", "--since", "1", "--until", f"{time.time():.9f}", "--filter", f"image={image}"),
        *("--format", "{{.Action}} {{.Actor.Attributes.name}} {{.Actor.Attributes.a}}"),
    )
    assert events.lines[-10] == "tag told:1 b"
    assert events.lines[-1] == f"delete {image} <no value>"


def test_pruning_is_told_with_what_it_freed(engine: EngineProcess, tell: Tell) -> None:
    engine.docker("create", "--network", "none", "busybox", "true")
    for noun in ("container", "network", "image", "volume"):
        assert engine.docker(noun, "prune", "-f").code == 0
    assert tell() == ["create", "destroy", "prune reclaimed=0"]
    for noun in ("network", "image", "volume"):
        assert tell(noun)[-1].startswith("prune reclaimed="), noun


def test_a_container_that_waits_for_its_next_start_is_told_of_as_it_is(
    engine: EngineProcess, tell: Tell
) -> None:
    flags = ("--restart", "always", "--network", "none")
    run(engine, *flags, "busybox", "false")
    wait_for(lambda: waits(engine, "told", starts=3), "it waits")
    starts = ["start", "die exitCode=1"] * 4
    assert engine.docker("kill", "told").code == 0
    found = tell()
    assert found[:9] == ["create", *starts]
    assert set(found[9:]) <= {"start", "die exitCode=1"}  # nothing was killed
    assert engine.inspect("told")["State"]["Status"] == "exited"


def waits(engine: EngineProcess, name: str, *, starts: int) -> bool:
    document = engine.inspect(name)
    return document["State"]["Status"] == "restarting" and document["RestartCount"] > starts
