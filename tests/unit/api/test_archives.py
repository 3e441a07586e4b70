"""What the header says of a path, whatever a container has made there."""

from __future__ import annotations

import json
from base64 import b64decode

import pytest

from berth.api.routes.archives import described


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1 << 62, "9999-12-31T23:59:59Z"),
        (-1 << 62, "0001-01-01T00:00:00Z"),
    ],
)
def test_a_time_of_any_year_and_a_name_of_any_bytes_can_be_shown(seconds: int, shown: str) -> None:
    found = {"name": "bad\udcff", "linkTarget": "\udcfe", "size": 1, "mode": 2}
    header = described({**found, "mtime_ns": seconds * 1_000_000_000})
    document = json.loads(b64decode(header))
    assert document["mtime"] == shown
    assert [document["name"], document["linkTarget"]] == ["bad\ufffd", "\ufffd"]
