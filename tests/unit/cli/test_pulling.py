import io

import pytest

from berth.cli.pulling import progress, split
from berth.errors import Failed


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("reference", "parts"),
    [
        ("a", ("a", "latest")),
        ("a:1", ("a", "1")),
        ("host:5000/a", ("host:5000/a", "latest")),
        ("host:5000/a:1", ("host:5000/a", "1")),
        ("a@sha256:b", ("a", "sha256:b")),
    ],
)
def test_a_reference_has_a_name_and_a_tag(reference, parts):
    assert split(reference) == parts


MESSAGES = [
    {"status": "Pulling from a", "id": "1"},
    {"status": "Downloading", "id": "x", "progress": "[=> ] 1MB"},
    {"status": "Downloading", "id": "x", "progress": "[==>] 2MB"},
    {"status": "Pull complete", "id": "x"},
    {"stream": "Loaded image: a\n"},
    {"status": "Digest: sha256:1"},
]


def test_without_a_terminal_every_change_is_a_line():
    output = io.StringIO()
    progress(MESSAGES, output)
    assert output.getvalue() == (
        "1: Pulling from a\nx: Pull complete\nLoaded image: a\nDigest: sha256:1\n"
    )


def test_on_a_terminal_lines_are_rewritten_in_place():
    output = Terminal()
    progress(MESSAGES[:3], output)
    assert output.getvalue() == (
        "1: Pulling from a\nx: Downloading [=> ] 1MB\n"
        "\x1b[1A\x1b[2K\rx: Downloading [==>] 2MB\x1b[1B\r"
    )


def test_an_error_among_the_messages_is_raised_also_when_quiet():
    with pytest.raises(Failed, match="no space"):
        progress([*MESSAGES, {"error": "no space"}], None)
