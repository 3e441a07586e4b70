"""`docker events`: every kind, in order, chosen by time and filters, and soon."""

from __future__ import annotations

import json
import socket
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from support.engine import EngineProcess

Event = dict[str, object]


def lived(engine: EngineProcess) -> tuple[float, float]:
    """Do one thing of each kind; return when that began and when it was over."""
    began = time.time()
    assert engine.docker("volume", "create", "vol").code == 0
    assert engine.docker("network", "create", "net").code == 0
    words = (
        "run",
        "--name",
        "one",
        "-l",
        "a=b",
        "-v",
        "vol:/v",
        "--network",
        "net",
        "busybox",
        "true",
    )
    assert engine.docker(*words).code == 0
    assert engine.docker("tag", "busybox", "other").code == 0
    for words in (
        ("rmi", "other"),
        ("rm", "one"),
        ("network", "rm", "net"),
        ("volume", "rm", "vol"),
    ):
        assert engine.docker(*words).code == 0
    return began, time.time()


def events(engine: EngineProcess, since: float, until: float, *filters: str) -> list[Event]:
    words = (word for text in filters for word in ("--filter", text))
    done = engine.docker(
        *("events", "--since", f"{since:.9f}", "--until", f"{until:.9f}"),
        *("--format", "{{json .}}", *words),
    )
    assert done.code == 0, done.err
    return [json.loads(line) for line in done.lines]


def short(found: list[Event]) -> list[str]:
    return [f"{event['Type']} {event['Action']}" for event in found]


def test_what_happens_is_told_in_order(engine: EngineProcess) -> None:
    found = events(engine, *lived(engine))
    assert sorted(short(found)) == sorted(
        [
            *("volume create", "network create", "container create", "container attach"),
            *("network connect", "volume mount", "container start", "container die"),
            *("network disconnect", "volume unmount", "image tag", "image untag"),
            *("container destroy", "network destroy", "volume destroy"),
        ]
    )
    of_container = [e["Action"] for e in found if e["Type"] == "container"]
    assert of_container == ["create", "attach", "start", "die", "destroy"]
    times = [event["timeNano"] for event in found]
    assert times == sorted(times)  # type: ignore[type-var]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (("type=volume", "event=create"), ["volume create"]),
        (("volume=vol", "event=destroy"), ["volume destroy"]),
        (("network=net", "event=create"), ["network create"]),
        (("container=one", "event=start", "event=die"), ["container start", "container die"]),
        (("label=a=b", "event=create"), ["container create"]),
        (("label=a=c",), []),
        (("image=other", "event=tag"), ["image tag"]),
        (("type=container", "image=busybox", "event=die"), ["container die"]),
        (("daemon=nobody",), []),
        (("plugin=nobody",), []),
        (("scope=local", "type=image"), ["image tag", "image untag"]),
        (("scope=swarm",), []),
    ],
)
def test_filters_choose(
    engine: EngineProcess, filters: tuple[str, ...], expected: list[str]
) -> None:
    assert short(events(engine, *lived(engine), *filters)) == expected


def test_times_choose(engine: EngineProcess) -> None:
    began, over = lived(engine)
    found = events(engine, began, over)
    middle = next(e for e in found if e["Action"] == "die")
    at = int(str(middle["timeNano"])) / 1e9
    later = events(engine, at - 1e-6, over)
    assert short(later) == short(found)[len(found) - len(later) :]
    assert "container die" in short(later)
    assert events(engine, over, over) == []


def test_an_event_arrives_at_once(engine: EngineProcess) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.settimeout(20)
        listener.connect(str(engine.socket))
        listener.sendall(
            b"GET /events?filters=%7B%22type%22%3A%5B%22volume%22%5D%7D HTTP/1.1\r\nHost: x\r\n\r\n"
        )
        assert listener.recv(4096).startswith(b"HTTP/1.1 200 OK\r\n")  # before there is any event
        waits = []
        for number in range(20):
            began = time.perf_counter()
            assert engine.request("POST", "/volumes/create", {"Name": f"v{number}"})[0] == 201
            data = listener.recv(1 << 16)
            waits.append(time.perf_counter() - began)
            assert f'"v{number}"'.encode() in data
        assert sorted(waits)[10] < 0.1
    for number in range(20):
        engine.request("DELETE", f"/volumes/v{number}")
