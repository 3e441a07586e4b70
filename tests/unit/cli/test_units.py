import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.cli import units


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0),
        ("512", 512),
        ("512b", 512),
        ("6M", 6 << 20),
        ("6mb", 6 << 20),
        ("6MiB", 6 << 20),
        ("1.5g", 3 << 29),
        ("2 t", 2 << 40),
        ("-1", -1),
    ],
)
def test_sizes_are_powers_of_1024(text, count):
    assert units.size(text) == count


@pytest.mark.parametrize("text", ["", "m", "x", "5x", "1.2.3", "-5m", "5 5"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ValueError, match="invalid"):
        units.size(text)


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [("0", 0), ("5s", 5e9), ("1h30m", 5.4e12), ("1.5s", 1.5e9), ("250ms", 2.5e8), ("7us", 7000)],
)
def test_durations_are_gos(text, nanoseconds):
    assert units.duration_ns(text) == nanoseconds


@pytest.mark.parametrize("text", ["", "5", "s", "5x", "1m5"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ValueError, match="duration"):
        units.duration_ns(text)


@given(
    st.datetimes(
        min_value=datetime.datetime(1971, 1, 1),  # noqa: DTZ001  # the strategy wants naive bounds
        max_value=datetime.datetime(2200, 1, 1),  # noqa: DTZ001
        timezones=st.sampled_from(
            [datetime.UTC, datetime.timezone(datetime.timedelta(hours=-5, minutes=-30))]
        ),
    )
)
def test_times_are_read_as_datetime_does(moment):
    text = moment.isoformat().replace("+00:00", "Z")
    assert units.seconds(text) == pytest.approx(moment.timestamp(), abs=1e-5)


def test_no_time_is_zero():
    assert units.seconds("0001-01-01T00:00:00Z") == 0
    assert units.seconds("") == 0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.5, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (150, "2 minutes"),
        (3600, "About an hour"),
        (7300, "2 hours"),
        (200_000, "2 days"),
        (1_300_000, "2 weeks"),
        (6_000_000, "2 months"),
        (3500, "58 minutes"),
        (5500, "2 hours"),
        (80_000_000, "2 years"),
    ],
)
def test_durations_are_told_roughly(seconds, text):
    assert units.human_duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "decimal", "binary"),
    [
        (0, "0B", "0B"),
        (999, "999B", "999B"),
        (1_980_000, "1.98MB", "1.888MiB"),
        (2 << 30, "2.15GB", "2GiB"),
    ],
)
def test_sizes_are_told_in_a_few_digits(count, decimal, binary):
    assert units.human_size(count) == decimal
    assert units.human_size(count, binary=True) == binary


def test_log_times_are_ages_dates_or_numbers():
    assert units.log_time("1m", 100_000_000_000) == "40.000000000"
    assert units.log_time("1700000000.5", 0) == "1700000000.5"
    assert units.log_time("1970-01-02", 0) == "86400.000000000"
    assert units.log_time("1970-01-01T00:01", 0) == "60.000000000"
    assert units.log_time("1970-01-01T00:00:01.25Z", 0) == "1.250000000"
    assert units.log_time("2026-11-24T03:02:18.118513031Z", 0) == "1795489338.118513031"
    with pytest.raises(ValueError, match="failed to parse"):
        units.log_time("yesterday", 0)
