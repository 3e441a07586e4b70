import pytest

from berth.oci.reference import Reference
from berth.registry.progress import Meter, bar, human_size, pulling, summary

DIGEST = "sha256:" + "0123456789abcdef" * 4


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


def test_repositories_keep_their_path_of_docker_hub():
    assert pulling(Reference.parse("a:1")) == {"status": "Pulling from library/a", "id": "1"}
    reference = Reference.parse(f"h.invalid/a@{DIGEST}")
    assert pulling(reference) == {"status": "Pulling from h.invalid/a", "id": DIGEST}
    assert summary(reference, DIGEST, newer=False) == (
        {"status": f"Digest: {DIGEST}"},
        {"status": f"Status: Image is up to date for h.invalid/a@{DIGEST}"},
    )


def test_a_meter_does_not_chatter():
    messages = []
    meter = Meter(DIGEST, 1000, messages.append)
    for current in range(0, 1000, 10):
        meter.at(current)
    meter.say("Download complete")
    assert len(messages) < 10
    assert messages[0]["id"] == "0123456789ab"
    assert messages[0]["progressDetail"] == {"current": 0, "total": 1000}
    assert messages[-1] == {
        "status": "Download complete",
        "progressDetail": {},
        "id": "0123456789ab",
    }
