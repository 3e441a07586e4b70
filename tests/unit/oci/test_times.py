"""Times as clients and images write them."""

import time

import pytest

from berth.errors import InvalidArgument
from berth.oci import times


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2026-12-01T01:02:03.123456789Z", 1_796_086_923_123_456_000),
        ("2026-12-01T03:02:03.1+02:00", 1_796_086_923_100_000_000),
        ("2026-12-01", 1_796_083_200_000_000_000),
        ("0001-01-01T00:00:00Z", -62_135_596_800_000_000_000),
    ],
)
def test_a_moment_is_as_exact_as_it_is_written(text, nanoseconds):
    assert times.parse_ns(text) == times.moment_ns(text) == nanoseconds


@pytest.mark.parametrize("text", ["", "nan", "inf", "xh", "1hh", "-1h", "2026-13-01"])
def test_what_is_no_moment_is_refused(text):
    with pytest.raises(InvalidArgument, match="failed to parse value as time or duration"):
        times.moment_ns(text)


def test_a_moment_may_be_in_seconds_or_so_long_ago():
    assert times.moment_ns("12.5") == 12_500_000_000
    ago = time.time_ns() - 5_400_500_000_000
    assert abs(times.moment_ns("1h30m500ms") - ago) < 5 * times.SECOND_NS
