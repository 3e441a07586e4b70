from __future__ import annotations

import pytest

from berth.dockerfile.modes import Mode
from berth.errors import InvalidArgument

FILE, FOLDER = 0o100000, 0o40000


@pytest.mark.parametrize(
    ("text", "before", "after"),
    [
        ("755", FILE | 0o600, 0o755),
        ("07777", FILE, 0o7777),
        ("u=rwX,go=rX", FILE | 0o644, 0o644),
        ("u=rwX,go=rX", FILE | 0o100, 0o755),
        ("u=rwX,go=rX", FOLDER | 0o700, 0o755),
        ("a+x", FILE | 0o644, 0o755),
        ("+x", FILE | 0o644, 0o755),
        ("g=u", FILE | 0o750, 0o770),
        ("go-w", FILE | 0o666, 0o644),
        ("u+x-w", FILE | 0o644, 0o544),
        ("u+s,g+s,+t", FILE | 0o755, 0o7755),
        ("u=r", FILE | 0o4755, 0o455),
        ("o=", FILE | 0o777, 0o770),
    ],
)
def test_digits_and_symbols(text, before, after):
    assert oct(Mode(text).of(before)) == oct(after)


@pytest.mark.parametrize("text", ["8", "10000", "u", "x+r", "u=q", "u=r,", "a+rw g+x"])
def test_what_is_no_mode(text):
    with pytest.raises(InvalidArgument, match="invalid chmod parameter"):
        Mode(text)
