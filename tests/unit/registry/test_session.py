"""How long to wait before another attempt."""

import time
from email.utils import formatdate

import pytest

from berth.errors import Unavailable
from berth.registry.session import Busy, Patience, seconds_of


@pytest.mark.parametrize(
    ("header", "seconds"), [("", 0), ("7", 7), ("0", 0), ("-3", 0), ("soon", 0), ("\u0663", 0)]
)
def test_seconds_are_read(header, seconds):
    assert seconds_of(header) == seconds


def test_dates_are_read():
    assert 50 < seconds_of(formatdate(time.time() + 60, usegmt=True)) <= 60
    assert seconds_of(formatdate(time.time() - 60, usegmt=True)) == 0


def test_pauses_grow_and_a_registry_s_wish_counts():
    patience = Patience(backoff_s=0.5)
    error = Unavailable("broken")
    assert [patience.pause_s(n, error) for n in (0, 1, 2, 20)] == [0.5, 1, 2, 60]
    assert patience.pause_s(0, Busy("busy", retry_after_s=90)) == 90
    assert patience.pause_s(0, Busy("busy", retry_after_s=9e9)) == 600
