import pytest

from berth.api.progress import bar, human_size


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0B"), (999, "999B"), (1000, "1kB"), (1_234_567, "1.235MB"), (5e9, "5GB")],
)
def test_sizes_are_written_as_docker_does(size, text):
    assert human_size(size) == text


def test_bars_have_fifty_steps():
    assert bar(0, 1000) == "[>" + " " * 50 + "]       0B/1kB"
    assert bar(1000, 1000) == "[" + "=" * 50 + ">]      1kB/1kB"
    assert bar(2000, 1000) == "     2kB"
    assert bar(5, 0) == "      5B"
