"""The HEALTHCHECK instruction."""

from __future__ import annotations

import pytest

from berth.dockerfile.healthchecks import healthcheck
from berth.errors import InvalidArgument
from berth.oci.image import Healthcheck


@pytest.mark.parametrize(
    ("text", "check"),
    [
        ("NONE", Healthcheck(test=["NONE"])),
        ("CMD test -e /x", Healthcheck(test=["CMD-SHELL", "test -e /x"])),
        ('cmd ["a", "b"]', Healthcheck(test=["CMD", "a", "b"])),
        (
            "--interval=1m30s --timeout=50ms  --retries=2 CMD x",
            Healthcheck(
                test=["CMD-SHELL", "x"], interval=90 * 10**9, timeout=50 * 10**6, retries=2
            ),
        ),
        (
            "--start-period=1h --start-interval=1.5s CMD x",
            Healthcheck(
                test=["CMD-SHELL", "x"], start_period=3600 * 10**9, start_interval=15 * 10**8
            ),
        ),
    ],
)
def test_lines_are_read(text: str, check: Healthcheck) -> None:
    assert healthcheck(text) == check


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("NONE x", "takes no arguments"),
        ("CMD", "Missing command"),
        ("RUN x", "Unknown type"),
        ("--retries=0 CMD x", "at least 1"),
        ("--interval=x CMD x", "invalid duration"),
        ("--interval=1us CMD x", "less than 1ms"),
        ("--foo=1 CMD x", "unknown flag: foo"),
    ],
)
def test_wrong_lines_are_refused(text: str, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        healthcheck(text)
