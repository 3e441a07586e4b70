"""Searching a registry, which here is one of our own that knows a few repositories."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest

from support.servers import Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.engine import EngineProcess
    from support.programs import Outcome

    Cli = Callable[..., Outcome]

pytestmark = pytest.mark.berth_only  # dockerd asks for /v1/_ping first

KNOWN = [
    {"name": "few", "description": "x" * 60, "star_count": 1, "is_official": False},
    {"name": "many", "description": "A lot\nof stars", "star_count": 900, "is_official": True},
    {"name": "none", "description": None, "star_count": 0, "is_automated": True},
]


class Registry(Server):
    def __init__(self) -> None:
        self.asked: list[dict[str, list[str]]] = []
        self.answer = json.dumps({"num_results": len(KNOWN), "results": KNOWN}).encode()
        self.status = 200
        registry = self

        class Found(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                url = urlsplit(self.path)
                registry.asked.append({"path": [url.path], **parse_qs(url.query)})
                self.send_response(registry.status)
                self.end_headers()
                self.wfile.write(registry.answer)

        super().__init__(Found)


@pytest.fixture
def registry() -> Iterator[Registry]:
    found = Registry()
    yield found
    found.close()


def test_a_search_shows_what_was_found(cli: Cli, engine: EngineProcess, registry: Registry) -> None:
    assert engine
    done = cli("search", "--limit", "7", f"{registry.host}/some/thing")
    assert registry.asked[-1] == {"path": ["/v1/search"], "q": ["some/thing"], "n": ["7"]}
    head, *lines = done.lines
    assert head.split() == ["NAME", "DESCRIPTION", "STARS", "OFFICIAL"]
    assert [line.split()[0] for line in lines] == ["few", "many", "none"]
    assert lines[1].split() == ["many", "A", "lot", "of", "stars", "900", "[OK]"]
    assert "x" * 44 + "…" in lines[0]
    whole = cli("search", "--no-trunc", "--format", "{{.Description}}", f"{registry.host}/x")
    assert "x" * 60 in whole.lines
    assert registry.asked[-1]["n"] == ["25"]


@pytest.mark.parametrize(
    ("condition", "names"),
    [
        ("stars=1", ["few", "many"]),
        ("is-official=true", ["many"]),
        ("is-official=false", ["few", "none"]),
        ("is-automated=true", []),
    ],
)
def test_a_search_is_narrowed(
    cli: Cli, engine: EngineProcess, registry: Registry, condition: str, names: list[str]
) -> None:
    assert engine
    words = ("--filter", condition, "--format", "{{.Name}}", f"{registry.host}/x")
    assert cli("search", *words).lines == names


def test_what_cannot_be_searched_is_refused(engine: EngineProcess, registry: Registry) -> None:
    where = f"/images/search?term={registry.host}/x"
    for path, said in (
        (f"{where}&limit=101", "Limit 101 is outside the range of [1, 100]"),
        (f"{where}&filters=%7B%22color%22:[%22red%22]%7D", "invalid filter 'color'"),
        (f"{where}&filters=%7B%22stars%22:[%22x%22]%7D", "invalid filter 'stars=[x]'"),
        ("/images/search?term=http://x/y", "repository name should not have a scheme"),
    ):
        status, answer = engine.request("GET", path)
        assert (status, said in answer["message"]) == (400, True), answer  # type: ignore[index]
    registry.answer = b"no JSON"
    status, answer = engine.request("GET", where)
    assert status == 503
    registry.status = 404
    assert engine.request("GET", where)[0] == 404
