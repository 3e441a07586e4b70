"""Clients' JSON, read as leniently as Go reads it and no more."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.engine.decoding import decode
from berth.engine.models import CreateRequest, EndpointRequest, ExecConfig
from berth.errors import InvalidArgument


def test_names_match_without_regard_to_case_but_keys_of_maps_stay() -> None:
    found = decode(
        b'{"image": "x", "HOSTCONFIG": {"memory": 5, "Tmpfs": {"/X": ""}}, "labels": {"Image": "a"},'
        b' "NetworkingConfig": {"endpointsconfig": {"NET": {"macaddress": "m"}}}}',
        CreateRequest,
    )
    assert found.image == "x"
    assert found.host_config is not None
    assert (found.host_config.memory, found.host_config.tmpfs) == (5, {"/X": ""})
    assert found.labels == {"Image": "a"}
    assert found.networking_config is not None
    assert found.networking_config.endpoints_config == {"NET": EndpointRequest(mac_address="m")}


def test_null_is_not_said_and_unknown_names_are_passed_over() -> None:
    found = decode(b'{"Cmd": null, "Env": ["a"], "Nonsense": {"deep": [1]}}', ExecConfig)
    assert (found.cmd, found.env) == (None, ["a"])


@pytest.mark.parametrize(
    "data",
    [
        b"{",
        b"[]",
        b"1",
        b"null",
        b"\xff",
        b'{"Image": "\xff"}',
        b"[" * 100_000,
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b'{"HostConfig": {"Memory": 99999999999999999999}}',
        b'{"HostConfig": {"Memory": 1.5}}',
        b'{"HostConfig": 5}',
        b'{"Env": {"a": "b"}}',
        b'{"Labels": {"a": 1}}',
        b'{"Cmd": [1]}',
    ],
)
def test_what_is_no_request_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidArgument, match=r"^invalid JSON: "):
        decode(data, CreateRequest)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["Image", "HostConfig", "Env", "Labels", "Memory", "Mounts", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(_JSON)
def test_any_json_is_read_or_refused(value: object) -> None:
    import json

    try:
        found = decode(json.dumps(value).encode(), CreateRequest)
    except InvalidArgument as error:
        assert error.message.startswith("invalid JSON: ")
    else:
        assert isinstance(found, CreateRequest)
