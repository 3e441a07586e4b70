"""What versions 1.52 to 1.56 of the API say, and what only older ones still do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from support.engine import UnixConnection

if TYPE_CHECKING:
    from support.engine import EngineProcess

pytestmark = pytest.mark.berth_only  # 20.10 ends at 1.41

NEWEST, OLDER = "/v1.56", "/v1.51"


def get(engine: EngineProcess, path: str) -> dict[str, object]:
    status, document = engine.request("GET", path)
    assert status == 200, document
    assert isinstance(document, dict)
    return document


@pytest.fixture
def up(engine: EngineProcess) -> str:
    words = ("run", "-d", "--name", "up", "--annotation", "a=b", "busybox", "sleep", "600")
    assert engine.docker(*words).code == 0
    return "up"


def test_inspect_leaves_out_triggers_that_are_not_set(engine: EngineProcess, up: str) -> None:
    old, new = (get(engine, f"{version}/containers/{up}/json") for version in (OLDER, NEWEST))
    before, after = old["NetworkSettings"], new["NetworkSettings"]
    assert isinstance(before, dict)
    assert isinstance(after, dict)
    assert before == after  # docker-py, which takes any version, reads addresses there
    assert before["IPAddress"] == after["Networks"]["bridge"]["IPAddress"]
    assert "OnBuild" in old["Config"]  # type: ignore[operator]
    assert "OnBuild" not in new["Config"]  # type: ignore[operator]


def test_an_image_has_no_empty_fields(engine: EngineProcess) -> None:
    old, new = (get(engine, f"{version}/images/busybox/json") for version in (OLDER, NEWEST))
    assert "Author" in old
    assert not {"Author", "Parent"} & set(new)
    assert {"Env", "Cmd", "Labels"} <= set(old["Config"])  # type: ignore[call-overload]
    assert set(new["Config"]) == {"Env", "Cmd"}  # type: ignore[call-overload]


def test_a_list_has_the_health(engine: EngineProcess, up: str) -> None:
    assert up
    (old,), (new,) = (
        engine.request("GET", f"{version}/containers/json")[1] for version in (OLDER, NEWEST)
    )
    assert "Health" not in old
    assert new["Health"] == {"Status": "none", "FailingStreak": 0}


def test_a_network_says_how_many_addresses_are_taken(engine: EngineProcess, up: str) -> None:
    assert engine.docker("network", "create", "--subnet", "10.99.8.0/28", "small").code == 0
    try:
        assert engine.docker("network", "connect", "small", up).code == 0
        found = get(engine, f"{NEWEST}/networks/small")
        # The network's, the broadcast's, the gateway's and the container's.
        assert found["Status"] == {
            "IPAM": {"Subnets": {"10.99.8.0/28": {"IPsInUse": 4, "DynamicIPsAvailable": 12}}}
        }
        assert "Status" not in get(engine, f"{OLDER}/networks/small")
    finally:
        engine.docker("rm", "-f", up)
        engine.docker("network", "rm", "small")


def test_disk_usage_is_told_in_figures(engine: EngineProcess, up: str) -> None:
    words = ("exec", up, "dd", "if=/dev/zero", "of=/data", "bs=4096", "count=10")
    assert engine.docker(*words).code == 0
    engine.docker("create", "--name", "idle", "busybox", "true")
    old, new = (get(engine, f"{version}/system/df") for version in (OLDER, NEWEST))
    assert set(old) == {"LayersSize", "Images", "Containers", "Volumes", "BuildCache"}
    figures = {"ImageUsage", "ContainerUsage", "VolumeUsage", "BuildCacheUsage"}
    assert set(new) == {*old, *figures}
    containers, images = new["ContainerUsage"], new["ImageUsage"]
    assert isinstance(containers, dict)
    assert isinstance(images, dict)
    assert (containers["ActiveCount"], containers["TotalCount"]) == (1, 2)
    assert containers["TotalSize"] >= 40960
    assert containers["Reclaimable"] < containers["TotalSize"]
    assert images["ActiveCount"] == 1
    assert images["TotalSize"] == old["LayersSize"]
    assert "Items" not in images
    verbose = get(engine, f"{NEWEST}/system/df?verbose=1&type=container")
    assert set(verbose) == {"ContainerUsage"}
    names = [c["Names"] for c in verbose["ContainerUsage"]["Items"]]  # type: ignore[index]
    assert sorted(names) == [["/idle"], ["/up"]]


@pytest.mark.parametrize(
    ("accept", "form", "mark"),
    [
        (None, "application/json", b""),
        ("*/*", "application/jsonl", b""),
        ("application/json-seq", "application/json-seq", b"\x1e"),
        ("application/x-ndjson, application/jsonl;q=0.5", "application/x-ndjson", b""),
        ("application/jsonl;q=0, text/html", "application/json", b""),
        (";;;q=x,,", "application/json", b""),
    ],
)
def test_events_come_in_the_form_that_is_asked_for(
    engine: EngineProcess, accept: str | None, form: str, mark: bytes
) -> None:
    engine.docker("create", "--name", "told", "busybox", "true")
    until = get(engine, "/info")["SystemTime"]
    connection = UnixConnection(engine.socket)
    headers = {"Accept": accept} if accept else {}
    connection.request("GET", f"{NEWEST}/events?since=1&until={until}", headers=headers)
    answer = connection.getresponse()
    lines = answer.read().splitlines()
    connection.close()
    assert answer.getheader("Content-Type") == form
    assert all(line.startswith(mark + b"{") for line in lines)
    event = json.loads(lines[-1].removeprefix(mark))
    assert (event["Action"], event.keys() & {"status", "id", "from"}) == ("create", set())


def test_older_events_have_their_words_twice(engine: EngineProcess) -> None:
    made = engine.docker("create", "--name", "told", "busybox", "true").out.strip()
    until = get(engine, "/info")["SystemTime"]
    _, headers, data = engine.exchange("GET", f"{OLDER}/events?since=1&until={until}")
    assert headers["Content-Type"] == "application/json"
    event = json.loads(data.splitlines()[-1])
    assert (event["status"], event["id"], event["from"]) == ("create", made, "busybox")


def test_containers_are_found_by_their_annotations(engine: EngineProcess, up: str) -> None:
    for value, count in (("a", 1), ("a=b", 1), ("a=c", 0), ("b", 0)):
        found = engine.docker("ps", "-q", "--filter", f"annotation={value}").lines
        assert len(found) == count, value
    assert up


def test_ports_without_bindings_are_passed_over(engine: EngineProcess) -> None:
    host = {"PortBindings": {"80/tcp": []}}
    body = {"Image": "busybox", "Cmd": ["true"], "HostConfig": host}
    for version, bindings, warns in (("1.51", 1, 0), ("1.52", 1, 1), ("1.53", 0, 0)):
        status, made = engine.request("POST", f"/v{version}/containers/create", body)
        assert status == 201
        assert isinstance(made, dict)
        assert len(made["Warnings"] or ()) == warns
        shown = engine.inspect(made["Id"])["HostConfig"]["PortBindings"]  # type: ignore[index]
        assert len(shown) == bindings, version


def test_an_address_for_a_whole_container_is_still_taken(engine: EngineProcess) -> None:
    body = {"Image": "busybox", "Cmd": ["true"], "MacAddress": "02:42:ac:16:00:09"}
    for version in (OLDER, NEWEST):
        status, made = engine.request("POST", f"{version}/containers/create", body)
        assert status == 201
        assert isinstance(made, dict)
        assert "deprecated" in made["Warnings"][0]
        found = engine.inspect(made["Id"])["NetworkSettings"]["Networks"]  # type: ignore[index]
        assert found["bridge"]["MacAddress"] == "02:42:ac:16:00:09"


def test_attestations_are_not_kept(engine: EngineProcess) -> None:
    assert engine.request("GET", f"{NEWEST}/images/busybox/attestations")[0] == 501
    assert engine.request("GET", f"{NEWEST}/images/nobody/attestations")[0] == 404
