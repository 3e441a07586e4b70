from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from berth.builds.output import Frames


def frame(stream, text):
    data = text.encode()
    return bytes((stream, 0, 0, 0)) + len(data).to_bytes(4, "big") + data


@given(st.lists(st.tuples(st.sampled_from((1, 2)), st.text(max_size=20))), st.integers(1, 9))
def test_frames_come_whole_however_they_are_cut(parts, size):
    data = b"".join(frame(stream, text) for stream, text in parts)
    frames, found = Frames(), []
    for at in range(0, len(data), size):
        found += frames.feed(data[at : at + size])
    assert found == [(stream == 2, text.encode()) for stream, text in parts]
