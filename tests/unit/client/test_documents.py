import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.client import documents
from berth.errors import Corrupt

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(JSON)
def test_it_writes_and_reads_what_json_does(value):
    assert json.loads(documents.encode(value)) == value
    assert json.loads(documents.readable(value)) == value
    assert documents.decode(json.dumps(value, indent=2).encode()) == value


@pytest.mark.parametrize("data", [b"", b"{", b"{} {}", b"nope", b'{"a":}'])
def test_malformed_text_is_corrupt(data):
    with pytest.raises(Corrupt):
        documents.decode(data)


def test_looks_inside_are_typed():
    document = {"a": {"b": "text", "n": 3, "l": ["x", 1]}}
    assert documents.text(document, "a", "b") == "text"
    assert documents.text(document, "a", "n") == ""
    assert documents.number(document, "a", "n") == 3
    assert documents.number(document, "nope", "n") == 0
    assert documents.strings(document, "a", "l") == ["x"]
    assert documents.items(None, "a") == []
