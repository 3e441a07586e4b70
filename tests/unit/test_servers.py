"""The tests' own servers: what one leaves behind, another test would talk to."""

from __future__ import annotations

import http.client

import pytest

from support.registries import Answer, Front


def test_a_server_that_is_closed_answers_nobody_any_more() -> None:
    front = Front(None)
    front.rules.append(lambda *_: Answer(status=200, body=b"here"))
    kept = http.client.HTTPConnection(front.host, timeout=10)
    try:
        kept.request("GET", "/")
        assert kept.getresponse().read() == b"here"
        front.close()
        kept.auto_open = 0
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            kept.request("GET", "/")
            kept.getresponse()
    finally:
        kept.close()
