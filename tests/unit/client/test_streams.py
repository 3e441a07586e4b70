from hypothesis import given
from hypothesis import strategies as st

from berth.client.streams import Demultiplexer


def frame(stream, payload):
    return bytes((stream, 0, 0, 0)) + len(payload).to_bytes(4, "big") + payload


@given(
    st.lists(st.tuples(st.sampled_from((1, 2)), st.binary(max_size=40))),
    st.lists(st.integers(min_value=1, max_value=30)),
)
def test_frames_come_out_whatever_the_pieces(frames, cuts):
    data = b"".join(frame(*item) for item in frames)
    demultiplexer = Demultiplexer()
    found = {1: b"", 2: b""}
    order = []
    while data:
        size = cuts.pop() if cuts else len(data)
        for stream, payload in demultiplexer.feed(data[:size]):
            found[stream] += bytes(payload)
            order += [stream] * len(payload)
        data = data[size:]
    for stream in (1, 2):
        assert found[stream] == b"".join(payload for kind, payload in frames if kind == stream)
    assert order == [kind for kind, payload in frames for _ in payload]
