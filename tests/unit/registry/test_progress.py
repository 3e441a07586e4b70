from berth.oci.reference import Reference
from berth.registry.progress import Meter, pulling, summary

DIGEST = "sha256:" + "0123456789abcdef" * 4


def test_a_pull_is_told_by_path_and_ended_by_the_whole_name():
    assert pulling(Reference.parse("a:1")) == {"status": "Pulling from library/a", "id": "1"}
    reference = Reference.parse(f"h.invalid/a@{DIGEST}")
    assert pulling(reference) == {"status": "Pulling from a", "id": DIGEST}
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
